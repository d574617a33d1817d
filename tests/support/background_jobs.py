"""A server's background jobs, run by the test at the moments that it chooses.

The test holds the advisory lock that a server needs to run them, so servers on the same database run none.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from shm.analytics import consistency
from shm.analytics.kpis import KpiReader
from shm.analytics.percentiles import DistributionReader
from shm.core.settings import Settings
from shm.db.advisory_locks import Lock
from shm.db.database import Database
from shm.feed.hub import FeedHub
from shm.ingest.enrolment import EnrolmentWriter
from shm.ingest.erasure import Eraser
from shm.ingest.key_cache import PublicKeyCache
from shm.ingest.registry import Registry
from shm.server import background_jobs
from shm.server.background_jobs import Job
from tests.support.clusters import wait_for
from tests.support.databases import admin_cursor, execute, select_column
from tests.support.installs import Install
from tests.support.server_process import ServerProcess

ROLLED_UP_SQL = "SELECT s.cursor = f.cursor AND NOT s.stale FROM series_head s, feed_head f"
CONNECTIONS = 1


@dataclass(frozen=True)
class BackgroundJobs:
    """The background jobs of a database."""

    runner: asyncio.Runner
    database: Database
    jobs: list[Job]

    def run(self, *only: str) -> None:
        """Runs all jobs, or those with these names, until no work is left."""
        for job in self.jobs:
            if not only or job.name in only:
                self.runner.run(_finish(job))

    def steps(self, name: str) -> Iterator[None]:
        """Runs one job step by step, until no work is left."""
        (job,) = [job for job in self.jobs if job.name == name]
        while self.runner.run(_step(job)):
            yield

    def differences(self) -> dict[str, list[consistency.Difference]]:
        """The differences that `shm check` reports, by table."""
        return self.runner.run(consistency.find_differences(self.database, lambda *_: None)).examples


async def _step(job: Job) -> bool:
    return bool(await job.step())


async def _finish(job: Job) -> None:
    while await job.step():
        pass


@contextmanager
def run_background_jobs(database: str, **environment: str) -> Iterator[BackgroundJobs]:
    """Keeps servers from running their background jobs during the context. Enter it before the servers start."""
    settings = Settings.load(environment)
    with admin_cursor(database) as cursor, asyncio.Runner() as runner:
        cursor.execute("SELECT pg_advisory_lock(%s)", [Lock.BACKGROUND])
        opened = Database.connect(settings, database, size=CONNECTIONS)
        own = runner.run(opened.__aenter__())
        try:
            keys = PublicKeyCache(own, settings)
            enrolment = EnrolmentWriter(own, settings, asyncio.Lock())
            registry, eraser = Registry(own, keys, enrolment), Eraser(own, keys, settings)
            kpis = KpiReader(own, DistributionReader(own), settings)
            feed = FeedHub(own, kpis, settings)
            yield BackgroundJobs(runner, own, background_jobs.jobs(own, registry, eraser, feed, settings))
        finally:
            runner.run(opened.__aexit__(None, None, None))


def wait_until_rolled_up(database: str) -> None:
    """Waits until all snapshots are in the series."""
    wait_for(lambda: select_column(database, ROLLED_UP_SQL) == [True], "the rollup")


@contextmanager
def expired_pending_install(server: ServerProcess, database: str) -> Iterator[Callable[[], bool]]:
    """A pending install past its age. Yields a function that returns whether the purge, a later job, has deleted it."""
    install = Install(server.url)
    assert install.register().status_code == 201
    execute(
        database,
        "UPDATE instances SET registered_at = now() - interval '3 days' WHERE instance_id = %s",
        install.instance_id,
    )
    yield (
        lambda: (
            select_column(database, "SELECT count(*) FROM instances WHERE instance_id = %s", install.instance_id) == [0]
        )
    )
