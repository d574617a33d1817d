"""Scans over a filter take their turns: beyond a number of waiting ones, further ones are refused."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from shm.analytics.histogram import read_histogram
from shm.analytics.instances import InstanceConditions
from shm.analytics.scan_limiter import MAX_WAITING, ScanLimiter
from shm.analytics.single_flight_cache import SingleFlightCache
from shm.core.errors import DatabaseBusy
from shm.core.settings import Settings
from shm.db.database import Database
from tests.support.databases import execute


async def test_a_histogram_over_a_filter_waits_for_its_turn(database: str) -> None:
    execute(database, "INSERT INTO applications (slug, name) VALUES ('atlas', 'Atlas')")
    async with Database.connect(Settings.load({}), database, size=1) as pool, AsyncExitStack() as occupied:
        cache, scans = SingleFlightCache(pool.clock), ScanLimiter(1)
        await occupied.enter_async_context(scans.slot())
        waiting = [asyncio.create_task(occupied.enter_async_context(scans.slot())) for _ in range(MAX_WAITING)]
        await asyncio.sleep(0)

        async def read(conditions: InstanceConditions) -> int:
            histogram = await read_histogram(pool, cache, scans, "atlas", "n", conditions, counted_only=False)
            return histogram.instances

        assert await read(InstanceConditions()) == 0
        with pytest.raises(DatabaseBusy):
            await read(InstanceConditions(version="1.0"))
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        await occupied.aclose()
        assert await read(InstanceConditions(version="1.0")) == 0
