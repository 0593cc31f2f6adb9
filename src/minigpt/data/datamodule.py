"""LightningDataModules: a text and its sampler, as batches for training and validation.

Shapes: B sequences per optimizer step over all devices, T block_size.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Unpack

import lightning
from annotated_types import Ge, Le

from minigpt.bounds import PositiveInt, Seed, ValFraction
from minigpt.data.corpus import Corpus, load_or_tokenize
from minigpt.data.loaders import (
    Augmentation,
    TrainLoader,
    TrainLoaderOptions,
    ValLoader,
    ValLoaderOptions,
    check_divisible,
    check_warmup,
)
from minigpt.data.samplers import Sampler, ShuffledSampler
from minigpt.data.synthetic import write_play
from minigpt.data.text_files import downloaded_path, iter_text, locate, locate_or_download
from minigpt.data.tokenizer import CharTokenizer, Tokenizer

LONG_TEXT_BYTES = 1 << 26  # a longer text is read only once, to be tokenized
MAX_TOKENS_PER_STEP = 1 << 28  # 16 times the largest batches that have been published


class TextDataModule(lightning.LightningDataModule):
    """Batches (inputs, targets) of a plain UTF-8 text, each [N, T] of token ids.

    Args:
        path: the text's file, see `minigpt.data.text_files.locate` for where it is looked for; None for that of `url`.
        data_dir: directory of texts and token caches.
        block_size: T, tokens of a sequence.
        batch_size: B, sequences per optimizer step over all devices and accumulated micro-batches.
        seed: seed of the order of the sequences.
        sampler: constructor of the sampler, `ShuffledSampler` or `RandomSampler`.
        tokenizer: constructor of the tokenizer; subword tokenizers are trained on the training split.
        pretrained: a trained tokenizer to use instead, that of the model of `init_from`.
        augmentation: constructor of an augmentation of training sequences, such as `EntityRenaming`; None for none.
        seq_len_warmup: pairs [length, step]: before that step, sequences are split into pieces of that length, so that
            a step has the same number of tokens in more and shorter sequences (arXiv 2108.06084). They cost less
            attention, and short-range dependencies are learned first.
        val_fraction: fraction of the characters, at the end of the text, held out for validation.
        dev_split: hold out as many tokens at the end of the training split instead and leave the last part unseen, for
            tuning.
        url, sha256: the address of the text and its expected SHA-256, if there is no `path`; the file is downloaded
            if it is missing.
        val_tokens_per_batch: size of a validation batch over all devices; it changes speed alone.

    Attributes:
        seq2seq: whether the batches are for an encoder-decoder, with inputs (source, target).
        warning: why the losses on this text cannot be compared with published ones; None if they can.

    Raises:
        ValueError: an option is out of its range, or a step has more tokens than fit into memory.
    """

    seq2seq: bool = False
    warning: str | None = None

    # More than 10 arguments: these are the options of the group `data`, and each has a name there.
    def __init__(
        self,
        *,
        path: str | None = None,
        data_dir: str,
        block_size: PositiveInt,
        batch_size: PositiveInt,
        seed: Seed,
        sampler: Callable[..., Sampler] = ShuffledSampler,
        tokenizer: Callable[..., Tokenizer] = CharTokenizer,
        pretrained: Tokenizer | None = None,
        augmentation: Callable[..., Augmentation] | None = None,
        seq_len_warmup: list[list[int]] | None = None,
        val_fraction: ValFraction = 0.1,
        dev_split: bool = False,
        url: str | None = None,
        sha256: str | None = None,
        val_tokens_per_batch: PositiveInt = 16_384,
    ) -> None:
        super().__init__()
        check_step_size(batch_size, block_size)
        tokenizer().check_untrained()
        if path is None and url is None:
            raise ValueError("data.path must be given: data.path=FILE")
        self.path = path or downloaded_path(url or "")
        self.data_dir = Path(data_dir)
        self.block_size = block_size
        self.batch_size = batch_size
        self.seed = seed
        self.sampler = sampler
        self.tokenizer = tokenizer
        self.pretrained = pretrained
        self.augmentation = augmentation
        self.seq_len_warmup = check_warmup(seq_len_warmup or [], block_size)
        self.val_fraction = val_fraction
        self.dev_split = dev_split
        if dev_split:
            self.warning = "This run is validated on a part of the training split, for tuning: no figure to compare."
        self.url = url if path is None else None
        self.sha256 = sha256
        self.val_batch_size = max(1, val_tokens_per_batch // block_size)
        self._corpus: Corpus | None = None
        self._augmentation: Augmentation | None = None

    def locate_or_download(self) -> Path:
        """Return the file of the text, downloaded or written if it is missing.

        Raises:
            ValueError: the text cannot be had, or is too short for `block_size`.
        """
        if self.url is not None:
            return locate_or_download(self.url, str(self.data_dir), self.sha256)
        path = locate(self.path, str(self.data_dir))
        check_length(path, self.block_size)
        return path

    @property
    def corpus(self) -> Corpus:
        """The tokens of the text, which is located, checked and encoded at the first use.

        Raises:
            ValueError: the text is missing, empty, not UTF-8 or too short, or the options of the tokenizer or the
                augmentation do not fit it.
        """
        if self._corpus is None:
            self._corpus = self.load_corpus(self.locate_or_download())
        return self._corpus

    def load_corpus(self, path: Path) -> Corpus:
        """Load or encode the tokens of a text, and build the augmentation."""
        corpus = load_or_tokenize(path, self.data_dir / "cache", self.val_fraction, self.pretrained or self.tokenizer())
        self.make_sampler(len(corpus.train), self.block_size)
        if len(corpus.val) < 2:
            raise ValueError(f"the validation split has {len(corpus.val)} tokens: the text is too short")
        if self.dev_split:
            cut = len(corpus.train) - len(corpus.val)
            corpus = replace(corpus, train=corpus.train[:cut], val=corpus.train[cut:])
        if self.augmentation is not None:
            self._augmentation = self.augmentation(tokens=corpus.train, tokenizer=corpus.tokenizer, seed=self.seed)
        return corpus

    @property
    def example_prompt(self) -> str:
        """The first line of the training split, shortened: what a model of this text is likely to continue well."""
        text = self.corpus.tokenizer.decode(self.corpus.train[:400].tolist())
        return shorten_line(text)

    def make_sampler(self, num_tokens: int, block_size: int) -> Sampler:
        """Return the sampler of a text of `num_tokens`."""
        return self.sampler(num_tokens=num_tokens, block_size=block_size, seed=self.seed)

    @property
    def tokens_per_epoch(self) -> int:
        """Number of tokens of the training split."""
        return len(self.corpus.train)

    def check_divisible(self, world_size: int, accumulate_grad_batches: int) -> None:
        """Raise ValueError if `batch_size` cannot be divided evenly among devices and micro-batches.

        Args:
            world_size: number of devices of all nodes.
            accumulate_grad_batches: micro-batches of each device per step.
        """
        check_divisible(self.batch_size, world_size, accumulate_grad_batches)

    def train_dataloader(self) -> TrainLoader:
        trainer = self.trainer
        assert trainer is not None and trainer.max_steps > 0
        return self.train_loader(
            batch_size=self.batch_size,
            micro_batches=trainer.accumulate_grad_batches,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            first_step=trainer.global_step,
            last_step=trainer.max_steps,
            seq_len_warmup=self.seq_len_warmup,
            pin=trainer.strategy.root_device.type == "cuda",
        )

    def val_dataloader(self) -> ValLoader:
        assert self.trainer is not None
        return self.val_loader(rank=self.trainer.global_rank, world_size=self.trainer.world_size)

    def train_loader(self, **options: Unpack[TrainLoaderOptions]) -> TrainLoader:
        """Return the micro-batches of one device, see `TrainLoader`."""
        tokens = self.corpus.train
        sampler = self.make_sampler(len(tokens), self.block_size)
        return TrainLoader(tokens, sampler, augmentation=self._augmentation, **options)

    def val_loader(self, **options: Unpack[ValLoaderOptions]) -> ValLoader:
        """Return the validation batches of one device, see `ValLoader`."""
        return ValLoader(self.corpus.val, block_size=self.block_size, batch_size=self.val_batch_size, **options)


class SyntheticDataModule(TextDataModule):
    """Batches of a synthetic play (`minigpt.data.synthetic`), for work without a network and for tests.

    Args:
        num_chars: length of the play in characters.
        generator_seed: seed of the play.
        options: see `TextDataModule`.
    """

    warning = "This run is on a synthetic text, not on Tiny Shakespeare: its losses compare with no published figure."

    def __init__(
        self, *, num_chars: Annotated[int, Ge(1000), Le(10_000_000)], generator_seed: Seed, **options: Any
    ) -> None:
        super().__init__(path=f"synthetic/{num_chars}-{generator_seed}.txt", **options)
        self.num_chars = num_chars
        self.generator_seed = generator_seed

    def locate_or_download(self) -> Path:
        return write_play(self.data_dir / self.path, self.num_chars, self.generator_seed)


def shorten_line(text: str, length: int = 40) -> str:
    """Return the first line of a text that is not blank, cut between words where it is longer than `length`."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= length else line[: length + 1].rsplit(" ", 1)[0][:length]


def check_step_size(batch_size: int, block_size: int) -> None:
    """Raise ValueError if no machine can hold the tokens of a step."""
    if batch_size * block_size > MAX_TOKENS_PER_STEP:
        raise ValueError(
            f"data.batch_size={batch_size} sequences of data.block_size={block_size} tokens in one step: "
            f"no machine holds more than {MAX_TOKENS_PER_STEP:,} tokens"
        )


def check_length(path: Path, block_size: int) -> None:
    """Raise ValueError if a text has fewer than four blocks of characters, or fewer than 20 characters."""
    if path.stat().st_size > LONG_TEXT_BYTES:
        return
    length = sum(map(len, iter_text(path)))
    if length < max(4 * block_size, 20):
        raise ValueError(f"{path} has {length} characters: too short for data.block_size={block_size}")
