"""The lines of a text as a sequence-to-sequence task: a corrupted line is the source, the original line the target.

Shapes: N lines, B lines of a batch, S and T the lengths of its longest source and target, at most block_size.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minigpt.data.corpus import Corpus
from minigpt.data.datamodule import SyntheticDataModule, TextDataModule
from minigpt.data.loaders import IGNORE_INDEX, TrainLoader, TrainLoaderOptions, ValLoader, ValLoaderOptions
from minigpt.data.samplers import Sampler
from minigpt.data.text_files import iter_text
from minigpt.data.tokenizer import CharTokenizer, LineTokenizer

PairBatch = tuple[tuple[Tensor, Tensor], Tensor]


class DenoisingDataModule(TextDataModule):
    """Batches of corrupted lines and their originals, see `make_batch`. `block_size` must hold a line and its end.

    Lines differ in length, and the loss of each device is the mean over its own targets: a step on several devices is
    close to, but not equal to, the same step on one.

    Args:
        drop_chars: characters that are removed from a corrupted line.
        lowercase: whether a corrupted line is converted to lower case.
        options: see `TextDataModule`; `sampler` orders the lines.

    Attributes:
        train_pairs, val_pairs: token ids [N, 2, block_size] of the two splits, see `LineTokenizer.encode_pairs`; set
            once `corpus` has been loaded.

    Raises:
        ValueError: an option does not apply to lines.
    """

    seq2seq = True
    warning = "This run denoises lines: its losses do not compare with those of a model that continues a text."
    train_pairs: np.ndarray
    val_pairs: np.ndarray

    def __init__(self, *, drop_chars: str, lowercase: bool = False, **options: Any) -> None:
        super().__init__(**options)
        unsupported = self.seq_len_warmup or self.dev_split or self.augmentation
        if unsupported or not isinstance(self.tokenizer(), CharTokenizer):
            raise ValueError("data=denoising takes no seq_len_warmup, dev_split, augmentation or tokenizer")
        self.drop_chars = drop_chars
        self.lowercase = lowercase

    def load_corpus(self, path: Path) -> Corpus:
        """Load the tokens of the text, then its lines and their tokenizer.

        Raises:
            ValueError: see `TextDataModule.corpus`; or a split of the text has no whole line.
        """
        corpus = super().load_corpus(path)
        tokenizer = LineTokenizer(corpus.tokenizer.characters or "", self.drop_chars, self.lowercase)
        train, val = read_lines(path, self.val_fraction, self.block_size)
        if not train or not val:
            raise ValueError(f"{self.path} has {len(train)} lines to train on and {len(val)} to validate on: too few")
        self.train_pairs = tokenizer.encode_pairs(train, self.block_size)
        self.val_pairs = tokenizer.encode_pairs(val, self.block_size)
        return replace(corpus, tokenizer=tokenizer)

    @property
    def line_tokenizer(self) -> LineTokenizer:
        """The tokenizer of the lines; loads the corpus at the first use."""
        tokenizer = self.corpus.tokenizer
        assert isinstance(tokenizer, LineTokenizer)
        return tokenizer

    @property
    def example_prompt(self) -> str:
        """The first training line, corrupted."""
        return self.line_tokenizer.decode(self.train_pairs[0, 0].tolist())

    @property
    def tokens_per_epoch(self) -> int:
        """Number of tokens of the training lines, each padded to `block_size`."""
        return len(self.train_pairs) * self.block_size

    def train_loader(self, **options: Unpack[TrainLoaderOptions]) -> "PairTrainLoader":
        tokenizer = self.line_tokenizer
        sampler = self.make_sampler(len(self.train_pairs) + 1, 1)  # blocks of one token, each of which is a line
        return PairTrainLoader(self.train_pairs, tokenizer, sampler, **options)

    def val_loader(self, **options: Unpack[ValLoaderOptions]) -> "PairValLoader":
        tokenizer = self.line_tokenizer
        return PairValLoader(self.val_pairs, tokenizer, batch_size=self.val_batch_size, **options)


class SyntheticDenoisingDataModule(DenoisingDataModule, SyntheticDataModule):
    """Batches of corrupted lines of a synthetic play; for options see its two base classes."""

    warning = SyntheticDataModule.warning


class PairTrainLoader(TrainLoader):
    """A `TrainLoader` of pairs of lines [N, 2, block_size] instead of tokens."""

    def __init__(
        self, pairs: np.ndarray, tokenizer: LineTokenizer, sampler: Sampler, **options: Unpack[TrainLoaderOptions]
    ) -> None:
        super().__init__(pairs, sampler, **options)
        self.tokenizer = tokenizer

    def collate(self, start_indices: NDArray[np.int64], length: int) -> PairBatch:
        """Return the batch of the lines with these numbers; `length` is unused, since lines differ in length."""
        return make_batch(self.tokens[start_indices], self.tokenizer, self.pin)


class PairValLoader(ValLoader):
    """A `ValLoader` of pairs of lines [N, 2, block_size]; the last batch is filled up with lines without targets."""

    def __init__(
        self, pairs: np.ndarray, tokenizer: LineTokenizer, *, batch_size: int, **options: Unpack[ValLoaderOptions]
    ) -> None:
        super().__init__(pairs, block_size=pairs.shape[2], batch_size=batch_size, **options)
        self.tokenizer = tokenizer

    def count_sequences(self) -> int:
        return len(self.tokens)

    def collate(self, first: int) -> PairBatch:
        pairs = self.tokens[first : first + self.local_batch_size]
        fill = self.tokenizer.encode_pairs([""] * (self.local_batch_size - len(pairs)), self.block_size)
        inputs, targets = make_batch(np.concatenate((pairs, fill)), self.tokenizer)
        targets[len(pairs) :] = IGNORE_INDEX
        return inputs, targets


def read_lines(path: Path, val_fraction: float, block_size: int) -> tuple[list[str], list[str]]:
    """Return the training and the validation lines of a text. A line across the split belongs to neither.

    Blank lines are left out. A line of `block_size` or more characters is cut into several.
    """
    text = "".join(iter_text(path))
    cut = len(text) - math.ceil(len(text) * val_fraction)
    train, val = text[:cut].rpartition("\n")[0], text[cut:].partition("\n")[2] if cut else text
    return split_lines(train, block_size - 1), split_lines(val, block_size - 1)


def split_lines(text: str, max_length: int) -> list[str]:
    """Return the non-blank lines of a text, in pieces of at most `max_length` characters."""
    lines = text.split("\n")
    starts = range(0, max(map(len, lines)), max_length)
    return [piece for line in lines for start in starts if (piece := line[start : start + max_length]).strip()]


def make_batch(pairs: np.ndarray, tokenizer: LineTokenizer, pin: bool = False) -> PairBatch:
    """Return the inputs and targets of an encoder-decoder.

    Args:
        pairs: token ids [B, 2, block_size] of `LineTokenizer.encode_pairs`.
        tokenizer: the tokenizer of the lines.
        pin: pin the tensors for a copy to a CUDA device.

    Returns:
        The inputs: sources [B, S], and targets shifted right by one [B, T]. The targets [B, T], with `IGNORE_INDEX` for
        padding.
    """
    source, target = (
        side[:, (side != tokenizer.pad_id).any(axis=0)].astype(np.int64) for side in (pairs[:, 0], pairs[:, 1])
    )
    shifted = np.concatenate((np.full_like(target[:, :1], tokenizer.bos_id), target[:, :-1]), axis=1)
    target[target == tokenizer.pad_id] = IGNORE_INDEX
    tensors = [torch.from_numpy(np.ascontiguousarray(ids)) for ids in (source, shifted, target)]
    sources, inputs, targets = [ids.pin_memory() for ids in tensors] if pin else tensors
    return (sources, inputs), targets
