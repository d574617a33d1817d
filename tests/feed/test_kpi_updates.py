"""The feed sends the same KPIs as the API after every kind of change."""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from random import Random
from typing import Any

import msgspec
import pytest

from tests.support import plain_http
from tests.support.feed_checker import Received
from tests.support.feed_watcher import Watcher, without_read_times
from tests.support.installs import Install
from tests.support.server_process import ServerProcess
from tests.support.time_travel import shift_times

TIMEOUT_S = 60
METRICS = {"sent": 3, "wait_avg": 1.5, "beta": True, "plan": "free"}

OVERRIDES: list[dict[str, Any]] = [
    {"sent": {"label": "Letters", "unit": "EUR"}},
    {"sent": {"aggregate": "max"}},
    {"beta": {"hidden": True}, "plan": {"label": "Plan"}},
    {},
]


def fetch_kpis(server: ServerProcess, app: str) -> dict[str, Any]:
    """The KPIs from the API, without the time at which they were read."""
    return without_read_times(msgspec.json.decode(server.get(f"applications/{app}/kpis").content))


def set_overrides(server: ServerProcess, app: str, overrides: dict[str, Any]) -> None:
    """Sets the overrides of an application."""
    url = f"{server.url}/api/v1/admin/applications/{app}"
    plain_http.put(url, headers=server.headers, json={"overrides": overrides}).raise_for_status()


def set_status(server: ServerProcess, install: Install, action: str) -> None:
    """Approves or revokes an install."""
    url = f"{server.url}/api/v1/admin/instances/{install.instance_id}/{action}"
    plain_http.post(url, headers=server.headers).raise_for_status()


class WatchedApplication:
    """Watchers of one application and of all, at each server, on one feed each."""

    def __init__(self, servers: list[ServerProcess], app: str) -> None:
        self._servers = servers
        self._app = app
        self._watchers = [
            Watcher([server.port], server.headers, Random(0), view) for server in servers for view in (app, None)
        ]

    async def list(self) -> None:
        """Every watcher lists."""
        for watcher in self._watchers:
            await watcher.fetch_list()

    async def expect_kpis_after(self, *changes: Callable[[], object]) -> None:
        """Makes each change, and waits until every watcher has received the KPIs that the API returns after it."""
        finished = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for watcher in self._watchers:
                group.create_task(watcher.follow(finished.is_set))
            await self._wait_for_all(lambda watcher: isinstance(watcher.log[-1], Received), "hello")
            for number, change in enumerate(changes):
                await asyncio.to_thread(change)
                expected = await asyncio.to_thread(fetch_kpis, self._servers[0], self._app)
                await self._wait_for_all(partial(self._has_received, expected), f"KPIs after change {number}")
            finished.set()
        assert [watcher.feeds for watcher in self._watchers] == [1] * len(self._watchers)

    def _has_received(self, expected: dict[str, Any], watcher: Watcher) -> bool:
        return watcher.latest_kpis(self._app) == expected

    async def _wait_for_all(self, condition: Callable[[Watcher], bool], expectation: str) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not all(condition(watcher) for watcher in self._watchers):
            assert time.monotonic() < deadline, f"not received: {expectation}"
            await asyncio.sleep(0.02)


@pytest.mark.long
async def test_an_edit_publishes_kpis_at_every_server(serve: Callable[..., ServerProcess]) -> None:
    servers = [serve(), serve()]
    Install(servers[0].url).enroll(METRICS)
    watched = WatchedApplication(servers, "ledger")
    await watched.list()
    await watched.expect_kpis_after(
        *(partial(set_overrides, servers[0], "ledger", overrides) for overrides in OVERRIDES)
    )


async def test_a_silent_install_leaves_the_published_kpis(server: ServerProcess, database: str) -> None:
    silent, alive = (Install(server.url).enroll({"sent": number}) for number in (3, 4))
    shift_times(database, timedelta(days=29))
    assert alive.snapshot({"sent": 5}).status_code == 202
    watched = WatchedApplication([server], "ledger")
    await watched.list()
    values: list[list[int]] = []

    def let_time_pass(days: int) -> None:
        shift_times(database, timedelta(days=days))
        values.append([kpi["value"] for kpi in fetch_kpis(server, "ledger")["kpis"]])

    await watched.expect_kpis_after(
        partial(let_time_pass, 2), partial(let_time_pass, 29), lambda: silent.snapshot({"sent": 6})
    )
    assert values == [[5], []]


async def test_decisions_moves_and_erasures_publish_kpis(
    serve: Callable[..., ServerProcess],
) -> None:
    servers = [serve(SHM_ACTIVATION="manual"), serve(SHM_ACTIVATION="manual")]
    installs = [Install(servers[0].url) for _ in range(4)]
    for install in installs:
        install.register()
        install.activate()
    for install in installs[1:]:
        set_status(servers[0], install, "approve")
        assert install.snapshot(METRICS).status_code == 202
    first, revoked, erased, moved = installs
    watched = WatchedApplication(servers, "ledger")
    await watched.list()

    def erase() -> None:
        url = f"{servers[1].url}/api/v1/admin/instances/{erased.instance_id}"
        plain_http.delete(url, headers=servers[1].headers).raise_for_status()

    def move() -> None:
        assert moved.register(app_name="Kiosk").is_success
        assert moved.activate().is_success

    await watched.expect_kpis_after(
        lambda: set_status(servers[0], first, "approve"),
        lambda: set_status(servers[1], revoked, "revoke"),
        erase,
        move,
        lambda: first.snapshot({"sent": 9}),
    )
