"""Lines of a text as a sequence-to-sequence task: a damaged line, and the same as it was.

Shapes: N lines, B rows of a batch, S and T their longest source and target; at most block_size.
"""

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minigpt.data.corpus import Corpus, read_text, round_up
from minigpt.data.datamodule import PocketDataModule, TextDataModule
from minigpt.data.streams import IGNORED, TrainStream, ValidationStream
from minigpt.data.tokenizer import CharTokenizer, LineTokenizer

Batch = tuple[tuple[Tensor, Tensor], Tensor]


class RestoreDataModule(TextDataModule):
    """Batches of lines to restore, see `make_batch`; `block_size` is the room for a line and its end.

    Rows differ in length, and each device's loss is the mean over its own targets: on several devices a step is nearly
    the one of a single device.

    Args:
        drop: characters that a damaged line has lost.
        fold_case: whether a damaged line is in lower case.
        options: as of a `TextDataModule`; `blocks` orders the lines.
    """

    notice = "This run restores lines: its losses compare with none of a model that continues a text."

    def __init__(self, *, drop: str, fold_case: bool = False, **options: Any) -> None:
        super().__init__(**options)
        refused = self.sequence_warmup or self.development or self.augmentation
        if refused or not isinstance(self.tokenizer(), CharTokenizer):
            raise ValueError("lines to restore take no sequence_warmup, development, augmentation or tokenizer")
        self.drop = drop
        self.fold_case = fold_case

    @cached_property
    def corpus(self) -> Corpus:
        """The text's tokens, with the tokenizer of its lines, which are read here too.

        Raises:
            ValueError: as of a `TextDataModule`, or a part of the text has no whole line.
        """
        corpus = super().corpus
        tokenizer = LineTokenizer(corpus.tokenizer.characters, self.drop, self.fold_case)
        train, val = read_lines(self.find_text(), self.val_fraction, self.block_size)
        if not train or not val:
            raise ValueError(f"{self.path} has {len(train)} lines to train on and {len(val)} to validate on: too few")
        self.train_pairs, self.val_pairs = (tokenizer.encode_pairs(lines, self.block_size) for lines in (train, val))
        return replace(corpus, tokenizer=tokenizer)

    @property
    def tokens_per_epoch(self) -> int:
        """Of all lines, filled up to `block_size`, as tokens are counted."""
        return len(self.train_pairs) * self.block_size

    def train_stream(self, **place: Any) -> "PairStream":
        tokenizer = self.corpus.tokenizer
        # Blocks of one token, each of which is a line.
        blocks = self.blocks(num_tokens=len(self.train_pairs) + 1, block_size=1, seed=self.seed)
        return PairStream(self.train_pairs, tokenizer, blocks, **place)

    def val_stream(self, **place: Any) -> "PairValidationStream":
        tokenizer = self.corpus.tokenizer
        return PairValidationStream(self.val_pairs, tokenizer, batch_size=self.val_batch_size, **place)


class PocketRestoreDataModule(RestoreDataModule, PocketDataModule):
    """Lines of a generated play to restore."""

    notice = PocketDataModule.notice


class PairStream(TrainStream):
    """A `TrainStream` whose rows are pairs of lines."""

    def __init__(self, pairs: np.ndarray, tokenizer: LineTokenizer, blocks: Any, **place: Any) -> None:
        super().__init__(pairs, blocks, **place)
        self.tokenizer = tokenizer

    def gather(self, starts: np.ndarray, length: int) -> Batch:
        """The lines of these numbers; they have lengths of their own."""
        return make_batch(self.tokens[starts], self.tokenizer, self.pin)


class PairValidationStream(ValidationStream):
    """All pairs, each once; what fills up the last batch is empty lines whose targets do not count."""

    def __init__(self, pairs: np.ndarray, tokenizer: LineTokenizer, **place: Any) -> None:
        super().__init__(pairs, block_size=pairs.shape[2], **place)
        self.tokenizer = tokenizer

    def count_rows(self) -> int:
        return len(self.tokens)

    def gather(self, row: int) -> Batch:
        pairs = self.tokens[row : row + self.share]
        fill = self.tokenizer.encode_pairs([""] * (self.share - len(pairs)), self.block_size)
        (source, target), targets = make_batch(np.concatenate((pairs, fill)), self.tokenizer)
        targets[len(pairs) :] = IGNORED
        return (source, target), targets


def read_lines(path: Path, val_fraction: float, block_size: int) -> tuple[list[str], list[str]]:
    """The lines of a text to train on, and those held out; the one that the cut goes through is neither.

    Blank lines are left out; of one with `block_size` characters or more each piece is a line.
    """
    text = "".join(read_text(path))
    cut = len(text) - round_up(len(text) * val_fraction)
    train, val = text[:cut].rpartition("\n")[0], text[cut:].partition("\n")[2] if cut else text
    return split_lines(train, block_size - 1), split_lines(val, block_size - 1)


def split_lines(text: str, longest: int) -> list[str]:
    """The lines of a text that are not blank, in pieces of at most `longest` characters."""
    starts = range(0, max(map(len, lines := text.split("\n"))), longest)
    return [piece for line in lines for start in starts if (piece := line[start : start + longest]).strip()]


def make_batch(pairs: np.ndarray, tokenizer: LineTokenizer, pin: bool = False) -> Batch:
    """What an encoder-decoder reads and should write, for pairs [B, 2, block_size] of `LineTokenizer.encode_pairs`.

    Returns:
        The sources [B, S] and what comes before each target [B, T]; the targets [B, T], `IGNORED` for padding.
    """
    sides = (side[:, (side != tokenizer.padding).any(axis=0)].astype(np.int64) for side in (pairs[:, 0], pairs[:, 1]))
    source, target = sides
    before = np.concatenate((np.full_like(target[:, :1], tokenizer.begin), target[:, :-1]), axis=1)
    target[target == tokenizer.padding] = IGNORED
    tensors = (torch.from_numpy(np.ascontiguousarray(ids)) for ids in (source, before, target))
    source, before, target = (ids.pin_memory() if pin else ids for ids in tensors)
    return (source, before), target
