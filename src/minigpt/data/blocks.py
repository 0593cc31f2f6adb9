"""Which tokens make the batch of a step: a pure function of (seed, step), the same on one device and on eight.

Nothing is kept between steps, so resuming needs only the step. Shapes: B batch, T block_size.
"""

import numpy as np

MASK32 = np.uint64(0xFFFFFFFF)


class ShuffledBlocks:
    """Each epoch covers the text once, in blocks in a shuffled order, cut at an offset of the epoch's own.

    The order is a keyed permutation that is computed for the rows asked for alone, so a text of any size costs no
    memory: a Feistel network over [0, a) x [0, b) with a * b just above the number of blocks, walked until it falls
    inside (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002).

    Args:
        num_tokens: length of the text, in tokens.
        block_size: T, tokens of a row.
        seed: names the order.
    """

    ROUNDS = 6

    def __init__(self, *, num_tokens: int, block_size: int, seed: int) -> None:
        self.block_size = block_size
        self.seed = seed
        # Each row needs T + 1 tokens, and any offset in [0, T) must leave as many blocks.
        self.num_blocks = (num_tokens - block_size) // block_size
        if self.num_blocks < 1:
            raise ValueError(
                f"the text's training part has {num_tokens:,} tokens: too short for block_size {block_size}, "
                f"which needs {2 * block_size:,}"
            )
        self.left = int(np.ceil(np.sqrt(self.num_blocks)))
        self.right = -(-self.num_blocks // self.left)

    def starts(self, step: int, batch_size: int) -> np.ndarray:
        """Where the rows of a step begin in the text: [B] positions of the first token."""
        rows = np.arange(step * batch_size, (step + 1) * batch_size, dtype=np.uint64)
        epochs, indices = np.divmod(rows, np.uint64(self.num_blocks))
        offsets = mix(self.seed, epochs, 0) % np.uint64(self.block_size)
        return (self.permute(indices, epochs) * np.uint64(self.block_size) + offsets).astype(np.int64)

    def permute(self, indices: np.ndarray, epochs: np.ndarray) -> np.ndarray:
        """Where each index in [0, num_blocks) stands in its epoch's order."""
        a, b = np.uint64(self.left), np.uint64(self.right)
        out = indices
        todo = np.ones(len(indices), dtype=bool)
        while todo.any():
            x, y = np.divmod(out[todo], b)
            key = epochs[todo]
            for r in range(1, self.ROUNDS + 1, 2):
                x = (x + mix(self.seed, key, r) + mix(self.seed, y, r)) % a
                y = (y + mix(self.seed, key, r + 1) + mix(self.seed, x, r + 1)) % b
            out = out.copy()
            out[todo] = x * b + y
            todo = out >= np.uint64(self.num_blocks)
        return out


class RandomBlocks:
    """Every row starts anywhere, drawn anew each step: what nanoGPT does."""

    def __init__(self, *, num_tokens: int, block_size: int, seed: int) -> None:
        self.block_size = block_size
        self.seed = seed
        self.num_starts = num_tokens - block_size
        if self.num_starts < 1:
            raise ValueError(
                f"the text's training part has {num_tokens:,} tokens: too short for block_size {block_size}"
            )

    def starts(self, step: int, batch_size: int) -> np.ndarray:
        """Where the rows of a step begin in the text: [B] positions of the first token."""
        rows = np.arange(step * batch_size, (step + 1) * batch_size, dtype=np.uint64)
        return (mix(self.seed, rows, 0) % np.uint64(self.num_starts)).astype(np.int64)


def mix(seed: int, values: np.ndarray, salt: int) -> np.ndarray:
    """32 well-stirred bits of each value: SplitMix64's finaliser (Steele et al., "Fast Splittable PRNGs", 2014)."""
    key = np.uint64((seed * 0x9E3779B97F4A7C15 + salt * 0xD1B54A32D192ED03) & 0xFFFFFFFFFFFFFFFF)
    z = values * np.uint64(0x9E3779B97F4A7C15) + key
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z ^ (z >> np.uint64(31))) & MASK32
