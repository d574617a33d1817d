"""Whatever dies, a server, PostgreSQL or a listener's backend, subscribers at every server hold what is true."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from tests.support.bustle import Bustle
from tests.support.databases import admin_cursor
from tests.support.feed_history import remember
from tests.support.houses import House, house_with_servers, wait_for
from tests.support.watch import watch

Blow = Callable[[], object]

GAP_S = 0.5  # between two blows, and before what was killed is started again, at most
END_LISTENERS = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = current_database() AND query LIKE 'LISTEN%'
"""


def end_listeners(house: House) -> None:
    """Terminates the backend of each server's listener that has one."""
    with admin_cursor(house.dsn) as cursor:

        def ended() -> bool:
            cursor.execute(END_LISTENERS)
            return cursor.fetchone() != (0,)

        wait_for(ended, "a listener")


def blows(house: House, chance: Random) -> Iterator[tuple[str, Blow, Blow]]:
    """What is killed, and how it comes back, in any order: each once, of the servers and of PostgreSQL's ends one."""
    number, signal_number = chance.randrange(len(house.servers)), chance.choice([signal.SIGQUIT, signal.SIGKILL])
    server = house.servers[number]
    end, strike = chance.choice(
        [("stopped", house.stop_postgres), (signal_number.name, lambda: house.kill_postgres(signal_number))]
    )
    found: list[tuple[str, Blow, Blow]] = [
        (f"server {number}", server.kill, server.start),
        ("listeners", lambda: end_listeners(house), house.is_ready),
        (f"PostgreSQL: {end}", strike, house.start_postgres),
    ]
    chance.shuffle(found)
    yield from found


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.long)])
async def test_a_mirror_is_true_whatever_is_killed_while_two_servers_write(
    open_folder: Path, seed: int, rounds: int
) -> None:
    chance = Random(seed)
    house_of_two = house_with_servers(open_folder, 2)
    house = await asyncio.to_thread(house_of_two.__enter__)
    try:
        remember(house.dsn, slow_commits=True)
        bustle = Bustle(house.servers, seed)
        watched = watch(house.servers, house.dsn, seed)
        async with watched.during(bustle):
            with bustle.running():
                for what, strike, mend in [blow for _ in range(rounds) for blow in blows(house, chance)]:
                    print("killed:", what)
                    await asyncio.sleep(chance.uniform(0, GAP_S))
                    await asyncio.to_thread(strike)
                    await asyncio.sleep(chance.uniform(0, GAP_S))
                    await asyncio.to_thread(mend)
                    await asyncio.to_thread(wait_for, house.is_ready, "both servers ready")
        assert [watcher.resyncs for watcher in watched.watchers] == [0] * len(watched.watchers)
        for server in house.servers:
            assert "Traceback" not in server.log
    finally:
        await asyncio.to_thread(house_of_two.__exit__, None, None, None)
