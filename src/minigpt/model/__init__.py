"""Language models written from scratch on torch: tokens in, logits out."""
