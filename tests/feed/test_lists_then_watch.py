"""List, then watch: a subscriber that applies each message holds the same data as a new list, at every cursor."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest

from tests.support import plain_http
from tests.support.chaos import Chaos
from tests.support.clusters import wait_for
from tests.support.databases import admin_cursor
from tests.support.feed_history import record_history
from tests.support.installs import Install
from tests.support.server_process import ServerProcess
from tests.support.watcher_group import VIEWS, WatcherGroup, make_watcher_group

MAX_MESSAGES = 3  # before a watcher disconnects


async def run_chaos(group: WatcherGroup, chaos: Chaos, seconds: float = 0.0, feeds: int = 0) -> None:
    """Runs random changes for `seconds`, and until the watchers have connected `feeds` times."""
    with chaos.running():
        await asyncio.sleep(seconds)
        while group.feeds < feeds:
            assert chaos.is_running, "the changes ended before the watchers had connected often enough"
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("seconds", [1, pytest.param(120, marks=pytest.mark.long)])
async def test_a_mirror_is_true_at_every_cursor_of_two_servers(
    serve: Callable[..., ServerProcess], database: str, seed: int, seconds: float
) -> None:
    """Two servers write, and commits are slow."""
    servers = [serve(), serve()]
    record_history(database, slow_commits=True)
    chaos = Chaos(servers, seed)
    group = make_watcher_group(servers, database, seed)
    for watcher in group.watchers[::2]:
        watcher.max_messages, watcher.page_size = 20, 5
    async with group.watching(chaos):
        await run_chaos(group, chaos, seconds)
    assert [watcher.resyncs for watcher in group.watchers] == [0] * len(group.watchers)


@pytest.mark.long
async def test_a_mirror_is_true_over_many_reconnects_to_either_server(
    serve: Callable[..., ServerProcess], database: str, seed: int
) -> None:
    servers = [serve(), serve()]
    record_history(database)
    chaos = Chaos(servers, seed, rest_s=0.1)
    group = make_watcher_group(servers, database, seed, max_messages=MAX_MESSAGES, page_size=7)
    group.watchers.extend(make_watcher_group(servers, database, seed + 1, max_messages=MAX_MESSAGES).watchers)
    for watcher in group.watchers:
        watcher.ports = [server.port for server in servers]
    async with group.watching(chaos):
        await run_chaos(group, chaos, feeds=20_000)
    assert [watcher.resyncs for watcher in group.watchers] == [0] * len(group.watchers)


MOVES = (
    ("Ledger", "Kiosk", "Atlas"),
    ("Ledger", "Kiosk", "Atlas", "Kiosk"),
    ("Ledger", "Kiosk", "Atlas", "Ledger"),
    ("Ledger", "Kiosk", "Ledger"),
    ("Ledger", "Kiosk", None),
    ("Ledger", "Kiosk", "Atlas", None),
    ("Ledger", None, "Kiosk", "Atlas"),
)


def move_through(server: ServerProcess, install: Install, moves: Sequence[str | None]) -> None:
    """Moves an install through these applications. None deletes it; a later name registers it again."""
    for app in moves:
        if app is None:
            address = f"{server.url}/api/v1/admin/instances/{install.instance_id}"
            plain_http.delete(address, headers=server.headers).raise_for_status()
        else:
            assert install.register(app_name=app).is_success
            assert install.activate(datetime.now(UTC)).is_success  # an older request does not bring it back


@pytest.mark.parametrize("offline", [True, pytest.param(False, marks=pytest.mark.long)])
async def test_an_install_that_moves_is_in_one_application_only(
    server: ServerProcess, database: str, seed: int, offline: bool
) -> None:
    """An install that moved through several applications remains in the last one only."""
    chaos = Chaos([server], seed)
    record_history(database)
    installs = [Install(server.url, app_name="Ledger").enroll({"n": number}) for number in range(len(MOVES))]
    group = make_watcher_group([server], database, seed)
    async with group.watching(chaos, offline=offline):
        for install, moves in zip(installs, MOVES, strict=True):
            await asyncio.to_thread(move_through, server, install, moves[1:])
    views = {watcher.app: set(watcher.mirror) for watcher in group.watchers}
    assert views.keys() == set(VIEWS)
    for install, moves in zip(installs, MOVES, strict=True):
        assert [app for app in VIEWS[1:] if install.instance_id in views[app]] == [
            app.lower() for app in moves[-1:] if app
        ]


@pytest.mark.long
async def test_a_subscriber_away_too_long_lists_again(
    serve: Callable[..., ServerProcess], database: str, seed: int
) -> None:
    """A subscriber that was disconnected for longer than removals are stored gets a resync."""
    server = serve(SHM_FEED_MEMORY="1s")
    chaos = Chaos([server], seed)
    record_history(database)
    installs = [Install(server.url, app_name="Ledger").enroll() for _ in range(3)]
    group = make_watcher_group([server], database, seed, page_size=2)
    async with group.watching(chaos, offline=True):
        with admin_cursor(database) as cursor:
            move_through(server, installs[0], [None])
            cursor.execute("UPDATE removals SET removed_at = now() - interval '1 hour'")
            move_through(server, installs[1], ["Kiosk", "Atlas"])
            server.terminate()
            server.start()  # it deletes old removals at its start, and once a minute

            def has_horizon() -> bool:
                cursor.execute("SELECT horizon > 0 FROM feed_head")
                return cursor.fetchone() == (True,)

            await asyncio.to_thread(wait_for, has_horizon, "a horizon")
    assert [watcher.resyncs for watcher in group.watchers] == [1] * len(group.watchers)
