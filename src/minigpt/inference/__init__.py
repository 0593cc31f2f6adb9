"""Inference: load a trained model, score a text with it, and generate from it."""
