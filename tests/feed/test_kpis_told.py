"""The feed's KPIs are those of the API, whatever it was that changed them."""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from random import Random
from typing import Any

import msgspec

from tests.support import plain_http
from tests.support.feed_checker import Received
from tests.support.feed_watcher import Watcher, plain
from tests.support.installs import Install
from tests.support.server_process import ServerProcess
from tests.support.time_travel import shift_times

LIMIT_S = 10
METRICS = {"sent": 3, "wait_avg": 1.5, "beta": True, "plan": "free"}

EDITS: list[dict[str, Any]] = [
    {"sent": {"label": "Letters", "unit": "EUR"}},
    {"sent": {"aggregate": "max"}},
    {"beta": {"hidden": True}, "plan": {"label": "Plan"}},
    {},
]


def kpis(server: ServerProcess, app: str) -> dict[str, Any]:
    """As the API answers them, without what tells when they were read."""
    return plain(msgspec.json.decode(server.get(f"applications/{app}/kpis").content))


def edit(server: ServerProcess, app: str, overrides: dict[str, Any]) -> None:
    """What the vendor says of an application."""
    url = f"{server.url}/api/v1/admin/applications/{app}"
    plain_http.put(url, headers=server.headers, json={"overrides": overrides}).raise_for_status()


def decide(server: ServerProcess, install: Install, decision: str) -> None:
    """What the vendor decides on an install."""
    url = f"{server.url}/api/v1/admin/instances/{install.instance_id}/{decision}"
    plain_http.post(url, headers=server.headers).raise_for_status()


class Listeners:
    """Watchers who stay: of the application and of all, at each server."""

    def __init__(self, servers: list[ServerProcess], app: str) -> None:
        self._servers = servers
        self._app = app
        self._watchers = [
            Watcher([server.port], server.headers, Random(0), view) for server in servers for view in (app, None)
        ]

    async def list(self) -> None:
        """All take their lists."""
        for watcher in self._watchers:
            await watcher.take_list()

    async def all_hear(self, *changes: Callable[[], object]) -> None:
        """After each change all are told, on the feeds that they have, the KPIs that the API then answers."""
        ended = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for watcher in self._watchers:
                group.create_task(watcher.follow(ended.is_set))
            await self._all(lambda watcher: isinstance(watcher.log[-1], Received), "a greeting")
            for number, change in enumerate(changes):
                await asyncio.to_thread(change)
                asked = await asyncio.to_thread(kpis, self._servers[0], self._app)
                await self._all(partial(self._has_heard, asked), f"KPIs after change {number}")
            ended.set()
        assert [watcher.feeds for watcher in self._watchers] == [1] * len(self._watchers)

    def _has_heard(self, asked: dict[str, Any], watcher: Watcher) -> bool:
        return watcher.said(self._app) == asked

    async def _all(self, condition: Callable[[Watcher], bool], what: str) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not all(condition(watcher) for watcher in self._watchers):
            assert time.monotonic() < deadline, f"never came: {what}"
            await asyncio.sleep(0.02)


async def test_an_edit_of_an_application_is_told_at_every_server(serve: Callable[..., ServerProcess]) -> None:
    servers = [serve(), serve()]
    Install(servers[0].url).enroll(METRICS)
    listeners = Listeners(servers, "ledger")
    await listeners.list()
    await listeners.all_hear(*(partial(edit, servers[0], "ledger", overrides) for overrides in EDITS))


async def test_an_install_that_falls_silent_leaves_the_kpis_that_are_told(server: ServerProcess, database: str) -> None:
    silent, alive = (Install(server.url).enroll({"sent": number}) for number in (3, 4))
    shift_times(database, timedelta(days=29))
    assert alive.snapshot({"sent": 5}).status_code == 202
    listeners = Listeners([server], "ledger")
    await listeners.list()
    values: list[list[int]] = []

    def pass_away(days: int) -> None:
        shift_times(database, timedelta(days=days))
        values.append([kpi["value"] for kpi in kpis(server, "ledger")["kpis"]])

    await listeners.all_hear(partial(pass_away, 2), partial(pass_away, 29), lambda: silent.snapshot({"sent": 6}))
    assert values == [[5], []]


async def test_decisions_moves_and_erasures_publish_kpis(
    serve: Callable[..., ServerProcess],
) -> None:
    """Decisions moves and erasures are told as what they make of the kpis."""
    servers = [serve(SHM_ACTIVATION="manual"), serve(SHM_ACTIVATION="manual")]
    installs = [Install(servers[0].url) for _ in range(4)]
    for install in installs:
        install.register()
        install.activate()
    for install in installs[1:]:
        decide(servers[0], install, "approve")
        assert install.snapshot(METRICS).status_code == 202
    first, revoked, erased, moved = installs
    listeners = Listeners(servers, "ledger")
    await listeners.list()

    def erase() -> None:
        url = f"{servers[1].url}/api/v1/admin/instances/{erased.instance_id}"
        plain_http.delete(url, headers=servers[1].headers).raise_for_status()

    def move() -> None:
        assert moved.register(app_name="Kiosk").is_success
        assert moved.activate().is_success

    await listeners.all_hear(
        lambda: decide(servers[0], first, "approve"),
        lambda: decide(servers[1], revoked, "revoke"),
        erase,
        move,
        lambda: first.snapshot({"sent": 9}),
    )
