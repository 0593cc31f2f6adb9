"""Characters of lines that are to be restored."""

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np

from minigpt.data.tokenizer.char import CharTokenizer


class LineTokenizer(CharTokenizer):
    """The characters of a line that is to be restored, and three ids more: where it begins, where it ends, padding.

    Args:
        characters: the vocabulary of the text, each character once.
        drop: characters that a damaged line has lost.
        fold_case: whether a damaged line is in lower case.
    """

    kind = "lines"

    def __init__(self, characters: str, drop: str = "", fold_case: bool = False) -> None:
        super().__init__(characters + characters.lower() if fold_case else characters)
        self.drop = drop
        self.fold_case = fold_case
        self.begin, self.end, self.padding = range(len(self.characters), self.vocab_size)

    @property
    def vocab_size(self) -> int:
        return len(self.characters) + 3

    def damage(self, line: str) -> str:
        """The line as it is to be restored from; a damaged one stays as it is."""
        line = line.translate(str.maketrans("", "", self.drop))
        return line.lower() if self.fold_case else line

    def encode_lines(self, lines: list[str], length: int) -> np.ndarray:
        """Token ids [N, length] of N lines, each with an end and then padding.

        Raises:
            ValueError: a line leaves no room for its end, or has characters that are not in the vocabulary.
        """
        sizes = np.array([len(line) for line in lines], dtype=np.int64)[:, None]
        if (longest := sizes.max(initial=0)) >= length:
            raise ValueError(f"a line of {longest} characters is too long: the model takes {length - 1}")
        ids = np.full((len(lines), length), self.padding, dtype=self.dtype)
        ids[np.arange(length) < sizes] = self.encode("".join(lines))
        np.put_along_axis(ids, sizes, self.end, axis=1)
        return ids

    def encode_pairs(self, lines: list[str], length: int) -> np.ndarray:
        """Token ids [N, 2, length] of N lines, each as it is when damaged and as it should be."""
        damaged = [self.damage(line) for line in lines]
        return np.stack((self.encode_lines(damaged, length), self.encode_lines(lines, length)), axis=1)

    def decode(self, ids: Iterable[int]) -> str:
        """The text before the first end."""
        return super().decode(itertools.takewhile(lambda i: i < len(self.characters), ids))

    def state(self) -> dict[str, Any]:
        return super().state() | {"drop": self.drop, "fold_case": self.fold_case}
