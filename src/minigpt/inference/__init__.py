"""Using a trained model: load it, score a text, sample from it."""
