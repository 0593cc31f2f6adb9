"""Text to token ids and back, without loss; one file per kind."""

from typing import Any

from minigpt.data.tokenizer.base import Tokenizer
from minigpt.data.tokenizer.bpe import BPETokenizer
from minigpt.data.tokenizer.byte import ByteTokenizer
from minigpt.data.tokenizer.char import CharTokenizer
from minigpt.data.tokenizer.lines import LineTokenizer
from minigpt.data.tokenizer.wordpiece import WordPieceTokenizer

KINDS = {cls.kind: cls for cls in (CharTokenizer, ByteTokenizer, BPETokenizer, WordPieceTokenizer, LineTokenizer)}


def load_tokenizer(state: dict[str, Any]) -> Tokenizer:
    """The tokenizer that `Tokenizer.state` described. The state may be anybody's: it is data, nothing of it is run.

    Raises:
        ValueError: for a kind that this version does not know, or a state that no tokenizer has.
    """
    kind = state.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"unknown tokenizer kind {kind!r} in the checkpoint; known: {', '.join(map(repr, KINDS))}")
    try:
        tokenizer = KINDS[kind](**{key: value for key, value in state.items() if key != "kind"})
        if not tokenizer.tokens:
            raise ValueError("it has no tokens")
        return tokenizer
    except Exception as error:  # what data of any form makes the constructors and the library raise
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"the {kind} tokenizer of the checkpoint is damaged: {message}") from error
