"""The text that evaluate.py scores: a split of the training's, or another one."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minigpt.data.corpus import encode_text
from minigpt.data.denoising import PairValLoader, read_lines
from minigpt.data.loaders import Batch, ValLoader
from minigpt.data.text_files import file_hash, locate, split_text
from minigpt.data.tokenizer import LineTokenizer
from minigpt.inference.denoise_lines import denoising_model
from minigpt.inference.load import LoadedModel

VAL, TRAIN, OTHER = "val", "train", "other"


@dataclass(frozen=True)
class EvalText:
    """A text to score.

    Attributes:
        path: its file.
        split: `val` or `train`, a part of the text of the training; `other`, another text as a whole.
        tokens: its token ids; none for an encoder-decoder.
        lines: its lines, for an encoder-decoder.
        characters: its length in characters.
        tokens_per_character: 1 for an encoder-decoder, whose lines have tokens of their own.
        tokens_per_byte: the same for its bytes in UTF-8.
    """

    path: Path
    split: str
    tokens: np.ndarray
    lines: list[str]
    characters: int
    tokens_per_character: float
    tokens_per_byte: float


def find_eval_text(loaded: LoadedModel, config: dict[str, Any]) -> tuple[Path, str]:
    """Return the file of the text that the options name, and its split.

    Raises:
        ValueError: the text is missing, or has changed since the training.
    """
    data_dir, split = config["paths"]["data_dir"], config["split"]
    if config["eval_text"] is not None:
        if split != VAL:
            raise ValueError(f"split={split} is a part of the training's text, eval_text is another one: leave one out")
        return locate(config["eval_text"], data_dir, "eval_text"), OTHER
    try:
        return find_training_text(loaded, data_dir), split
    except ValueError as error:
        raise ValueError(f"{error}, or score another text with eval_text=FILE") from error


def find_training_text(loaded: LoadedModel, data_dir: str) -> Path:
    """Return the file of the text that a model was trained on.

    Raises:
        ValueError: the text is missing, or has changed since the training.
    """
    recorded = loaded.text["path"]
    try:
        path = locate(recorded, data_dir)
    except ValueError as error:
        advice = "name its directory with paths.data_dir=..."
        raise ValueError(f"the text of the training, {recorded}, does not exist: {advice}") from error
    if file_hash(path) != loaded.text["sha256"]:
        raise ValueError(f"{path} has changed since the training: put the text of the training in its place")
    return path


def read_eval_text(loaded: LoadedModel, path: Path, split: str, max_characters: int | None = None) -> EvalText:
    """Read and encode a text.

    Args:
        loaded: the model, whose tokenizer and split are used.
        path: the file.
        split: see `EvalText`.
        max_characters: read the first of them alone; of lines, so many as can have no more characters.

    Raises:
        ValueError: the text is too short, or has characters outside the vocabulary.
    """
    cut = 0 if split == OTHER else split_text(path, loaded.text["val_fraction"]).train_characters
    start, stop = (0, cut) if split == TRAIN else (cut, None)
    if isinstance(loaded.tokenizer, LineTokenizer):
        lines = read_eval_lines(loaded, path, split, max_characters)
        characters, size = sum(map(len, lines)), sum(len(line.encode()) for line in lines)
        return EvalText(path, split, np.empty(0, np.int64), lines, characters, 1.0, characters / max(size, 1))
    if max_characters is not None:
        stop = min(start + max_characters, start + max_characters if stop is None else stop)
    tokens, characters = encode_text(loaded.tokenizer, path, start, stop)
    if len(tokens) < 2:
        raise ValueError(f"{path} is too short to be scored")
    size = np.array([len(token) for token in loaded.tokenizer.tokens])[tokens].sum()
    return EvalText(path, split, tokens, [], characters, len(tokens) / characters, len(tokens) / size)


def read_eval_lines(loaded: LoadedModel, path: Path, split: str, max_characters: int | None) -> list[str]:
    """Return the lines of a text for an encoder-decoder, see `read_eval_text`.

    Raises:
        ValueError: there is none.
    """
    block_size = loaded.text["block_size"]
    train, val = read_lines(path, 1.0 if split == OTHER else loaded.text["val_fraction"], block_size)
    lines = train if split == TRAIN else val
    if max_characters is not None:
        lines = lines[: max(1, max_characters // block_size)]
    if not lines:
        raise ValueError(f"{path} has no line to be denoised")
    return lines


def exact_batches(loaded: LoadedModel, text: EvalText) -> Iterable[Batch]:
    """Return batches that have each token of a text once, in blocks without overlap, as validation does.

    Raises:
        ValueError: a line has characters outside the vocabulary.
    """
    block_size, batch_size = loaded.text["block_size"], loaded.val_batch_size
    if not isinstance(loaded.tokenizer, LineTokenizer):
        return ValLoader(text.tokens, block_size=block_size, batch_size=batch_size)
    _, tokenizer = denoising_model(loaded)
    return PairValLoader(tokenizer.encode_pairs(text.lines, block_size), tokenizer, batch_size=batch_size)
