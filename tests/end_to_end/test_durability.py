"""Acknowledged snapshots survive kills of servers and PostgreSQL under load."""

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
from tests.support.cluster_template import create_data_dir
from tests.support.clusters import Cluster, cluster_of_servers, embedded_cluster, wait_for
from tests.support.databases import admin_cursor, waiting_statements
from tests.support.installs import Install
from tests.support.load import Load, assert_acknowledged_stored, stored_snapshots
from tests.support.server_process import ServerProcess

ACKNOWLEDGED_BEFORE = (1, 25)  # snapshots of each install acknowledged in a round before the kill, at least and at most
MAX_GAP_S = 1.5  # at most, after each kill, before the next one or the restart


class Victim(Enum):
    """The processes that a round kills."""

    SERVER = auto()
    POSTGRES = auto()
    BOTH = auto()


def seeded_random() -> random.Random:
    """The generator that chooses moments and victims. A failed test prints how to repeat its choices."""
    seed = int(os.environ.get("DURABILITY_SEED") or secrets.randbits(32))
    print(f"to repeat this run: DURABILITY_SEED={seed}")
    return random.Random(seed)


def random_victims(each: int, rng: random.Random) -> list[Victim]:
    """Every kind of victim `each` times, in random order."""
    victims = list(Victim) * each
    rng.shuffle(victims)
    return victims


def run_round(cluster: Cluster, load: Load, victim: Victim, rng: random.Random) -> None:
    """Kills the victim at a random moment under load, waits until all servers work again, and compares the database."""
    with load.running():
        load.wait_for_more(rng.randint(*ACKNOWLEDGED_BEFORE) * load.senders)
        time.sleep(rng.uniform(0, 0.05))
        kill(cluster, victim, rng)
        load.reset_progress()
        load.wait_for(load.has_progress, f"new acknowledged snapshots after {victim}")
        load.wait_for(cluster.is_ready, "every server ready")
    assert_acknowledged_stored(load, cluster.servers, cluster.dsn)


def kill(cluster: Cluster, victim: Victim, rng: random.Random) -> None:
    """Kills the victim and restarts what does not restart by itself."""
    server = rng.choice(cluster.servers)
    number = rng.choice([signal.SIGQUIT, signal.SIGKILL])
    kills: list[tuple[str, Callable[[], None]]] = []
    if victim is not Victim.POSTGRES:
        kills.append((f"server {cluster.servers.index(server)}", server.kill))
    if victim is not Victim.SERVER:
        kills.append((f"PostgreSQL with {number.name}", lambda: cluster.kill_postgres(number)))
    rng.shuffle(kills)
    gap_s = rng.choice([0, rng.uniform(0, MAX_GAP_S)])
    print("killed:", ", ".join(name for name, _ in kills), f"({gap_s:.3f} s after each)")
    for _, kill_one in kills:
        kill_one()
        time.sleep(gap_s)
    if victim is not Victim.SERVER:
        cluster.start_postgres()
    if victim is not Victim.POSTGRES:
        server.start()


def check_rounds(cluster: Cluster, each: int, senders: int, rest_s: float) -> None:
    """Runs `each` rounds of each kind on one database.

    Only killed servers are restarted, and no server logs a traceback. At the end `shm check` finds no difference.
    """
    rng = seeded_random()
    load = Load(cluster.urls, senders, rest_s=rest_s)
    for victim in random_victims(each, rng):
        run_round(cluster, load, victim, rng)
    for server in cluster.servers:
        assert "Traceback" not in server.log
    assert check(argparse.Namespace(dsn=cluster.dsn, data_dir=None, repair=False)) == 0


@pytest.mark.parametrize(
    ("each", "senders", "rest_s"),
    [
        pytest.param(1, 4, 0.02, id="short"),  # a hundred snapshots a second
        pytest.param(8, 16, 0.0, id="long", marks=pytest.mark.long),
    ],
)
def test_every_202_survives_kills_of_server_and_postgres(
    postgres_dir: Path, each: int, senders: int, rest_s: float
) -> None:
    """Every snapshot answered 202 is stored exactly once. The server restarts its embedded PostgreSQL."""
    with embedded_cluster(postgres_dir) as cluster:
        check_rounds(cluster, each, senders, rest_s)


@pytest.mark.long
def test_two_servers_on_one_database_survive_kills_under_load(postgres_dir: Path) -> None:
    with cluster_of_servers(postgres_dir, 2) as cluster:
        check_rounds(cluster, each=8, senders=16, rest_s=0.0)


def test_sigterm_answers_requests_in_flight(serve: Callable[..., ServerProcess], database: str) -> None:
    server = serve()
    install = Install(server.url).enroll()
    with admin_cursor(database) as cursor, ThreadPoolExecutor(2) as pool:
        cursor.execute("BEGIN; LOCK TABLE snapshots IN ACCESS EXCLUSIVE MODE")  # blocks all writes until ROLLBACK
        in_flight = pool.submit(install.snapshot, {"a": 1})
        wait_for(lambda: bool(waiting_statements(database)), "a statement that waits for the lock")
        ending = pool.submit(server.terminate)
        while server_listens(server):
            time.sleep(0.02)
        cursor.execute("ROLLBACK")
        assert in_flight.result().status_code == 202
        assert ending.result() == 0
    assert len(stored_snapshots(database)) == 2


def server_listens(server: ServerProcess) -> bool:
    """Whether the server accepts new connections."""
    try:
        plain_http.get(f"{server.url}/api/v1/healthcheck", timeout=5)
    except httpx.ConnectError:
        return False
    except httpx.TransportError:
        return True
    return True


@pytest.mark.parametrize("signal_name", ["kill", pytest.param("terminate", marks=pytest.mark.long)])
def test_embedded_postgres_stops_with_last_server_after_a_kill(postgres_dir: Path, signal_name: str) -> None:
    """Two servers share a data directory. The end of the first one leaves PostgreSQL running for the second one."""
    first = ServerProcess(create_data_dir(postgres_dir), {})
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
