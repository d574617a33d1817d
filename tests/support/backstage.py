"""What goes on in a server's background, done by the test: it holds the lock that servers would do it under.

So a test says when time is noticed and when snapshots are rolled up, by the very duties that a server has.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from shm import check, retention
from shm.database import Database
from shm.feed import Feed
from shm.keys import Keys
from shm.kpis import Kpis
from shm.locks import Lock
from shm.registry import Registry
from shm.retention import Duty
from shm.settings import Settings
from shm.spreads import Spreads
from tests.support.databases import admin_cursor

CONNECTIONS = 1


@dataclass(frozen=True)
class Backstage:
    """The duties of a database's background."""

    runner: asyncio.Runner
    database: Database
    duties: list[Duty]

    def go_round(self, *only: str) -> None:
        """Does all of them, or those of these names, until there is nothing left to do."""
        for duty in self.duties:
            if not only or duty.name in only:
                self.runner.run(_finish(duty))

    def differences(self) -> dict[str, list[check.Difference]]:
        """What `shm check` finds, by table."""
        return self.runner.run(check.find(self.database)).shown


async def _finish(duty: Duty) -> None:
    while await duty.step():
        pass


@contextmanager
def backstage(database: str, **environment: str) -> Iterator[Backstage]:
    """Holds servers' own background back while the context lasts: enter it before they start."""
    settings = Settings.load(environment)
    with admin_cursor(database) as cursor, asyncio.Runner() as runner:
        cursor.execute("SELECT pg_advisory_lock(%s)", [Lock.BACKGROUND])
        opened = Database.opened(settings, database, size=CONNECTIONS)
        own = runner.run(opened.__aenter__())
        try:
            registry = Registry(own, Keys(own, settings), settings)
            kpis = Kpis(own, Spreads(own), settings)
            feed = Feed(own, kpis, settings)
            yield Backstage(runner, own, retention.duties(own, registry, feed, settings))
        finally:
            runner.run(opened.__aexit__(None, None, None))
