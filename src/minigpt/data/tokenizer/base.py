"""The base class of tokenizers."""

import codecs
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

if TYPE_CHECKING:  # imported where it is used: most runs need no subwords
    import tokenizers


class Tokenizer:
    """Converts text to token ids and back: `decode(encode(text)) == text`.

    The arguments of a constructor are the options of the configuration, and the vocabulary that training finds. `state`
    returns these arguments, so it names an untrained tokenizer by its options, and rebuilds a trained one.

    Attributes:
        kind: name of the tokenizer in a checkpoint.
        tokens: UTF-8 bytes of each id, which may be a part of a character; empty before training.
        characters: characters that can be encoded; None for all.
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

    def check_untrained(self) -> None:
        """Raise ValueError if this tokenizer has a vocabulary, which training on a text would replace."""
        if self.tokens:
            raise ValueError(
                f"the {self.kind} tokenizer learns its vocabulary from the text: leave data.tokenizer.characters, "
                f"data.tokenizer.merges and data.tokenizer.pieces out"
            )

    def train(self, characters: str, pieces: Iterable[str]) -> Self:
        """Return the tokenizer of a text.

        Args:
            characters: the characters of the whole text, each once.
            pieces: the training split of the text.

        Raises:
            ValueError: the options do not fit the text.
        """
        raise NotImplementedError

    def encode(self, text: str) -> np.ndarray:
        """Return the token ids [number of tokens] of a text.

        Raises:
            ValueError: the text has characters outside the vocabulary, which the message names.
        """
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """Return plain data for a checkpoint, from which `load_tokenizer` rebuilds the tokenizer."""
        raise NotImplementedError

    def to_library(self) -> "tokenizers.Tokenizer":
        """Return the same tokenizer of the `tokenizers` library.

        Raises:
            ValueError: the library has none like it.
        """
        raise ValueError(f"the {self.kind} tokenizer cannot be written as a tokenizer.json")

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of token ids. Bytes that are not valid UTF-8, which a model may generate, become U+FFFD."""
        return "".join(self.stream(ids))

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """Yield the text of token ids one by one. The bytes of a character are held back until it is complete."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for token in ids:
            yield decoder.decode(self.tokens[token])
        yield decoder.decode(b"", final=True)

    def known(self, text: str) -> str:
        """Return the text without the characters that cannot be encoded."""
        return text if self.characters is None else "".join(c for c in text if c in self.characters)

    def check_vocabulary(self, text: str) -> None:
        """Raise ValueError if a text has characters that cannot be encoded."""
        text.encode()  # refuses lone surrogates, which no UTF-8 text has
        if self.characters is not None and (unknown := sorted(set(text) - set(self.characters))):
            raise ValueError(
                f"characters outside the vocabulary: {' '.join(map(repr, unknown[:10]))}; "
                f"the model knows {self.characters!r}"
            )


def byte_letters() -> list[str]:
    """Return the letter by which the library writes each byte: printable Latin-1 as it is, U+0100 and up otherwise."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]
