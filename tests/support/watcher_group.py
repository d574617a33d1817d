"""Feed watchers of a fleet under concurrent changes, and the checks on them afterwards."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

import msgspec

from tests.support.chaos import Chaos
from tests.support.feed_checker import check_log
from tests.support.feed_history import Heads, history
from tests.support.feed_watcher import LIMIT_S, Watcher, plain
from tests.support.server_process import ServerProcess

APPS = ("ledger", "kiosk", "atlas")


VIEWS = (None, *APPS)


@dataclass(frozen=True)
class WatcherGroup:
    """Watchers on servers with one database."""

    servers: Sequence[ServerProcess]
    database: str
    watchers: list[Watcher]

    @asynccontextmanager
    async def watching(self, chaos: Chaos, *, away: bool = False) -> AsyncIterator[None]:
        """All watchers list, then follow the feed during the context, or after it if `away`; then they are checked.

        From its end on they stay where they are, so that what comes last, and its KPIs, reaches them.
        """
        last: dict[str | None, int] = {}
        heads = Heads()
        with heads.watched(self.database):
            for watcher in self.watchers:
                if watcher.cursor is None:
                    await watcher.take_list()
            async with asyncio.TaskGroup() as group:
                if away:
                    yield
                for watcher in self.watchers:
                    group.create_task(watcher.follow(partial(watcher.has_reached, last)))
                if not away:
                    yield
                for watcher in self.watchers:
                    watcher.leaves_after, watcher.patience_s = None, LIMIT_S
                last |= await asyncio.to_thread(chaos.send_final_snapshots, self.database)
        await self._hold(heads, last)

    async def _hold(self, heads: Heads, last: dict[str | None, int]) -> None:
        """Each one's log is true, its mirror a fresh list, and its KPIs are those of the API."""
        truth = await asyncio.to_thread(history, self.database)
        held = 0
        for watcher in self.watchers:
            held += check_log(watcher.log, watcher.app, truth, heads)
            assert watcher.items == truth.newest(watcher.app) == await self._listed(watcher.app)
            for app in watcher.awaited(last):
                assert watcher.said(app) == plain(await asyncio.to_thread(self.kpis, app))
        print(f"{len(self.watchers)} watchers were held at {held} cursors in {self.feeds} feeds")

    @property
    def feeds(self) -> int:
        """How often they have come."""
        return sum(watcher.feeds for watcher in self.watchers)

    def kpis(self, app: str) -> dict[str, Any]:
        """As the API answers them."""
        answer: dict[str, Any] = msgspec.json.decode(self.servers[0].get(f"applications/{app}/kpis").content)
        return answer

    async def _listed(self, app: str | None) -> dict[str, Any]:
        newcomer = Watcher([self.servers[0].port], self.servers[0].headers, Random(0), app)
        await newcomer.take_list()
        return newcomer.items


def make_watcher_group(
    servers: Sequence[ServerProcess], database: str, seed: int, ports: Sequence[int] = (), **said: Any
) -> WatcherGroup:
    """At each server, or port, a watcher of each view; and one of all that takes whichever it gets, and exports."""
    ports = ports or [server.port for server in servers]
    seats = [([port], view) for port in ports for view in VIEWS] + [(ports, None)]
    watchers = [
        Watcher(each, servers[0].headers, Random(seed + number), view, **said)
        for number, (each, view) in enumerate(seats)
    ]
    watchers[-1].exports = True
    return WatcherGroup(servers, database, watchers)
