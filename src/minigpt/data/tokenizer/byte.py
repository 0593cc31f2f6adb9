"""Byte tokenizer."""

from collections.abc import Iterable
from typing import Any, Self

import numpy as np

from minigpt.data.tokenizer.base import Tokenizer


class ByteTokenizer(Tokenizer):
    """One token per byte of UTF-8; the id is the byte."""

    kind = "byte"
    tokens = tuple(bytes([value]) for value in range(256))

    def check_untrained(self) -> None:
        """Do nothing: the vocabulary is fixed."""

    def train(self, characters: str, pieces: Iterable[str]) -> Self:
        return self

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode(), dtype=np.uint8)

    def state(self) -> dict[str, Any]:
        return {"kind": self.kind}
