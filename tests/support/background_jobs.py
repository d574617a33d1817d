"""What goes on in a server's background, done by the test: it holds the lock that servers would do it under.

So a test says when time is noticed and when snapshots are rolled up, by the very duties that a server has.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from shm.analytics import consistency
from shm.analytics.kpis import KpiReader
from shm.analytics.percentiles import DistributionReader
from shm.core.settings import Settings
from shm.db.advisory_locks import Lock
from shm.db.database import Database
from shm.feed.hub import Feed
from shm.ingest.key_cache import PublicKeyCache
from shm.ingest.registry import Registry
from shm.server import background_jobs
from shm.server.background_jobs import Job
from tests.support.databases import admin_cursor

CONNECTIONS = 1


@dataclass(frozen=True)
class BackgroundJobs:
    """The duties of a database's background."""

    runner: asyncio.Runner
    database: Database
    jobs: list[Job]

    def run(self, *only: str) -> None:
        """Does all of them, or those of these names, until there is nothing left to do."""
        for job in self.jobs:
            if not only or job.name in only:
                self.runner.run(_finish(job))

    def differences(self) -> dict[str, list[consistency.Difference]]:
        """What `shm check` finds, by table."""
        return self.runner.run(consistency.find_differences(self.database)).examples


async def _finish(job: Job) -> None:
    while await job.step():
        pass


@contextmanager
def run_background_jobs(database: str, **environment: str) -> Iterator[BackgroundJobs]:
    """Holds servers' own background back while the context lasts: enter it before they start."""
    settings = Settings.load(environment)
    with admin_cursor(database) as cursor, asyncio.Runner() as runner:
        cursor.execute("SELECT pg_advisory_lock(%s)", [Lock.BACKGROUND])
        opened = Database.connect(settings, database, size=CONNECTIONS)
        own = runner.run(opened.__aenter__())
        try:
            registry = Registry(own, PublicKeyCache(own, settings), settings)
            kpis = KpiReader(own, DistributionReader(own), settings)
            feed = Feed(own, kpis, settings)
            yield BackgroundJobs(runner, own, background_jobs.jobs(own, registry, feed, settings))
        finally:
            runner.run(opened.__aexit__(None, None, None))
