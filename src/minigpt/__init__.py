"""miniGPT: train GPTs from scratch on Tiny Shakespeare with PyTorch Lightning and Hydra."""

import time

__version__ = "0.1.0"

STARTED = time.monotonic()  # every door imports this package first, so this is when the program began
