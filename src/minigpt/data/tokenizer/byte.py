"""Byte tokenizer."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from minigpt.data.tokenizer.base import Tokenizer, byte_letters

if TYPE_CHECKING:  # imported where it is used: most runs need no subwords
    import tokenizers


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

    def to_library(self) -> "tokenizers.Tokenizer":
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers

        library = Tokenizer(models.BPE({letter: byte for byte, letter in enumerate(byte_letters())}, []))
        library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        library.decoder = decoders.ByteLevel()
        return library
