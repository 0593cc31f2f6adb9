"""The batches of a text: for training by step, for validation in order.

Shapes: B sequences per optimizer step over all devices, T block_size.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

IGNORED = -100  # a target that counts for nothing: torch's default `ignore_index`


class TrainStream:
    """This device's micro-batches from `first_step` on: its share of the rows that (seed, step) names.

    One gather makes a batch. On CUDA it is pinned, so that the copy to the device overlaps with the step before.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        blocks: Any,
        *,
        batch_size: int,
        micro_batches: int,
        rank: int,
        world_size: int,
        first_step: int,
        last_step: int,
        sequence_warmup: Sequence[tuple[int, int]] = (),
        augmentation: Any = None,
        pin: bool = False,
    ) -> None:
        if batch_size % (micro_batches * world_size):
            raise ValueError(
                f"data.batch_size {batch_size} must divide by devices x accumulated batches, "
                f"{world_size} x {micro_batches}"
            )
        self.tokens = tokens
        self.blocks = blocks
        self.batch_size = batch_size
        self.micro_batches = micro_batches
        self.rank = rank
        self.world_size = world_size
        self.first_step = first_step
        self.last_step = last_step
        self.sequence_warmup = sequence_warmup
        self.augmentation = augmentation
        self.pin = pin
        self.row = np.arange(blocks.block_size + 1)

    def __len__(self) -> int:
        """The whole run's micro-batches: Lightning counts on from those that a resumed run has done."""
        return self.last_step * self.micro_batches

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the step alone says where the stream stands. Having this tells Lightning that it can resume."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing; see `state_dict`."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        share = self.batch_size // (self.micro_batches * self.world_size)
        for step in range(self.first_step, self.last_step):
            starts = self.blocks.starts(step, self.batch_size)
            length = next((short for short, end in self.sequence_warmup if step < end), self.blocks.block_size)
            for micro in range(self.micro_batches):
                first = (micro * self.world_size + self.rank) * share
                yield self.gather(starts[first : first + share], length)

    def gather(self, starts: np.ndarray, length: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets [rows * T / length, length] of the rows that begin at `starts`."""
        if self.augmentation is None:
            rows = self.tokens[starts[:, None] + self.row]
        else:
            rows = self.augmentation.rows(starts, len(self.row))
        # Each of the two in one piece: torch copies anything else by way of memory that is not pinned.
        batch = torch.from_numpy(np.stack((rows[:, :-1], rows[:, 1:])).astype(np.int64)).view(2, -1, length)
        inputs, targets = batch.pin_memory() if self.pin else batch
        return inputs, targets


class ValidationStream:
    """The whole split in non-overlapping rows, every token predicted once; this device's share of each batch.

    What fills up the last row and the last batch carries `IGNORED` targets, so that all devices have the same number
    of batches of one shape and the mean is still exact.
    """

    def __init__(
        self, tokens: np.ndarray, *, block_size: int, batch_size: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.tokens = tokens
        self.block_size = block_size
        self.num_rows = self.count_rows()
        self.share = min(-(-batch_size // world_size), -(-self.num_rows // world_size))
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        return -(-self.num_rows // (self.share * self.world_size))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in range(len(self)):
            yield self.gather((batch * self.world_size + self.rank) * self.share)

    def count_rows(self) -> int:
        """How many rows hold the split."""
        return -(-(len(self.tokens) - 1) // self.block_size)

    def gather(self, row: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of `share` rows from this one on."""
        first, count = row * self.block_size, self.share * self.block_size
        piece = self.tokens[first : first + count + 1].astype(np.int64)
        inputs = np.zeros(count, dtype=np.int64)
        targets = np.full(count, IGNORED, dtype=np.int64)
        known = max(len(piece) - 1, 0)
        inputs[:known], targets[:known] = piece[:-1], piece[1:]
        shape = (self.share, self.block_size)
        return torch.from_numpy(inputs).view(shape), torch.from_numpy(targets).view(shape)


def check_warmup(pairs: Sequence[Sequence[int]], block_size: int) -> list[tuple[int, int]]:
    """The pairs of (length, step) of a sequence warm-up.

    Raises:
        ValueError: a length does not divide the block, or the steps do not rise.
    """
    sound = all(
        isinstance(pair, list) and [*map(type, pair)] == [int, int] and pair[0] > 0 and block_size % pair[0] == 0
        for pair in pairs
    )
    ends = [end for _, end in pairs] if sound else []
    if not sound or sorted(set(ends)) != ends:
        raise ValueError(
            f"data.sequence_warmup={pairs} must be pairs [length, until step], each length a divisor of "
            f"data.block_size={block_size}, the steps rising"
        )
    return [(length, end) for length, end in pairs]
