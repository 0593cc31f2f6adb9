"""Text to batches: find the text, turn it into tokens once, and name the rows of every step."""
