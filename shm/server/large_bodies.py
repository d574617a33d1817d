"""Turns of large bodies: a part of a few at a time is received, verified or parsed, with rests. Addresses take turns.

A body of the maximum size takes tens of milliseconds. Without turns, each request would wait for all large bodies that
arrived before it.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from shm.core.errors import Overloaded, TooManyRequests
from shm.core.settings import Settings
from shm.core.shared_budget import SharedBudget
from shm.ingest.fair_queue import FairQueue

MIN_BYTES = 4 * 1024  # of a body that takes turns: smaller ones take a fraction of a millisecond
BYTES_AT_ONCE = 64 * 1024  # after so many, all other requests are served: about a millisecond of work
REST_AFTER_S = 0.005  # of work, as much rest follows: at least half of the time is for other requests
QUEUED_PER_CONNECTION = 2  # each has one request, and closed ones stay in the queue until their turn
RETRY_AFTER_S = 5  # of a refused request: about as long as the others take


class LargeBodies:
    """The large bodies of one process. They leave half of the budget of requests in memory to others."""

    def __init__(self, settings: Settings) -> None:
        self._budget = SharedBudget(settings.max_reading // 2)
        self._waiting: FairQueue[tuple[int, asyncio.Future[None]]] = FairQueue(
            QUEUED_PER_CONNECTION * settings.max_connections
        )
        self._is_busy = False
        self._started_at = 0.0
        self._worked_s = 0.0  # since the last rest

    @contextmanager
    def in_progress(self, address: bytes | None, length: int) -> Iterator[None]:
        """While a request with a body of this length is handled. Raises TooManyRequests or Overloaded.

        `address` is a keyed hash, and None if no limit of addresses applies.
        """
        if length < MIN_BYTES:
            yield
            return
        if self._budget.is_share_exhausted_by(address, length):
            raise TooManyRequests(
                "rate_limited", "This address has too many large requests in progress.", RETRY_AFTER_S
            )
        if self._budget.is_exhausted_by(length):
            raise _too_many()
        with self._budget.use(address, length):
            yield

    async def turn(self, key: str, length: int) -> None:
        """Returns when the caller may work on a body of this length, until it awaits something. Keys take turns.

        Raises Overloaded.
        """
        if length < MIN_BYTES:
            return
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        try:
            self._waiting.put(key, (length, turn))
        except asyncio.QueueFull:
            raise _too_many() from None
        if not self._is_busy:
            self._is_busy = True
            loop.call_soon(self._grant)
        await turn

    def _grant(self) -> None:
        """Lets some bodies continue in the next iteration of the loop, directly one after the other."""
        self._is_busy = len(self._waiting) > 0
        if not self._is_busy:
            return
        loop = asyncio.get_running_loop()
        loop.call_soon(self._start)
        granted_bytes = 0
        while len(self._waiting) and granted_bytes < BYTES_AT_ONCE:
            length, turn = self._waiting.take()
            if not turn.done():  # else its request was cancelled
                turn.set_result(None)
                granted_bytes += length
        loop.call_soon(self._end)

    def _start(self) -> None:
        self._started_at = time.perf_counter()

    def _end(self) -> None:
        self._worked_s += time.perf_counter() - self._started_at
        if self._worked_s < REST_AFTER_S:
            self._grant()
            return
        asyncio.get_running_loop().call_later(self._worked_s, self._grant)
        self._worked_s = 0.0


def _too_many() -> Overloaded:
    return Overloaded("queue_full", "Too many large requests are in progress; try again shortly.", RETRY_AFTER_S)
