"""Whatever dies, a server, PostgreSQL or a listener's backend, subscribers at every server hold what is true."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from tests.support.chaos import Chaos
from tests.support.clusters import Cluster, cluster_of_servers, wait_for
from tests.support.databases import admin_cursor
from tests.support.feed_history import remember
from tests.support.watcher_group import make_watcher_group

Blow = Callable[[], object]

GAP_S = 0.5  # between two blows, and before what was killed is started again, at most
END_LISTENERS = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = current_database() AND query LIKE 'LISTEN%'
"""


def end_listeners(cluster: Cluster) -> None:
    """Terminates the backend of each server's listener that has one."""
    with admin_cursor(cluster.dsn) as cursor:

        def ended() -> bool:
            cursor.execute(END_LISTENERS)
            return cursor.fetchone() != (0,)

        wait_for(ended, "a listener")


def blows(cluster: Cluster, chance: Random) -> Iterator[tuple[str, Blow, Blow]]:
    """What is killed, and how it comes back, in any order: each once, of the servers and of PostgreSQL's ends one."""
    number, signal_number = chance.randrange(len(cluster.servers)), chance.choice([signal.SIGQUIT, signal.SIGKILL])
    server = cluster.servers[number]
    end, strike = chance.choice(
        [("stopped", cluster.stop_postgres), (signal_number.name, lambda: cluster.kill_postgres(signal_number))]
    )
    found: list[tuple[str, Blow, Blow]] = [
        (f"server {number}", server.kill, server.start),
        ("listeners", lambda: end_listeners(cluster), cluster.is_ready),
        (f"PostgreSQL: {end}", strike, cluster.start_postgres),
    ]
    chance.shuffle(found)
    yield from found


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.long)])
async def test_a_mirror_is_true_whatever_is_killed_while_two_servers_write(
    postgres_dir: Path, seed: int, rounds: int
) -> None:
    chance = Random(seed)
    cluster_of_two = cluster_of_servers(postgres_dir, 2)
    cluster = await asyncio.to_thread(cluster_of_two.__enter__)
    try:
        remember(cluster.dsn, slow_commits=True)
        chaos = Chaos(cluster.servers, seed)
        watched = make_watcher_group(cluster.servers, cluster.dsn, seed)
        async with watched.watching(chaos):
            with chaos.running():
                for what, strike, mend in [blow for _ in range(rounds) for blow in blows(cluster, chance)]:
                    print("killed:", what)
                    await asyncio.sleep(chance.uniform(0, GAP_S))
                    await asyncio.to_thread(strike)
                    await asyncio.sleep(chance.uniform(0, GAP_S))
                    await asyncio.to_thread(mend)
                    await asyncio.to_thread(wait_for, cluster.is_ready, "both servers ready")
        assert [watcher.resyncs for watcher in watched.watchers] == [0] * len(watched.watchers)
        for server in cluster.servers:
            assert "Traceback" not in server.log
    finally:
        await asyncio.to_thread(cluster_of_two.__exit__, None, None, None)
