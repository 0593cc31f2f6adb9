"""Characters to token ids and back."""

from collections.abc import Iterable
from typing import Any

import numpy as np


class CharTokenizer:
    """One token per character; ids in the order of the code points.

    Args:
        characters: the vocabulary, each character once.
    """

    def __init__(self, characters: str) -> None:
        self.characters = "".join(sorted(set(characters)))
        self._codes = np.array([ord(c) for c in self.characters], dtype=np.uint32)

    @property
    def vocab_size(self) -> int:
        return len(self.characters)

    @property
    def dtype(self) -> np.dtype:
        """The smallest integer type that holds every id."""
        return np.dtype(np.min_scalar_type(max(self.vocab_size - 1, 0)))

    def encode(self, text: str) -> np.ndarray:
        """Token ids [len(text)].

        Raises:
            ValueError: names the characters that are not in the vocabulary.
        """
        codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
        ids = np.minimum(np.searchsorted(self._codes, codes), max(self.vocab_size - 1, 0))
        if len(codes) and (not self.vocab_size or (self._codes[ids] != codes).any()):
            strangers = sorted(set(text) - set(self.characters))
            raise ValueError(
                f"characters outside the vocabulary: {' '.join(map(repr, strangers[:10]))}; "
                f"the model knows {self.characters!r}"
            )
        return ids.astype(self.dtype)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids."""
        return "".join(self.characters[i] for i in ids)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: plain data, read by `load_tokenizer`."""
        return {"kind": "char", "characters": self.characters}


def load_tokenizer(state: dict[str, Any]) -> CharTokenizer:
    """The tokenizer that `CharTokenizer.state` described.

    Raises:
        ValueError: for a kind that this version does not know.
    """
    if state.get("kind") != "char":
        raise ValueError(f"unknown tokenizer kind {state.get('kind')!r} in the checkpoint; known: 'char'")
    return CharTokenizer(state["characters"])
