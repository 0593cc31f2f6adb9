"""Standard streams whose reader has gone: a closed pipe, a closed terminal, a full disk."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast


class Output:
    """A text stream that drops what it cannot write, so that a lost reader never ends a training.

    Attributes:
        is_broken_pipe: whether the reader of a pipe has closed it.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.is_broken_pipe = False

    def write(self, text: str) -> int:
        """Write a text, or drop it; return its length."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        """Write what is buffered, or drop it."""
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        self.is_broken_pipe |= isinstance(error, BrokenPipeError)
        discard(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def discard(stream: TextIO) -> None:
    """Let a stream write to the null device, what it has buffered included: Python flushes it at its end."""
    with contextlib.suppress(OSError, ValueError):  # a stream without a file
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def guard(stream: TextIO | None) -> TextIO:
    """Return a stream as an `Output`; Python has None for one that was closed before the program started.

    The null device takes the place of the latter, so that no file of the program gets its number.
    """
    if stream is None:
        stream = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")
    return stream if isinstance(stream, Output) else cast(TextIO, Output(stream))


@contextlib.contextmanager
def lasting_output() -> Iterator[None]:
    """Within this context or decorated function nothing fails for what cannot be written to the standard output."""
    with contextlib.redirect_stdout(guard(sys.stdout)):
        yield
