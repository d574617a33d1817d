"""The pace of an application's KPIs on the feed."""

import asyncio

import psycopg2

from shm.analytics.kpis import ApplicationKpis, KpiReader
from shm.analytics.percentiles import DistributionReader
from shm.core.settings import Settings
from shm.core.tasks import run_in_background
from shm.db.database import Database
from shm.feed.kpi_publisher import READ_INTERVAL_S, KpiPublisher
from tests.support.installs import Install
from tests.support.server_process import ServerProcess

SLOW_READ_S = 2 * READ_INTERVAL_S
LIMIT_S = 60


async def test_a_slow_read_of_kpis_is_not_followed_at_once_by_another(server: ServerProcess, database: str) -> None:
    await asyncio.to_thread(Install(server.url, app_name="Ledger").enroll, {"sent": 1})
    loop = asyncio.get_running_loop()
    published: asyncio.Queue[float] = asyncio.Queue()

    def publish(_cursor: int, kpis: ApplicationKpis) -> None:
        assert kpis.app == "ledger"
        published.put_nowait(loop.time())

    settings = Settings.load({})
    async with Database.connect(settings, database, size=1) as own:
        publisher = KpiPublisher(KpiReader(own, DistributionReader(own), settings))
        with psycopg2.connect(database) as blocking, blocking.cursor() as cursor:
            cursor.execute("LOCK TABLE applications")
            async with run_in_background(publisher.run(publish)):
                publisher.request(["ledger"])
                await asyncio.sleep(SLOW_READ_S)
                publisher.request(["ledger"])
                blocking.rollback()
                first = await asyncio.wait_for(published.get(), LIMIT_S)
                second = await asyncio.wait_for(published.get(), LIMIT_S)
    assert second - first >= READ_INTERVAL_S
