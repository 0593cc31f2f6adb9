"""The LightningDataModule: a text, the order of its blocks, and what streams them.

Shapes: B sequences per optimizer step over all devices, T block_size.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning

from minigpt.data.blocks import ShuffledBlocks
from minigpt.data.corpus import Corpus, find_text, open_corpus
from minigpt.data.pocket import write_play
from minigpt.data.streams import TrainStream, ValidationStream, check_warmup
from minigpt.data.tokenizer import CharTokenizer, Tokenizer


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

    def train_dataloader(self) -> TrainStream:
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

    def val_dataloader(self) -> ValidationStream:
        assert self.trainer is not None
        return self.val_stream(rank=self.trainer.global_rank, world_size=self.trainer.world_size)

    def train_stream(self, **place: Any) -> TrainStream:
        """The micro-batches of one place in a run, see `TrainStream`."""
        train = self.corpus.train  # which makes the augmentation too
        blocks = self.blocks(num_tokens=len(train), block_size=self.block_size, seed=self.seed)
        return TrainStream(train, blocks, augmentation=self._augmentation, **place)

    def val_stream(self, **place: Any) -> ValidationStream:
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
