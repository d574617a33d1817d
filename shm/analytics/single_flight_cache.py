"""A cache of results that take a scan of a whole fleet. Concurrent requests share one computation; one runs at a time.

The lifetime of a result is proportional to its computing time, so that all of them use at most a small share of
PostgreSQL's time. Results of small fleets expire almost at once. Each result has the time at which its computation
started.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from datetime import datetime
from typing import Any, TypeVar

from shm.core.errors import DatabaseBusy
from shm.db.clock import DatabaseClock

T = TypeVar("T")

TTL_FACTOR = 20.0  # lifetime as a multiple of the computing time
MAX_TTL_S = 60.0  # maximum lifetime
MAX_ENTRIES = 64  # results
MAX_WAITING = 200  # requests: dashboards of a large team at once; later ones would time out before their turn

AsOf = datetime


class SingleFlightCache:
    """The cached results of one server process."""

    def __init__(self, clock: DatabaseClock) -> None:
        self._clock = clock
        self._entries: OrderedDict[Hashable, tuple[float, AsOf, Any]] = OrderedDict()
        self._lock = asyncio.Lock()
        self._waiting = 0

    async def get(self, key: Hashable, compute: Callable[[], Awaitable[T]]) -> tuple[AsOf, T]:
        """The time of a result and the result.

        Exceptions of `compute` propagate. Raises DatabaseBusy if too many requests wait for a computation already.
        """
        entry = self._lookup(key)
        if entry is not None:
            return entry
        if self._waiting >= MAX_WAITING:
            raise DatabaseBusy(f"{self._waiting} requests wait for figures of a whole fleet")
        self._waiting += 1
        try:
            return await self._compute(key, compute)
        finally:
            self._waiting -= 1

    async def _compute(self, key: Hashable, compute: Callable[[], Awaitable[T]]) -> tuple[AsOf, T]:
        async with self._lock:
            entry = self._lookup(key)  # another request has computed it meanwhile
            if entry is not None:
                return entry
            as_of, started_at = self._clock.now(), time.monotonic()
            result = await compute()
            duration_s = time.monotonic() - started_at
            self._entries[key] = time.monotonic() + min(TTL_FACTOR * duration_s, MAX_TTL_S), as_of, result
            self._entries.move_to_end(key)
            if len(self._entries) > MAX_ENTRIES:
                self._entries.popitem(last=False)
            return as_of, result

    def _lookup(self, key: Hashable) -> tuple[AsOf, Any] | None:
        expires_at, as_of, result = self._entries.get(key, (0.0, None, None))
        return None if as_of is None or expires_at < time.monotonic() else (as_of, result)
