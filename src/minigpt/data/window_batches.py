"""Batches of overlapping windows of a text, to be scored. Shapes: N windows, T block_size."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from minigpt.data.loaders import IGNORE_INDEX, Batch


def random_windows(
    tokens: np.ndarray, *, block_size: int, num_windows: int, seed: int, batch_size: int
) -> Iterator[Batch]:
    """Yield windows that start anywhere in a text, drawn with replacement, as nanoGPT's `estimate_loss` does.

    Raises:
        ValueError: the text is shorter than a window.
    """
    if len(tokens) <= block_size:
        raise ValueError(f"the text has {len(tokens):,} tokens, too few for windows of {block_size:,}: protocol=exact")
    starts = np.random.default_rng(seed).integers(len(tokens) - block_size, size=num_windows)
    return collate_windows(tokens, starts, np.zeros_like(starts), block_size, batch_size)


def sliding_windows(tokens: np.ndarray, *, block_size: int, stride: int, batch_size: int) -> Iterator[Batch]:
    """Yield windows that are `stride` tokens apart; each token is predicted once, in the first window that has it.

    All but the first window predict their last `stride` tokens alone, which have at least block_size - stride tokens
    before them.

    Raises:
        ValueError: windows so far apart would leave tokens out.
    """
    if stride > block_size:
        raise ValueError(f"stride={stride} must be at most the block size of the training, {block_size}")
    starts = np.arange(0, max(1, len(tokens) - 1 - block_size + stride), stride)
    return collate_windows(tokens, starts, np.where(starts == 0, 0, block_size - stride), block_size, batch_size)


def collate_windows(
    tokens: np.ndarray, starts: NDArray[np.int64], first_scored: NDArray[np.int64], block_size: int, batch_size: int
) -> Iterator[Batch]:
    """Yield inputs and targets [up to batch_size, T] of windows.

    Args:
        tokens: the text.
        starts: position of each window [N].
        first_scored: the first position in each window whose target counts [N].
        block_size: T.
        batch_size: windows of a batch.
    """
    offsets = np.arange(block_size)
    for first in range(0, len(starts), batch_size):
        batch = slice(first, first + batch_size)
        positions = starts[batch, None] + offsets
        is_scored = (offsets >= first_scored[batch, None]) & (positions + 1 < len(tokens))
        inputs = tokens[np.minimum(positions, len(tokens) - 1)].astype(np.int64)
        targets = tokens[np.minimum(positions + 1, len(tokens) - 1)].astype(np.int64)
        yield torch.from_numpy(inputs), torch.from_numpy(np.where(is_scored, targets, IGNORE_INDEX))
