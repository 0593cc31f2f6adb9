"""Connections with time limits: a client that sends or reads slowly holds nothing up, and takes bounded memory."""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_TIMEOUT_S = 10.0  # to send a whole request
RESPONSE_TIMEOUT_S = 90.0  # to read a whole response
MAX_CONNECTIONS = 128


class TimedProtocol(H11Protocol):
    """uvicorn's HTTP protocol, which itself waits without a limit for the rest of a request and for slow readers.

    Of more than `MAX_CONNECTIONS`, the oldest that has not sent a whole request is closed, so that slow clients cannot
    keep others out. (uvicorn's `limit_concurrency` would refuse the others.)
    """

    timer: asyncio.TimerHandle | None = None
    opened: float

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] # as uvicorn's
        super().connection_made(transport)
        self.opened = self.loop.time()
        self.start_timer()
        timed = (c for c in self.connections if isinstance(c, TimedProtocol))
        # Of those that come at once, each must close another one; a closed one is in the set for a moment longer.
        still_open = [c for c in timed if not c.transport.is_closing()]
        if len(still_open) > MAX_CONNECTIONS:
            close_oldest(still_open)

    def start_timer(self) -> None:
        """Start the time limit of a request."""
        self.stop_timer()
        self.timer = self.loop.call_later(REQUEST_TIMEOUT_S, self.end_request_time)

    def stop_timer(self) -> None:
        """Stop the time limit."""
        if self.timer is not None:
            self.timer.cancel()

    def is_incomplete(self) -> bool:
        """Whether the client has not sent a whole request yet."""
        return self.conn.their_state in (h11.IDLE, h11.SEND_BODY)

    def end_request_time(self) -> None:
        """Close the connection, unless its request is being answered; that has a limit of its own."""
        if self.is_incomplete() or self.transport.is_closing():
            self.transport.abort()
        else:
            self.timer = self.loop.call_later(RESPONSE_TIMEOUT_S, self.transport.abort)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self.start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self.stop_timer()
        super().connection_lost(exc)


def close_oldest(connections: list[TimedProtocol]) -> None:
    """Close the oldest connection without a whole request; the newest one where all others are being answered."""
    connections.sort(key=lambda connection: connection.opened)
    next(filter(TimedProtocol.is_incomplete, connections), connections[-1]).transport.abort()
