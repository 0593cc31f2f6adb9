"""miniGPT: train GPTs from scratch on Tiny Shakespeare with PyTorch Lightning and Hydra."""

import time

__version__ = "0.1.0"

STARTED = time.monotonic()  # every command imports this package first: the start of the program
