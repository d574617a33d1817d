"""A server that is told to end does so whatever its feeds are at, and its subscribers go on where they were."""

import asyncio
from collections.abc import Callable
from random import Random

import pytest

from tests.support.chaos import Chaos
from tests.support.feed_history import remember
from tests.support.server_process import ServerProcess
from tests.support.watcher_group import make_watcher_group

LONGEST_S = 1.0  # from a start to the next end: from the middle of coming back to well after it


@pytest.mark.parametrize("rounds", [4, pytest.param(150, marks=pytest.mark.long)])
async def test_servers_end_at_any_moment_and_their_subscribers_miss_nothing(
    serve: Callable[..., ServerProcess], database: str, seed: int, rounds: int
) -> None:
    chance = Random(seed)
    servers = [serve(), serve()]
    remember(database)
    chaos = Chaos(servers, seed)
    watched = make_watcher_group(servers, database, seed)
    async with watched.watching(chaos):
        with chaos.running():
            for _ in range(rounds):
                server = chance.choice(servers)
                await asyncio.sleep(chance.uniform(0, LONGEST_S))
                assert await asyncio.to_thread(server.terminate) == 0
                await asyncio.to_thread(server.start)
    assert [watcher.resyncs for watcher in watched.watchers] == [0] * len(watched.watchers)
    for server in servers:
        assert "Traceback" not in server.log
