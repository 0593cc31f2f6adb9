"""Character tokenizer."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from minigpt.data.tokenizer.base import Tokenizer

if TYPE_CHECKING:  # imported where it is used: most runs need no subwords
    import tokenizers


class CharTokenizer(Tokenizer):
    """One token per character; ids are in the order of the code points.

    Args:
        characters: the vocabulary, found by training.
    """

    kind = "char"

    def __init__(self, characters: str = "") -> None:
        self.characters = "".join(sorted(set(characters)))
        self.tokens = [c.encode() for c in self.characters]
        self._codes = np.array([ord(c) for c in self.characters], dtype=np.uint32)

    def train(self, characters: str, pieces: Iterable[str]) -> "CharTokenizer":
        return CharTokenizer(characters)

    def encode(self, text: str) -> np.ndarray:
        codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
        ids = np.minimum(np.searchsorted(self._codes, codes), max(len(self.tokens) - 1, 0))
        if len(codes) and (not self.tokens or (self._codes[ids] != codes).any()):
            self.check_vocabulary(text)
        return ids.astype(self.dtype)

    def state(self) -> dict[str, Any]:
        return {"kind": self.kind, "characters": self.characters}

    def to_library(self) -> "tokenizers.Tokenizer":
        from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

        # The empty unknown token is none: a character outside the vocabulary is an error.
        library = Tokenizer(models.WordLevel({c: i for i, c in enumerate(self.characters or "")}, unk_token=""))
        library.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        library.decoder = decoders.Fuse()
        return library
