"""Samplers: which sequences make up the batch of an optimizer step.

A sampler is a pure function of (seed, step), the same on one device and on eight. It keeps nothing between steps, so
resuming a run needs the step alone. Shapes: B sequences of a step, T block_size.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from minigpt.bounds import PositiveInt, Seed

MASK32 = np.uint64(0xFFFFFFFF)


class Sampler(Protocol):
    """Chooses the sequences of each step.

    Attributes:
        block_size: T, tokens of a sequence.
    """

    block_size: int

    def start_indices(self, step: int, batch_size: int) -> NDArray[np.int64]:
        """Return the positions [B] of the first token of each sequence of a step."""
        ...


class ShuffledSampler:
    """Each epoch covers the text once, in shuffled blocks that are cut at an offset of the epoch's own.

    The order is a keyed permutation that is evaluated only for the sequences asked for, so a text of any size costs no
    memory: a Feistel network over [0, a) x [0, b) with a * b just above the number of blocks, applied again until the
    result is below that number (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002).

    Args:
        num_tokens: length of the text, in tokens.
        block_size: T, tokens of a sequence.
        seed: key of the permutation.

    Raises:
        ValueError: the text is shorter than two blocks.
    """

    ROUNDS = 6

    def __init__(self, *, num_tokens: int, block_size: PositiveInt, seed: Seed) -> None:
        self.block_size = block_size
        self.seed = seed
        # A sequence needs T + 1 tokens, and any offset in [0, T) must leave the same number of blocks.
        self.num_blocks = (num_tokens - block_size) // block_size
        if self.num_blocks < 1:
            raise ValueError(
                f"the text's training split has {num_tokens:,} tokens: too short for block_size {block_size}, "
                f"which needs {2 * block_size:,}"
            )
        self.left = int(np.ceil(np.sqrt(self.num_blocks)))
        self.right = -(-self.num_blocks // self.left)

    def start_indices(self, step: int, batch_size: int) -> NDArray[np.int64]:
        """Return the positions [B] of the first token of each sequence of a step."""
        numbers = np.arange(step * batch_size, (step + 1) * batch_size, dtype=np.uint64)
        epochs, blocks = np.divmod(numbers, np.uint64(self.num_blocks))
        offsets = splitmix64(self.seed, epochs, 0) % np.uint64(self.block_size)
        return (self.permute(blocks, epochs) * np.uint64(self.block_size) + offsets).astype(np.int64)

    def permute(self, blocks: NDArray[np.uint64], epochs: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Map block numbers in [0, num_blocks) to their places in the order of their epochs."""
        a, b = np.uint64(self.left), np.uint64(self.right)
        out = blocks
        todo = np.ones(len(blocks), dtype=bool)
        while todo.any():
            x, y = np.divmod(out[todo], b)
            key = epochs[todo]
            for r in range(1, self.ROUNDS + 1, 2):
                x = (x + splitmix64(self.seed, key, r) + splitmix64(self.seed, y, r)) % a
                y = (y + splitmix64(self.seed, key, r + 1) + splitmix64(self.seed, x, r + 1)) % b
            out = out.copy()
            out[todo] = x * b + y
            todo = out >= np.uint64(self.num_blocks)
        return out


class RandomSampler:
    """Each sequence starts at a random position, drawn independently, as in nanoGPT.

    Args:
        num_tokens: length of the text, in tokens.
        block_size: T, tokens of a sequence.
        seed: key of the draws.

    Raises:
        ValueError: the text is shorter than one sequence and its last target.
    """

    def __init__(self, *, num_tokens: int, block_size: PositiveInt, seed: Seed) -> None:
        self.block_size = block_size
        self.seed = seed
        self.num_starts = num_tokens - block_size
        if self.num_starts < 1:
            raise ValueError(
                f"the text's training split has {num_tokens:,} tokens: too short for block_size {block_size}"
            )

    def start_indices(self, step: int, batch_size: int) -> NDArray[np.int64]:
        """Return the positions [B] of the first token of each sequence of a step."""
        numbers = np.arange(step * batch_size, (step + 1) * batch_size, dtype=np.uint64)
        return (splitmix64(self.seed, numbers, 0) % np.uint64(self.num_starts)).astype(np.int64)


def splitmix64(seed: int, values: NDArray[np.uint64], salt: int) -> NDArray[np.uint64]:
    """Hash each value to 32 bits with SplitMix64's finalizer (Steele et al., "Fast Splittable PRNGs", 2014).

    Args:
        seed: key of the hash.
        values: the numbers to hash, of any shape.
        salt: selects one of several independent hashes of the same key.
    """
    key = np.uint64((seed * 0x9E3779B97F4A7C15 + salt * 0xD1B54A32D192ED03) & 0xFFFFFFFFFFFFFFFF)
    z = values * np.uint64(0x9E3779B97F4A7C15) + key
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z ^ (z >> np.uint64(31))) & MASK32
