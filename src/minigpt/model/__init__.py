"""Language models written from scratch in PyTorch: token ids in, logits out."""
