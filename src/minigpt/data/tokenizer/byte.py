"""Bytes."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from minigpt.data.tokenizer.base import Tokenizer


class ByteTokenizer(Tokenizer):
    """One token per byte of UTF-8; the id is the byte."""

    kind = "byte"
    tokens = tuple(bytes([value]) for value in range(256))

    def train(self, characters: str, pieces: Iterable[str]) -> "ByteTokenizer":
        return self

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode(), dtype=np.uint8)

    def state(self) -> dict[str, Any]:
        return {"kind": self.kind}
