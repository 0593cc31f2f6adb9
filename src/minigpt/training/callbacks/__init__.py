"""Lightning callbacks: each watches a run from outside, and any can be left out."""
