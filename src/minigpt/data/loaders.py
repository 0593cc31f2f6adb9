"""Iterables over the batches of a text: by step for training, in order for validation.

Shapes: B sequences per optimizer step over all devices, T block_size.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any, NotRequired, Protocol, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minigpt.data.samplers import Sampler

IGNORE_INDEX = -100  # a target that is not counted: the default `ignore_index` of torch's cross_entropy

Inputs = Tensor | tuple[Tensor, Tensor]  # token ids [N, T]; for an encoder-decoder, those of source and target
Batch = tuple[Inputs, Tensor]  # inputs of a model, and targets [N, T]


class Augmentation(Protocol):
    """Changes training sequences, such as `minigpt.data.renaming.EntityRenaming`."""

    def sequences(self, start_indices: NDArray[np.int64], length: int) -> np.ndarray:
        """Return the token ids [N, length] of the sequences that start at `start_indices` [N]."""
        ...


class TrainLoaderOptions(TypedDict):
    """The arguments of a `TrainLoader` that depend on the run and the device, not on the text."""

    batch_size: int
    micro_batches: int
    rank: int
    world_size: int
    first_step: int
    last_step: int
    seq_len_warmup: NotRequired[Sequence[tuple[int, int]]]
    pin: NotRequired[bool]


class ValLoaderOptions(TypedDict, total=False):
    """The arguments of a `ValLoader` that depend on the device."""

    rank: int
    world_size: int


class TrainLoader:
    """The micro-batches of one device, from `first_step` on.

    Each step has the `batch_size` sequences that the sampler gives for it, divided among devices and micro-batches.

    Args:
        tokens: the training split [number of tokens].
        sampler: chooses the sequences of a step.
        batch_size: B, sequences per step over all devices and micro-batches.
        micro_batches: batches per device and step.
        rank, world_size: the number of this device, and the number of all devices.
        first_step, last_step: the steps [first_step, last_step) of the run.
        seq_len_warmup: pairs (length, step): before that step, sequences are split into pieces of that length.
        augmentation: changes the sequences; None for none.
        pin: pin the batches, so that their copy to a CUDA device overlaps with the step before.

    Attributes:
        wait_s: seconds that the training has waited for batches.

    Raises:
        ValueError: the sequences of a step cannot be divided evenly.
    """

    # More than 10 arguments: a batch depends on the text and its order, the device and the step, each given as it is.
    def __init__(
        self,
        tokens: np.ndarray,
        sampler: Sampler,
        *,
        batch_size: int,
        micro_batches: int,
        rank: int,
        world_size: int,
        first_step: int,
        last_step: int,
        seq_len_warmup: Sequence[tuple[int, int]] = (),
        augmentation: Augmentation | None = None,
        pin: bool = False,
    ) -> None:
        check_divisible(batch_size, world_size, micro_batches)
        self.tokens = tokens
        self.sampler = sampler
        self.batch_size = batch_size
        self.local_batch_size = batch_size // (micro_batches * world_size)
        self.micro_batches = micro_batches
        self.rank = rank
        self.world_size = world_size
        self.first_step = first_step
        self.last_step = last_step
        self.seq_len_warmup = seq_len_warmup
        self.augmentation = augmentation
        self.pin = pin
        self.wait_s = 0.0
        self.offsets = np.arange(sampler.block_size + 1)

    def __len__(self) -> int:
        """Number of micro-batches of the whole run: Lightning counts on from those that a resumed run has done."""
        return self.last_step * self.micro_batches

    def state_dict(self) -> dict[str, Any]:
        """Return nothing, since the step determines the position. Its presence tells Lightning that it can resume."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do nothing; see `state_dict`."""

    def __iter__(self) -> Iterator[Batch]:
        batches = self.batches()
        while True:
            begun = time.perf_counter()
            batch = next(batches, None)
            self.wait_s += time.perf_counter() - begun
            if batch is None:
                return
            yield batch

    def batches(self) -> Iterator[Batch]:
        """Make the micro-batches of each step."""
        for step in range(self.first_step, self.last_step):
            start_indices = self.sampler.start_indices(step, self.batch_size)
            length = next((short for short, end in self.seq_len_warmup if step < end), self.sampler.block_size)
            for micro_batch in range(self.micro_batches):
                first = (micro_batch * self.world_size + self.rank) * self.local_batch_size
                yield self.collate(start_indices[first : first + self.local_batch_size], length)

    def collate(self, start_indices: NDArray[np.int64], length: int) -> Batch:
        """Return inputs and targets [N * T / length, length] of the sequences that start at `start_indices` [N]."""
        if self.augmentation is None:
            sequences = self.tokens[start_indices[:, None] + self.offsets]
        else:
            sequences = self.augmentation.sequences(start_indices, len(self.offsets))
        # Each of the two must be contiguous: torch copies other tensors through memory that is not pinned.
        pair = np.stack((sequences[:, :-1], sequences[:, 1:])).astype(np.int64)
        batch = torch.from_numpy(pair).view(2, -1, length)
        inputs, targets = batch.pin_memory() if self.pin else batch
        return inputs, targets


