"""Answer a signal at once, although Python's own handlers wait until torch returns, which may take a whole step."""

import contextlib
import signal
import socket
import threading
from collections.abc import Callable


class StopNotice:
    """Calls a function in a thread of its own at the first of some signals.

    Python writes a byte into a socket when a signal arrives (`signal.set_wakeup_fd`), and the thread waits for it.

    Args:
        signals: their numbers.
        tell: what is called with the first one.
    """

    def __init__(self, signals: set[int], tell: Callable[[int], None]) -> None:
        self._signals = signals
        self._tell = tell
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._previous = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._listen, name="stop-notice", daemon=True).start()

    def _listen(self) -> None:
        with self._reader:
            while number := self._reader.recv(1):
                if number[0] in self._signals:
                    with contextlib.suppress(OSError, ValueError):  # the terminal or the pipe may be closed
                        self._tell(number[0])
                    return

    def close(self) -> None:
        """Stop listening. For the main thread."""
        signal.set_wakeup_fd(self._previous)
        self._writer.close()
