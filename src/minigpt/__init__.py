"""miniGPT: train GPTs from scratch on Tiny Shakespeare with PyTorch Lightning and Hydra."""

import time

from minigpt.api import build, compose, load, train

__all__ = ["build", "compose", "load", "train"]
__version__ = "0.1.0"

STARTED = time.monotonic()  # every command imports this package first: the start of the program
