"""The text of tokens as they arrive, up to a stop string, which may begin and end within tokens."""

import codecs
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from minigpt.data.tokenizer import Tokenizer


class TextStream:
    """Converts the tokens of one sample to text one by one.

    The bytes of an incomplete character, and text that may begin a stop string, are held back until more is known.

    Args:
        tokenizer: of the tokens.
        stop: strings that end the text; the first that is complete does, and is a part of the text.

    Attributes:
        text: what was returned so far.
        stopped: whether a stop string was found.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self.tokens = tokenizer.tokens
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.stop = stop
        self.held = ""
        self.text = ""
        self.stopped = False

    def add(self, token: int) -> str:
        """Return the text that is certain with this token."""
        return self.release(self.decoder.decode(self.tokens[token]))

    def finish(self) -> str:
        """Return the text that was held back, at the end of the sample."""
        new = self.release(self.decoder.decode(b"", final=True)) + self.held
        self.held, self.text = "", self.text + self.held
        return new

    def release(self, new: str) -> str:
        """Return as much of the text as no later token can change."""
        if self.stopped:
            return ""
        held = self.held + new
        end = find_stop(held, self.stop)
        if end is None:
            end = len(held) - held_back(held, self.stop)
            self.held = held[end:]
        else:
            self.held, self.stopped = "", True
        self.text += held[:end]
        return held[:end]


def find_stop(text: str, stop: Sequence[str]) -> int | None:
    """Return the end of the stop string that is complete first, None if there is none."""
    return min((text.index(s) + len(s) for s in stop if s in text), default=None)


def held_back(text: str, stop: Sequence[str]) -> int:
    """Return the length of the longest end of a text that is the beginning of a stop string."""
    longest = max(map(len, stop), default=1) - 1
    return next((n for n in range(min(longest, len(text)), 0, -1) if any(s.startswith(text[-n:]) for s in stop)), 0)


def ends_with_stop(tokenizer: Tokenizer, stop: Sequence[str]) -> Callable[[Tensor], Tensor]:
    """Return a function of token ids [B, T] for `beam_search`: whether the newest tokens complete a stop string [B]."""
    window = max(len(s.encode()) for s in stop)  # a token is at least one byte

    def ends(tokens: Tensor) -> Tensor:
        texts = [tokenizer.decode(ids) for ids in tokens[:, -window:].tolist()]
        return torch.tensor([find_stop(text, stop) is not None for text in texts], device=tokens.device)

    return ends
