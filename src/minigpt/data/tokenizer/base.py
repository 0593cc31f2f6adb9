"""What all tokenizers share."""

import codecs
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Self

import numpy as np


class Tokenizer:
    """Text to token ids and back: `decode(encode(text)) == text`.

    Its constructor takes the options of the configuration, and what training finds; `state` is the constructor's
    arguments, so that a tokenizer before its training is named by its options, and one after it can be made again.

    Attributes:
        kind: what it is called in a checkpoint.
        tokens: the UTF-8 bytes of each id, which may be a part of a character; none before training.
        characters: those that it can encode; None for all.
    """

    kind: ClassVar[str]
    tokens: Sequence[bytes] = ()
    characters: str | None = None

    @property
    def vocab_size(self) -> int:
        return len(self.tokens)

    @property
    def dtype(self) -> np.dtype:
        """The smallest integer type that holds every id."""
        return np.dtype(np.min_scalar_type(max(self.vocab_size - 1, 0)))

    def train(self, characters: str, pieces: Iterable[str]) -> Self:
        """The tokenizer of a text.

        Args:
            characters: those of the whole text, each once.
            pieces: the text's training part.

        Raises:
            ValueError: the text does not give what the options ask for.
        """
        raise NotImplementedError

    def encode(self, text: str) -> np.ndarray:
        """Token ids [tokens of the text].

        Raises:
            ValueError: names the characters that are not in the vocabulary.
        """
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: plain data, read by `load_tokenizer`."""
        raise NotImplementedError

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids; bytes that are no UTF-8, which a model may well draw, become U+FFFD."""
        return "".join(self.stream(ids))

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of token ids as they come: the bytes of a character are held back until it is whole."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for token in ids:
            yield decoder.decode(self.tokens[token])
        yield decoder.decode(b"", final=True)

    def known(self, text: str) -> str:
        """The text without the characters that cannot be encoded."""
        return text if self.characters is None else "".join(c for c in text if c in self.characters)

    def refuse_strangers(self, text: str) -> None:
        """Raises ValueError when a text has characters that cannot be encoded."""
        text.encode()  # half a surrogate pair, which no UTF-8 text has
        if self.characters is not None and (strangers := sorted(set(text) - set(self.characters))):
            raise ValueError(
                f"characters outside the vocabulary: {' '.join(map(repr, strangers[:10]))}; "
                f"the model knows {self.characters!r}"
            )
