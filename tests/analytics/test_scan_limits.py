"""Scans of instances have a time limit and take their turns. If too many wait, further ones are refused."""

import asyncio
from contextlib import AsyncExitStack, closing

import psycopg2
import pytest

from shm.analytics import filtered_kpis, instance_pages, single_flight_cache
from shm.analytics.histogram import read_histogram
from shm.analytics.instances import InstanceConditions, InstanceFilter
from shm.analytics.scan_limiter import MAX_WAITING, ScanLimiter
from shm.analytics.single_flight_cache import SingleFlightCache
from shm.analytics.sorting import Sorting
from shm.core.errors import DatabaseBusy, QueryTooSlow
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
            found = await read_histogram(pool, cache, scans, "atlas", "n", conditions, counted_only=False)
            return found.instances

        assert await read(InstanceConditions()) == 0
        with pytest.raises(DatabaseBusy):
            await read(InstanceConditions(version="1.0"))
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        await occupied.aclose()
        assert await read(InstanceConditions(version="1.0")) == 0


async def test_requests_that_wait_for_figures_of_a_fleet_have_a_limit(database: str) -> None:
    """Those that wait get the result. A further request for a figure that is not cached is refused."""
    released = asyncio.Event()

    async def compute() -> int:
        await released.wait()
        return 1

    async with Database.connect(Settings.load({}), database, size=1) as pool:
        cache = SingleFlightCache(pool.clock)
        waiting = [
            asyncio.create_task(cache.get(number % 2, compute)) for number in range(single_flight_cache.MAX_WAITING)
        ]
        await asyncio.sleep(0)
        with pytest.raises(DatabaseBusy):
            await cache.get(0, compute)
        released.set()
        assert {result for _, result in await asyncio.gather(*waiting)} == {1}
        assert (await cache.get(2, compute))[1] == 1


async def test_a_scan_has_one_time_limit(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No statement of it sets a longer one of its own."""
    for module in (filtered_kpis, instance_pages):
        monkeypatch.setattr(module, "MAX_SCAN_S", 0.1)
    execute(database, "INSERT INTO applications (slug, name) VALUES ('atlas', 'Atlas')")
    settings, scans = Settings.load({}), ScanLimiter(1)
    only = InstanceConditions(environment="production")
    async with Database.connect(settings, database, size=1) as pool, asyncio.timeout(9):
        kpis = filtered_kpis.FilteredKpiReader(pool, scans, settings)
        pages = instance_pages.InstancePages(pool, scans)
        with closing(psycopg2.connect(database)) as holder, holder.cursor() as lock:
            lock.execute("LOCK TABLE instances IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(QueryTooSlow):
                await kpis.read("atlas", only, counted_only=False)
            with pytest.raises(QueryTooSlow):
                await pages.read_after(InstanceFilter(), Sorting("app_version", "asc"), None, 10)
