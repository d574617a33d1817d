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
from tests.support.feed_history import CursorSamples, read_history
from tests.support.feed_watcher import MESSAGE_TIMEOUT_S, Watcher, without_read_times
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
    async def watching(self, chaos: Chaos, *, offline: bool = False) -> AsyncIterator[None]:
        """All watchers list, then follow the feed during the context, or only after it if `offline`; then checks them.

        At the end of the context they keep their connections, so that they receive the last changes and their KPIs.
        """
        last: dict[str | None, int] = {}
        cursor_samples = CursorSamples()
        with cursor_samples.sampling(self.database):
            for watcher in self.watchers:
                if watcher.cursor is None:
                    await watcher.fetch_list()
            async with asyncio.TaskGroup() as group:
                if offline:
                    yield
                for watcher in self.watchers:
                    group.create_task(watcher.follow(partial(watcher.has_reached, last)))
                if not offline:
                    yield
                for watcher in self.watchers:
                    watcher.max_messages, watcher.silence_timeout_s = None, MESSAGE_TIMEOUT_S
                last |= await asyncio.to_thread(chaos.send_final_snapshots, self.database)
        await self._check(cursor_samples, last)

    async def _check(self, cursor_samples: CursorSamples, last: dict[str | None, int]) -> None:
        """Asserts that each log matches the history, each mirror a fresh list, and the KPIs those of the API."""
        truth = await asyncio.to_thread(read_history, self.database)
        checked = 0
        for watcher in self.watchers:
            checked += check_log(watcher.log, watcher.app, truth, cursor_samples)
            assert watcher.items == truth.newest(watcher.app) == await self._read_list(watcher.app)
            for app in watcher.changed_apps(last):
                assert watcher.latest_kpis(app) == without_read_times(await asyncio.to_thread(self.kpis, app))
        print(f"{len(self.watchers)} watchers were checked at {checked} cursors in {self.feeds} feeds")

    @property
    def feeds(self) -> int:
        """The number of feeds that they have opened."""
        return sum(watcher.feeds for watcher in self.watchers)

    def kpis(self, app: str) -> dict[str, Any]:
        """The KPIs of an application from the API."""
        response: dict[str, Any] = msgspec.json.decode(self.servers[0].get(f"applications/{app}/kpis").content)
        return response

    async def _read_list(self, app: str | None) -> dict[str, Any]:
        watcher = Watcher([self.servers[0].port], self.servers[0].headers, Random(0), app)
        await watcher.fetch_list()
        return watcher.items


def make_watcher_group(
    servers: Sequence[ServerProcess], database: str, seed: int, ports: Sequence[int] = (), **options: Any
) -> WatcherGroup:
    """A watcher of each view at each server or port, and one of all that uses any port and reads exports."""
    ports = ports or [server.port for server in servers]
    assignments = [([port], view) for port in ports for view in VIEWS] + [(ports, None)]
    watchers = [
        Watcher(each, servers[0].headers, Random(seed + number), view, **options)
        for number, (each, view) in enumerate(assignments)
    ]
    watchers[-1].exports = True
    return WatcherGroup(servers, database, watchers)
