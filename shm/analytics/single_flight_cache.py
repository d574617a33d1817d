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

from shm.db.clock import DatabaseClock

T = TypeVar("T")

TTL_FACTOR = 20.0  # lifetime as a multiple of the computing time
MAX_TTL_S = 60.0  # maximum lifetime
MAX_ENTRIES = 64  # results

AsOf = datetime


class SingleFlightCache:
    """The cached results of one server process."""

    def __init__(self, clock: DatabaseClock) -> None:
        self._clock = clock
        self._entries: OrderedDict[Hashable, tuple[float, AsOf, Any]] = OrderedDict()
        self._lock = asyncio.Lock()

    async def get(self, key: Hashable, compute: Callable[[], Awaitable[T]]) -> tuple[AsOf, T]:
        """The time of a result and the result. Exceptions of `compute` propagate."""
        entry = self._lookup(key)
        if entry is not None:
            return entry
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
