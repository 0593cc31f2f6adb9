"""Character tokenizer of lines, for denoising."""

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from minigpt.data.tokenizer.base import Tokenizer
from minigpt.data.tokenizer.char import CharTokenizer

if TYPE_CHECKING:
    import tokenizers


class LineTokenizer(CharTokenizer):
    """The characters of a line, and three special tokens: beginning of sequence, end of sequence and padding.

    Args:
        characters: the vocabulary of the text, each character once.
        drop_chars: characters that are removed from a corrupted line.
        lowercase: whether a corrupted line is converted to lower case.

    Attributes:
        bos_id, eos_id, pad_id: the ids of the special tokens, the last three of the vocabulary.
    """

    kind = "lines"

    def __init__(self, characters: str, drop_chars: str = "", lowercase: bool = False) -> None:
        super().__init__(characters + characters.lower() if lowercase else characters)
        self.drop_chars = drop_chars
        self.lowercase = lowercase
        self.bos_id, self.eos_id, self.pad_id = range(len(self.tokens), self.vocab_size)

    @property
    def vocab_size(self) -> int:
        return len(self.tokens) + 3

    def corrupt(self, line: str) -> str:
        """Return the corrupted line. A line that is already corrupted stays the same."""
        line = line.translate(str.maketrans("", "", self.drop_chars))
        return line.lower() if self.lowercase else line

    def encode_lines(self, lines: list[str], length: int) -> np.ndarray:
        """Return the token ids [N, length] of N lines, each followed by `eos_id` and padding.

        Raises:
            ValueError: a line and its end are longer than `length`, or it has characters outside the vocabulary.
        """
        sizes = np.array([len(line) for line in lines], dtype=np.int64)[:, None]
        if (longest := sizes.max(initial=0)) >= length:
            raise ValueError(f"a line of {longest} characters is too long: the model takes {length - 1}")
        ids = np.full((len(lines), length), self.pad_id, dtype=self.dtype)
        ids[np.arange(length) < sizes] = self.encode("".join(lines))
        np.put_along_axis(ids, sizes, self.eos_id, axis=1)
        return ids

    def encode_pairs(self, lines: list[str], length: int) -> np.ndarray:
        """Return the token ids [N, 2, length] of N lines, each corrupted and as it is."""
        corrupted = [self.corrupt(line) for line in lines]
        return np.stack((self.encode_lines(corrupted, length), self.encode_lines(lines, length)), axis=1)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text before the first special token."""
        return super().decode(itertools.takewhile(lambda i: i < len(self.tokens), ids))

    def state(self) -> dict[str, Any]:
        return super().state() | {"drop_chars": self.drop_chars, "lowercase": self.lowercase}

    def to_library(self) -> "tokenizers.Tokenizer":
        return Tokenizer.to_library(self)  # which refuses it
