"""Limits concurrent scans of a whole fleet, so that other statements always find a free connection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shm.core.errors import DatabaseBusy

CONNECTIONS_PER_SCAN = 3  # one scan for this many connections of the pool, and at least one
MAX_SCAN_S = 10.0  # of all statements of a scan together: clients give up soon after
MAX_WAITING = 50  # a page of a large fleet takes a second: later clients would time out before their turn


class ScanLimiter:
    """A semaphore with a bounded number of waiters."""

    def __init__(self, connections: int) -> None:
        self._free = asyncio.Semaphore(max(1, connections // CONNECTIONS_PER_SCAN))
        self._waiting = 0

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Waits for a free slot and occupies it. Raises DatabaseBusy if too many wait already."""
        if self._waiting >= MAX_WAITING:
            raise DatabaseBusy(f"{self._waiting} scans wait")
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._free.release()
