"""A server with open feeds stops on SIGTERM at any time, and its subscribers continue from their cursors."""

import asyncio
from collections.abc import Callable
from random import Random

import pytest

from tests.support.chaos import Chaos
from tests.support.feed_history import record_history
from tests.support.server_process import ServerProcess
from tests.support.watcher_group import make_watcher_group

ROUNDS = 150
MAX_UPTIME_S = 1.0  # from a start to the next stop: during start-up, or well after it


@pytest.mark.long
async def test_subscribers_miss_nothing_when_servers_stop_at_any_time(
    serve: Callable[..., ServerProcess], database: str, seed: int
) -> None:
    rng = Random(seed)
    servers = [serve(), serve()]
    record_history(database)
    chaos = Chaos(servers, seed)
    group = make_watcher_group(servers, database, seed)
    async with group.watching(chaos):
        with chaos.running():
            for _ in range(ROUNDS):
                server = rng.choice(servers)
                await asyncio.sleep(rng.uniform(0, MAX_UPTIME_S))
                assert await asyncio.to_thread(server.terminate) == 0
                await asyncio.to_thread(server.start)
    assert [watcher.resyncs for watcher in group.watchers] == [0] * len(group.watchers)
    for server in servers:
        assert "Traceback" not in server.log
