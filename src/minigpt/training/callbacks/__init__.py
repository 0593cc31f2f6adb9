"""Lightning callbacks: each watches a run from outside. All but Metrics and GracefulStop can be left out."""
