"""List, then make_watcher_group: whoever applies what comes holds what a fresh list shows, at every cursor."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from tests.support import plain_http
from tests.support.chaos import Chaos
from tests.support.clusters import wait_for
from tests.support.databases import admin_cursor
from tests.support.feed_history import remember
from tests.support.installs import Install
from tests.support.server_process import ServerProcess
from tests.support.watcher_group import VIEWS, WatcherGroup, make_watcher_group

MOST_MESSAGES = 3  # before a restless watcher leaves


async def bustling(watched: WatcherGroup, chaos: Chaos, seconds: float = 0.0, feeds: int = 0) -> None:
    """For so long, and until the watchers have come so often."""
    with chaos.running():
        await asyncio.sleep(seconds)
        while watched.feeds < feeds:
            assert chaos.is_running, "it is over before they have come so often"
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("seconds", [4, pytest.param(120, marks=pytest.mark.long)])
async def test_a_mirror_is_true_at_every_cursor_of_two_servers(
    serve: Callable[..., ServerProcess], database: str, seed: int, seconds: float
) -> None:
    """A mirror is true at every cursor while two servers write and commits are slow."""
    servers = [serve(), serve()]
    remember(database, slow_commits=True)
    chaos = Chaos(servers, seed)
    watched = make_watcher_group(servers, database, seed)
    for watcher in watched.watchers[::2]:
        watcher.leaves_after, watcher.page = 20, 5
    async with watched.watching(chaos):
        await bustling(watched, chaos, seconds)
    assert [watcher.resyncs for watcher in watched.watchers] == [0] * len(watched.watchers)


@pytest.mark.parametrize("feeds", [250, pytest.param(20_000, marks=pytest.mark.long)])
async def test_a_mirror_is_true_over_many_reconnects_to_either_server(
    serve: Callable[..., ServerProcess], database: str, seed: int, feeds: int
) -> None:
    servers = [serve(), serve()]
    remember(database)
    chaos = Chaos(servers, seed, rest_s=0.1)
    watched = make_watcher_group(servers, database, seed, leaves_after=MOST_MESSAGES, page=7)
    watched.watchers.extend(make_watcher_group(servers, database, seed + 1, leaves_after=MOST_MESSAGES).watchers)
    for watcher in watched.watchers:
        watcher.ports = [server.port for server in servers]
    async with watched.watching(chaos):
        await bustling(watched, chaos, feeds=feeds)
    assert [watcher.resyncs for watcher in watched.watchers] == [0] * len(watched.watchers)


WAYS = (
    ("Ledger", "Kiosk", "Atlas"),
    ("Ledger", "Kiosk", "Atlas", "Kiosk"),
    ("Ledger", "Kiosk", "Atlas", "Ledger"),
    ("Ledger", "Kiosk", "Ledger"),
    ("Ledger", "Kiosk", None),
    ("Ledger", "Kiosk", "Atlas", None),
    ("Ledger", None, "Kiosk", "Atlas"),
)


def go(server: ServerProcess, install: Install, way: Sequence[str | None]) -> None:
    """From application to application; None: it is deleted, and may come again."""
    for app in way:
        if app is None:
            address = f"{server.url}/api/v1/admin/instances/{install.instance_id}"
            plain_http.delete(address, headers=server.headers).raise_for_status()
        else:
            assert install.register(app_name=app).is_success
            assert install.activate().is_success


@pytest.mark.parametrize("away", [True, False])
async def test_an_install_that_moves_is_in_one_application_only(
    server: ServerProcess, database: str, seed: int, away: bool
) -> None:
    """An install that went through several applications is left behind in none."""
    chaos = Chaos([server], seed)
    remember(database)
    installs = [Install(server.url, app_name="Ledger").enroll({"n": number}) for number in range(len(WAYS))]
    watched = make_watcher_group([server], database, seed)
    async with watched.watching(chaos, away=away):
        for install, way in zip(installs, WAYS, strict=True):
            await asyncio.to_thread(go, server, install, way[1:])
    views = {watcher.app: set(watcher.mirror) for watcher in watched.watchers}
    assert views.keys() == set(VIEWS)
    for install, way in zip(installs, WAYS, strict=True):
        assert [app for app in VIEWS[1:] if install.instance_id in views[app]] == [
            app.lower() for app in way[-1:] if app
        ]


async def test_a_subscriber_away_too_long_lists_again(
    serve: Callable[..., ServerProcess], database: str, seed: int
) -> None:
    """Whoever was away for longer than removals are remembered lists again."""
    server = serve(SHM_FEED_MEMORY="1s")
    chaos = Chaos([server], seed)
    remember(database)
    installs = [Install(server.url, app_name="Ledger").enroll() for _ in range(3)]
    watched = make_watcher_group([server], database, seed, page=2)
    async with watched.watching(chaos, away=True):
        with admin_cursor(database) as cursor:
            go(server, installs[0], [None])
            cursor.execute("UPDATE removals SET removed_at = now() - interval '1 hour'")
            go(server, installs[1], ["Kiosk", "Atlas"])
            server.terminate()
            server.start()  # it forgets at its start, and once a minute

            def forgotten() -> bool:
                cursor.execute("SELECT horizon > 0 FROM feed_head")
                return cursor.fetchone() == (True,)

            await asyncio.to_thread(wait_for, forgotten, "a horizon")
    assert [watcher.resyncs for watcher in watched.watchers] == [1] * len(watched.watchers)
