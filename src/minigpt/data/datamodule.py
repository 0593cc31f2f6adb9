"""The LightningDataModule: blocks of a text, streamed by step.

Shapes: B sequences per optimizer step over all devices, T block_size.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor

from minigpt.data.blocks import ShuffledBlocks
from minigpt.data.corpus import Corpus, find_text, open_corpus
from minigpt.data.pocket import write_play
from minigpt.data.tokenizer import CharTokenizer, Tokenizer

IGNORED = -100  # a target that counts for nothing: torch's default `ignore_index`


class TextDataModule(lightning.LightningDataModule):
    """Batches of a plain UTF-8 text: (inputs, targets), each [rows, T] of token ids.

    `notice` is what a user must know of the text when reading its losses; None for an ordinary one.

    Args:
        path: the text's file; see `minigpt.data.corpus.find_text` for where it is looked for.
        data_dir: where texts and token caches are kept.
        block_size: T, tokens of a row.
        batch_size: B, rows per optimizer step over all devices and accumulated micro-batches.
        blocks: constructor of the order of rows, `ShuffledBlocks` or `RandomBlocks`.
        tokenizer: constructor of what makes tokens of the text; the subword ones are trained on its training part.
        augmentation: constructor of what changes the rows that are trained on, such as `Renaming`; None for nothing.
        seed: names the order.
        sequence_warmup: pairs [length, step]: until that step rows are cut into pieces of that length, so that a step
            has as many tokens in more and shorter rows (arXiv 2108.06084). They cost less attention, and what lies
            near is learnt first.
        val_fraction: the last part of the characters, held out.
        development: hold out as long a part of the training split's end instead, and leave the last part unseen: for
            tuning.
        url, sha256: where to download a missing text, and what it must be.
        val_tokens_per_batch: size of a validation batch over all devices; it changes speed alone.
    """

    notice: str | None = None

    def __init__(
        self,
        *,
        path: str,
        data_dir: str,
        block_size: int,
        batch_size: int,
        seed: int,
        blocks: Callable[..., Any] = ShuffledBlocks,
        tokenizer: Callable[..., Tokenizer] = CharTokenizer,
        augmentation: Callable[..., Any] | None = None,
        sequence_warmup: list[list[int]] | None = None,
        val_fraction: float = 0.1,
        development: bool = False,
        url: str | None = None,
        sha256: str | None = None,
        val_tokens_per_batch: int = 16_384,
    ) -> None:
        super().__init__()
        self.path = path
        self.data_dir = Path(data_dir)
        self.block_size = block_size
        self.batch_size = batch_size
        self.seed = seed
        self.blocks = blocks
        self.tokenizer = tokenizer
        self.augmentation = augmentation
        self.sequence_warmup = check_warmup(sequence_warmup or [], block_size)
        self.val_fraction = val_fraction
        self.development = development
        if development:
            self.notice = "This run is validated on a part of the training split, for tuning: no figure to compare."
        self.url = url
        self.sha256 = sha256
        self.val_batch_size = max(1, val_tokens_per_batch // block_size)
        self._corpus: Corpus | None = None
        self._augmentation: Any = None

    def find_text(self) -> Path:
        """The text's file, fetched or made when it is missing."""
        return find_text(self.path, str(self.data_dir), self.url, self.sha256)

    @property
    def corpus(self) -> Corpus:
        """The text's tokens; found, checked and encoded at the first use.

        Raises:
            ValueError: the text is missing, empty, not UTF-8, shorter than two blocks, or has not what the tokenizer or
                the augmentation needs.
        """
        if self._corpus is None:
            cache = self.data_dir / "cache"
            corpus = open_corpus(self.find_text(), cache, self.val_fraction, self.tokenizer())
            self.blocks(num_tokens=len(corpus.train), block_size=self.block_size, seed=self.seed)
            if len(corpus.val) < 2:
                raise ValueError(f"the validation part has {len(corpus.val)} tokens: the text is too short")
            if self.development:
                cut = len(corpus.train) - len(corpus.val)
                corpus = replace(corpus, train=corpus.train[:cut], val=corpus.train[cut:])
            if self.augmentation is not None:
                self._augmentation = self.augmentation(tokens=corpus.train, tokenizer=corpus.tokenizer, seed=self.seed)
            self._corpus = corpus
        return self._corpus

    @property
    def tokens_per_epoch(self) -> int:
        """The tokens of as many rows as go once through the training part."""
        return len(self.corpus.train)

    def train_dataloader(self) -> "TrainStream":
        trainer = self.trainer
        assert trainer is not None and trainer.max_steps > 0
        return self.train_stream(
            batch_size=self.batch_size,
            micro_batches=trainer.accumulate_grad_batches,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            first_step=trainer.global_step,
            last_step=trainer.max_steps,
            sequence_warmup=self.sequence_warmup,
            pin=trainer.strategy.root_device.type == "cuda",
        )

    def val_dataloader(self) -> "ValidationStream":
        assert self.trainer is not None
        return self.val_stream(rank=self.trainer.global_rank, world_size=self.trainer.world_size)

    def train_stream(self, **place: Any) -> "TrainStream":
        """The micro-batches of one place in a run, see `TrainStream`."""
        train = self.corpus.train  # which makes the augmentation too
        blocks = self.blocks(num_tokens=len(train), block_size=self.block_size, seed=self.seed)
        return TrainStream(train, blocks, augmentation=self._augmentation, **place)

    def val_stream(self, **place: Any) -> "ValidationStream":
        """The validation batches of one device, see `ValidationStream`."""
        return ValidationStream(self.corpus.val, block_size=self.block_size, batch_size=self.val_batch_size, **place)


class PocketDataModule(TextDataModule):
    """A generated play (`minigpt.data.pocket`): for work without a network, and for tests."""

    notice = "This run is on a generated text, not on Tiny Shakespeare: its losses compare with no published figure."

    def __init__(self, *, num_chars: int, text_seed: int, **options: Any) -> None:
        super().__init__(path=f"pocket/{num_chars}-{text_seed}.txt", **options)
        self.num_chars = num_chars
        self.text_seed = text_seed

    def find_text(self) -> Path:
        return write_play(self.data_dir / self.path, self.num_chars, self.text_seed)


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
