"""Lossless tokenizers, one module each."""

from typing import Any

from minigpt.data.tokenizer.base import Tokenizer
from minigpt.data.tokenizer.bpe import BPETokenizer
from minigpt.data.tokenizer.byte import ByteTokenizer
from minigpt.data.tokenizer.char import CharTokenizer
from minigpt.data.tokenizer.lines import LineTokenizer
from minigpt.data.tokenizer.pretrained import PretrainedTokenizer
from minigpt.data.tokenizer.wordpiece import WordPieceTokenizer

CLASSES = (CharTokenizer, ByteTokenizer, BPETokenizer, WordPieceTokenizer, LineTokenizer, PretrainedTokenizer)
KINDS = {cls.kind: cls for cls in CLASSES}


def load_tokenizer(state: dict[str, Any]) -> Tokenizer:
    """Rebuild a tokenizer from its `Tokenizer.state`. Nothing in the state is executed.

    Raises:
        ValueError: this version does not know the kind, or the state is not that of a tokenizer.
    """
    kind = state.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"unknown tokenizer kind {kind!r} in the checkpoint; known: {', '.join(map(repr, KINDS))}")
    try:
        tokenizer = KINDS[kind](**{key: value for key, value in state.items() if key != "kind"})
        if not tokenizer.tokens:
            raise ValueError("it has no tokens")
        return tokenizer
    except Exception as error:  # invalid data makes the constructors and the library raise any kind of error
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"the {kind} tokenizer of the checkpoint is damaged: {message}") from error
