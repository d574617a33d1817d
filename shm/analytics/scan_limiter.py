"""Reads that may look at a whole fleet: few at a time, so that others, the intake's too, always find a connection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shm.core.errors import DatabaseBusy

CONNECTIONS_PER_SCAN = 3  # of the pool's connections one in so many, and at least one
MAX_WAITING = 50  # a page of a large fleet takes a second: who comes later would give up before its turn


class ScanLimiter:
    """Who may scan, and who waits for it."""

    def __init__(self, connections: int) -> None:
        self._free = asyncio.Semaphore(max(1, connections // CONNECTIONS_PER_SCAN))
        self._waiting = 0

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Waits until it may scan. Raises DatabaseBusy where too many wait already."""
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
