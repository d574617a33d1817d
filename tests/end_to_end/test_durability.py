"""What was acknowledged is there, whatever dies. Real processes, killed under load."""

import argparse
import os
import random
import secrets
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import Enum, auto
from pathlib import Path

import httpx
import pytest

from shm.cli.check import run as check
from tests.support import plain_http
from tests.support.clusters import Cluster, cluster_of_servers, embedded_cluster
from tests.support.databases import admin_cursor
from tests.support.installs import Install
from tests.support.load import Load, assert_acknowledged_stored, stored_snapshots
from tests.support.server_process import ServerProcess

SENDERS = 16
BEFORE = (20, 400)  # acknowledged snapshots of a round before the blow, at least and at most
GAP_S = 1.5  # after each victim of a blow, before the next one or before it is started again, at most
ROUNDS = 8  # of each kind, in the long form


class Victim(Enum):
    """What a blow hits."""

    SERVER = auto()
    POSTGRES = auto()
    BOTH = auto()


def chance() -> random.Random:
    """What decides about moments and victims; a failed test shows how to have the same again."""
    seed = int(os.environ.get("DURABILITY_SEED") or secrets.randbits(32))
    print(f"repeat it with DURABILITY_SEED={seed}")
    return random.Random(seed)


def rounds(each: int, by_chance: random.Random) -> list[Victim]:
    """Every kind of blow `each` times, in any order."""
    victims = list(Victim) * each
    by_chance.shuffle(victims)
    return victims


def play(cluster: Cluster, load: Load, victim: Victim, by_chance: random.Random) -> None:
    """One round: a blow at a random moment under load, and everything goes on; then what was acknowledged is there."""
    with load.running():
        load.wait_for_more(by_chance.randint(*BEFORE))
        time.sleep(by_chance.uniform(0, 0.05))
        strike(cluster, victim, by_chance)
        load.reset_progress()
        load.wait_for(load.has_progress, f"snapshots taken again after {victim}")
        load.wait_for(cluster.is_ready, "every server ready")
    assert_acknowledged_stored(load, cluster.servers, cluster.dsn)


def strike(cluster: Cluster, victim: Victim, by_chance: random.Random) -> None:
    """Kills, and starts again whatever nobody else starts."""
    server = by_chance.choice(cluster.servers)
    number = by_chance.choice([signal.SIGQUIT, signal.SIGKILL])
    blows: list[tuple[str, Callable[[], None]]] = []
    if victim is not Victim.POSTGRES:
        blows.append((f"server {cluster.servers.index(server)}", server.kill))
    if victim is not Victim.SERVER:
        blows.append((f"PostgreSQL with {number.name}", lambda: cluster.kill_postgres(number)))
    by_chance.shuffle(blows)
    gap_s = by_chance.choice([0, by_chance.uniform(0, GAP_S)])
    print("killed:", ", ".join(name for name, _ in blows), f"({gap_s:.3f} s after each)")
    for _, blow in blows:
        blow()
        time.sleep(gap_s)
    if victim is not Victim.SERVER:
        cluster.start_postgres()
    if victim is not Victim.POSTGRES:
        server.start()


def survive(cluster: Cluster, each: int) -> None:
    """All rounds on one database; no server is started that was not killed, and none has seen a fault of its own.

    In the end every figure is still what the raw snapshots make it.
    """
    by_chance = chance()
    load = Load(cluster.urls, SENDERS)
    for victim in rounds(each, by_chance):
        play(cluster, load, victim, by_chance)
    for server in cluster.servers:
        assert "Traceback" not in server.log
    assert check(argparse.Namespace(dsn=cluster.dsn, data_dir=None, repair=False)) == 0


FORMS = [pytest.param(1, id="short"), pytest.param(ROUNDS, id="long", marks=pytest.mark.long)]


@pytest.mark.parametrize("each", FORMS)
def test_every_202_survives_kills_of_server_and_postgres(postgres_dir: Path, each: int) -> None:
    """Every snapshot answered 202 is stored exactly once. The server restarts its embedded PostgreSQL."""
    with embedded_cluster(postgres_dir) as cluster:
        survive(cluster, each)


@pytest.mark.parametrize("each", FORMS)
def test_two_servers_on_one_database_survive_kills_under_load(postgres_dir: Path, each: int) -> None:
    with cluster_of_servers(postgres_dir, 2) as cluster:
        survive(cluster, each)


def test_sigterm_answers_what_is_in_flight(serve: Callable[..., ServerProcess], database: str) -> None:
    server = serve()
    install = Install(server.url).enroll()
    with admin_cursor(database) as cursor, ThreadPoolExecutor(2) as pool:
        cursor.execute("BEGIN; LOCK TABLE snapshots IN ACCESS EXCLUSIVE MODE")  # nothing is written until ROLLBACK
        in_flight = pool.submit(install.snapshot, {"a": 1})
        wait_for_a_waiting_writer(database)
        ending = pool.submit(server.terminate)
        while server_listens(server):
            time.sleep(0.02)
        cursor.execute("ROLLBACK")
        assert in_flight.result().status_code == 202
        assert ending.result() == 0
    assert len(stored_snapshots(database)) == 2


def wait_for_a_waiting_writer(database: str) -> None:
    """Until the server's statement waits for the lock."""
    deadline = time.monotonic() + 20
    with admin_cursor(database) as cursor:
        while True:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            (count,) = cursor.fetchone() or (0,)
            if count:
                return
            assert time.monotonic() < deadline
            time.sleep(0.02)


def server_listens(server: ServerProcess) -> bool:
    """Whether new connections are taken."""
    try:
        plain_http.get(f"{server.url}/api/v1/healthcheck", timeout=5)
    except httpx.ConnectError:
        return False
    except httpx.TransportError:
        return True
    return True


@pytest.mark.parametrize("signal_name", ["kill", "terminate"])
def test_embedded_postgres_stops_with_last_server_after_a_kill(postgres_dir: Path, signal_name: str) -> None:
    """Two servers share a data directory; the end of the first leaves PostgreSQL to the second."""
    first = ServerProcess(postgres_dir, {})
    first.start()
    install = Install(first.url).enroll({"a": 1})
    second = ServerProcess(postgres_dir, {})
    second.log_file = postgres_dir.with_suffix(".second.log")
    second.start()
    getattr(first, signal_name)()
    assert len(second.get("instances").json()) == 1
    first.start()
    assert install.snapshot({"a": 2}).status_code == 202
    second.terminate()
    assert first.get("instances").json()[0]["metrics"] == {"a": 2}
    assert first.terminate() == 0
    assert not (postgres_dir / "postgres" / "postmaster.pid").exists()
    for log in (first.log_file, second.log_file):
        log.unlink()
