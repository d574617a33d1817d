"""Subscribers hold the true state after a server, PostgreSQL or a listener's backend is killed."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from tests.support.chaos import Chaos
from tests.support.clusters import Cluster, cluster_of_servers, wait_for
from tests.support.databases import admin_cursor
from tests.support.feed_history import record_history
from tests.support.watcher_group import make_watcher_group

Action = Callable[[], object]

MAX_PAUSE_S = 0.5  # between two failures, and between a failure and the recovery
END_LISTENERS = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = current_database() AND query LIKE 'LISTEN%'
"""


def end_listeners(cluster: Cluster) -> None:
    """Terminates the backend of each server's listener that has one."""
    with admin_cursor(cluster.dsn) as cursor:

        def terminated() -> bool:
            cursor.execute(END_LISTENERS)
            return cursor.fetchone() != (0,)

        wait_for(terminated, "a listener")


def failures(cluster: Cluster, rng: Random) -> Iterator[tuple[str, Action, Action]]:
    """Failures with their recovery in random order: a server, the listeners, and one way of stopping PostgreSQL."""
    number, signal_number = rng.randrange(len(cluster.servers)), rng.choice([signal.SIGQUIT, signal.SIGKILL])
    server = cluster.servers[number]
    mode, fail = rng.choice(
        [("stopped", cluster.stop_postgres), (signal_number.name, lambda: cluster.kill_postgres(signal_number))]
    )
    all_failures: list[tuple[str, Action, Action]] = [
        (f"server {number}", server.kill, server.start),
        ("listeners", lambda: end_listeners(cluster), cluster.is_ready),
        (f"PostgreSQL: {mode}", fail, cluster.start_postgres),
    ]
    rng.shuffle(all_failures)
    yield from all_failures


ROUNDS = 20


@pytest.mark.long
async def test_a_mirror_is_true_after_servers_or_postgresql_are_killed(postgres_dir: Path, seed: int) -> None:
    rng = Random(seed)
    cluster_of_two = cluster_of_servers(postgres_dir, 2)
    cluster = await asyncio.to_thread(cluster_of_two.__enter__)
    try:
        record_history(cluster.dsn, slow_commits=True)
        chaos = Chaos(cluster.servers, seed)
        group = make_watcher_group(cluster.servers, cluster.dsn, seed)
        async with group.watching(chaos):
            with chaos.running():
                for description, fail, recover in [
                    failure for _ in range(ROUNDS) for failure in failures(cluster, rng)
                ]:
                    print("killed:", description)
                    await asyncio.sleep(rng.uniform(0, MAX_PAUSE_S))
                    await asyncio.to_thread(fail)
                    await asyncio.sleep(rng.uniform(0, MAX_PAUSE_S))
                    await asyncio.to_thread(recover)
                    await asyncio.to_thread(wait_for, cluster.is_ready, "both servers ready")
        assert [watcher.resyncs for watcher in group.watchers] == [0] * len(group.watchers)
        for server in cluster.servers:
            assert "Traceback" not in server.log
    finally:
        await asyncio.to_thread(cluster_of_two.__exit__, None, None, None)