class ValLoader:
    """The batches of one device over a whole split in consecutive sequences, with each token predicted once.

    The last sequence and the last batch are filled up with targets of `IGNORE_INDEX`, so that all devices have the same
    number of batches of the same shape and the mean is exact.

    Args:
        tokens: the validation split [number of tokens].
        block_size: T, tokens of a sequence.
        batch_size: sequences of a batch over all devices.
        rank, world_size: the number of this device, and the number of all devices.
    """

    def __init__(
        self, tokens: np.ndarray, *, block_size: int, batch_size: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.tokens = tokens
        self.block_size = block_size
        self.num_sequences = self.count_sequences()
        self.local_batch_size = min(-(-batch_size // world_size), -(-self.num_sequences // world_size))
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        return -(-self.num_sequences // (self.local_batch_size * self.world_size))

    def __iter__(self) -> Iterator[Batch]:
        for batch in range(len(self)):
            yield self.collate((batch * self.world_size + self.rank) * self.local_batch_size)

    def count_sequences(self) -> int:
        """Return the number of sequences of the split, the last of which may be shorter."""
        return -(-(len(self.tokens) - 1) // self.block_size)

    def collate(self, first: int) -> Batch:
        """Return inputs and targets [local_batch_size, T] of the sequences from number `first` on."""
        start, size = first * self.block_size, self.local_batch_size * self.block_size
        tokens = self.tokens[start : start + size + 1].astype(np.int64)
        inputs = np.zeros(size, dtype=np.int64)
        targets = np.full(size, IGNORE_INDEX, dtype=np.int64)
        known = max(len(tokens) - 1, 0)
        inputs[:known], targets[:known] = tokens[:-1], tokens[1:]
        shape = (self.local_batch_size, self.block_size)
        return torch.from_numpy(inputs).view(shape), torch.from_numpy(targets).view(shape)


def check_divisible(batch_size: int, world_size: int, accumulate_grad_batches: int) -> None:
    """Raise ValueError if the sequences of a step cannot be divided evenly among devices and micro-batches."""
    if batch_size % (world_size * accumulate_grad_batches):
        raise ValueError(
            f"data.batch_size={batch_size} must divide by trainer.devices x trainer.accumulate_grad_batches = "
            f"{world_size} x {accumulate_grad_batches}"
        )


def check_warmup(pairs: Sequence[Sequence[int]], block_size: int) -> list[tuple[int, int]]:
    """Return the pairs (length, step) of a sequence-length warm-up.

    Raises:
        ValueError: a length does not divide `block_size`, or the steps do not increase.
    """
    valid = all(
        isinstance(pair, list) and [*map(type, pair)] == [int, int] and pair[0] > 0 and block_size % pair[0] == 0
        for pair in pairs
    )
    steps = [step for _, step in pairs] if valid else []
    if not valid or sorted(set(steps)) != steps:
        raise ValueError(
            f"data.seq_len_warmup={pairs} must be pairs [length, until step], each length a divisor of "
            f"data.block_size={block_size}, the steps increasing"
        )
    return [(length, step) for length, step in pairs]
