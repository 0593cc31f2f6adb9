"""Data: locate a text, tokenize it once, and serve the batches of every step."""
