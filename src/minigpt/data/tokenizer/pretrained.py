"""A tokenizer that comes with a model, in the format of the `tokenizers` library."""

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from minigpt.data.tokenizer.base import Tokenizer, byte_letters
from minigpt.data.tokenizer.subword import MAX_WORD_CHARS, WORDS

if TYPE_CHECKING:  # imported where it is used: most runs need no subwords
    import tokenizers

PROBE = "\n The  end's\tnear, 42 "  # blanks at both ends and side by side, which a lossy tokenizer changes
PATTERNS = (WORDS, r"[\s\S]")  # a file may hold a pattern that takes forever; GPT-2's own is part of the library


class PretrainedTokenizer(Tokenizer):
    """The tokenizer of a tokenizer.json: byte-level BPE as GPT-2 has it, or one that miniGPT has written.

    Args:
        definition: the content of the file, found by `init_from`.

    Raises:
        ValueError: the library cannot read it, or it is not lossless.
    """

    kind = "pretrained"

    def __init__(self, definition: str = "") -> None:
        self.definition = definition
        if definition:
            check_definition(json.loads(definition))
            import tokenizers

            self._library = tokenizers.Tokenizer.from_str(definition)
            self._library.no_padding()
            self._library.no_truncation()
            is_byte_level = isinstance(self._library.decoder, tokenizers.decoders.ByteLevel)
            self.tokens = read_tokens(self._library, is_byte_level)
            if not is_byte_level:
                self.characters = "".join(token.decode() for token in self.tokens if len(token.decode()) == 1)
            probe = self.known(PROBE)
            if b"".join(self.tokens[i] for i in self.encode(probe)).decode(errors="replace") != probe:
                raise ValueError("it is not lossless: the tokens of a text joined must be the text")

    def train(self, characters: str, pieces: Iterable[str]) -> Self:
        raise ValueError("data/tokenizer=pretrained comes with a model: add init_from=FOLDER, or choose another one")

    def encode(self, text: str) -> np.ndarray:
        self.check_vocabulary(text)
        return np.array(self._library.encode(text, add_special_tokens=False).ids, dtype=self.dtype)

    def state(self) -> dict[str, Any]:
        return {"kind": self.kind, "definition": self.definition}

    def to_library(self) -> "tokenizers.Tokenizer":
        return self._library


def check_definition(definition: Any) -> None:
    """Raise ValueError for a tokenizer.json with a step that is not lossless, or a pattern that may take forever."""
    if not isinstance(definition, dict):
        raise ValueError("it holds no mapping")
    if definition.get("normalizer") is not None:
        raise ValueError("it normalizes its text: only lossless tokenizers are supported, such as GPT-2's")
    for step in iter_steps(definition.get("pre_tokenizer")):
        allowed = {
            "ByteLevel": step.get("add_prefix_space") is False,
            "Split": step.get("pattern") in [{"Regex": p} for p in PATTERNS] and step.get("behavior") == "Isolated",
            "FixedLength": step.get("length") == MAX_WORD_CHARS,
        }
        if not allowed.get(str(step.get("type"))):
            raise ValueError(
                f"its pre-tokenizer {step.get('type')} is not supported: only that of GPT-2, and miniGPT's"
            )


def iter_steps(node: Any) -> Iterator[dict[str, Any]]:
    """Yield the pre-tokenizers of a definition, those of a sequence one by one."""
    if isinstance(node, dict) and node.get("type") == "Sequence":
        yield from (step for step in node.get("pretokenizers", []) if isinstance(step, dict))
    elif isinstance(node, dict):
        yield node


def read_tokens(library: "tokenizers.Tokenizer", is_byte_level: bool) -> list[bytes]:
    """Return the bytes of each token of the library's tokenizer.

    Raises:
        ValueError: the ids are not 0, 1, 2, ...
    """
    names = {token: name for name, token in library.get_vocab(with_added_tokens=True).items()}
    if sorted(names) != list(range(len(names))):
        raise ValueError("the ids of its tokens have gaps")
    added = library.get_added_tokens_decoder()
    byte_of = {letter: byte for byte, letter in enumerate(byte_letters())}
    return [
        bytes(byte_of[c] for c in names[i]) if is_byte_level and i not in added else names[i].encode()
        for i in range(len(names))
    ]
