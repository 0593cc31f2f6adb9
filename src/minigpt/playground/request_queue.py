"""Model computations in turn: one at a time, a few that wait, and an answer at once for those beyond."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from starlette.exceptions import HTTPException

WAIT_S = 20.0
Result = TypeVar("Result")


class RequestQueue:
    """Lets one request at a time through.

    Args:
        max_waiting: requests that may wait for their turn.
    """

    def __init__(self, max_waiting: int) -> None:
        self.max_waiting = max_waiting
        self.num_waiting = 0
        self.lock = asyncio.Lock()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for this request's turn, which the context is.

        Raises:
            HTTPException: too many wait already (429), or this one has waited for `WAIT_S` (503).
        """
        if self.lock.locked() and self.num_waiting >= self.max_waiting:
            raise HTTPException(429, "too many requests wait for the model", headers={"retry-after": "1"})
        self.num_waiting += 1
        try:
            async with asyncio.timeout(WAIT_S):
                await self.lock.acquire()
        except TimeoutError:
            raise HTTPException(503, "the model is busy", headers={"retry-after": "5"}) from None
        finally:
            self.num_waiting -= 1
        try:
            yield
        finally:
            self.lock.release()


class ModelThread:
    """The one thread that computes: a model's hooks see one computation at a time, and the web server never waits.

    A generation uses it token by token, so that others need not wait for the whole text.
    """

    def __init__(self) -> None:
        self.executor = ThreadPoolExecutor(1, thread_name_prefix="model")

    async def run(self, function: Callable[..., Result], *args: Any) -> Result:
        """Return `function(*args)`, computed in the thread."""
        return await asyncio.get_running_loop().run_in_executor(self.executor, function, *args)
