"""What was acknowledged is there, whatever dies. Real processes, killed under load."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psycopg2
import pytest

from shm.embedded import EmbeddedPostgres
from tests.conftest import admin_cursor
from tests.installs import Install
from tests.oracle import truth
from tests.server_process import ServerProcess

LOADERS = 12
LOAD_LIMIT_S = 60
ENOUGH = 300  # acknowledged snapshots before the kill


class Load:
    """Installs that send as fast as they can, and remember what was acknowledged."""

    def __init__(self, installs: list[Install]) -> None:
        self._installs = installs
        self._ended = threading.Event()
        self.acknowledged: list[tuple[str, datetime, int]] = []
        self.statuses: set[int] = set()

    def _send(self, install: Install) -> None:
        number = 0
        with httpx.Client(timeout=10) as client:
            while not self._ended.is_set():
                number += 1
                at = datetime.now(UTC)
                body = install.snapshot_body({"n": number}, at)
                try:
                    status = client.post(f"{install.url}/v1/snapshot", content=body, headers=install.signed(body))
                except httpx.TransportError:
                    time.sleep(0.02)
                    continue
                self.statuses.add(status.status_code)
                if status.status_code == 202:
                    self.acknowledged.append((install.instance_id, at, number))

    def run_until(self, condition: Callable[[], bool], then: Callable[[], None]) -> None:
        """Sends until `condition` holds, does `then` in the middle of it, and stops."""
        with ThreadPoolExecutor(len(self._installs)) as pool:
            senders = [pool.submit(self._send, install) for install in self._installs]
            try:
                deadline = time.monotonic() + LOAD_LIMIT_S
                while not condition():
                    assert time.monotonic() < deadline, "the load did not get through"
                    time.sleep(0.01)
                then()
            finally:
                self._ended.set()
            for sender in senders:
                sender.result()


def stored(database: str) -> dict[tuple[str, datetime], str]:
    """Every raw snapshot."""
    connection = psycopg2.connect(database)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT instance_id::text, snapshot_at, metrics::text FROM snapshots")
        found = {(row[0], row[1]): row[2] for row in cursor.fetchall()}
    connection.close()
    return found


def hold_to_what_was_acknowledged(load: Load, server: ServerProcess, database: str) -> None:
    """Every 202 is in the database with its body, and the KPIs are those of the raw snapshots."""
    found = stored(database)
    for instance_id, at, number in load.acknowledged:
        assert found[instance_id, at] == f'{{"n": {number}}}'
    (kpi,) = server.get("applications/ledger/kpis").json()["kpis"]
    assert kpi["value"] == truth(database, "ledger").kpi("n", "sum")


def test_every_202_survives_kill_9_of_the_server_under_load(server: ServerProcess, database: str) -> None:
    load = Load([Install(server.url).arrived({"n": 0}) for _ in range(LOADERS)])
    load.run_until(lambda: len(load.acknowledged) > ENOUGH, server.kill)
    server.start()
    assert load.statuses == {202}
    hold_to_what_was_acknowledged(load, server, database)


def test_every_202_survives_an_immediate_shutdown_of_postgres_and_the_server_heals(
    open_folder: Path, tmp_path: Path
) -> None:
    embedded = EmbeddedPostgres(open_folder)
    with embedded.running() as dsn:
        server = ServerProcess(tmp_path / "data", {"SHM_DB_DSN": dsn})
        server.start()
        try:
            load = Load([Install(server.url).arrived({"n": 0}) for _ in range(LOADERS)])
            pid = int((open_folder / "postgres" / "postmaster.pid").read_text().splitlines()[0])

            def crash() -> None:
                embedded._control("stop", "-m", "immediate")
                before = len(load.acknowledged)
                embedded._start()
                deadline = time.monotonic() + 30
                while len(load.acknowledged) < before + 50:
                    assert time.monotonic() < deadline, server.log
                    time.sleep(0.02)

            load.run_until(lambda: len(load.acknowledged) > ENOUGH, crash)
            assert int((open_folder / "postgres" / "postmaster.pid").read_text().splitlines()[0]) != pid
            assert load.statuses <= {202, 503}
            hold_to_what_was_acknowledged(load, server, dsn)
        finally:
            server.terminate()


def test_sigterm_answers_what_is_in_flight(serve: Callable[..., ServerProcess], database: str) -> None:
    server = serve()
    install = Install(server.url).arrived()
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
    assert len(stored(database)) == 2


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
        httpx.get(f"{server.url}/api/v1/healthcheck", timeout=5)
    except httpx.ConnectError:
        return False
    except httpx.TransportError:
        return True
    return True


def test_while_the_database_is_away_installs_are_told_to_come_back(open_folder: Path, tmp_path: Path) -> None:
    embedded = EmbeddedPostgres(open_folder)
    with embedded.running() as dsn:
        server = ServerProcess(tmp_path / "data", {"SHM_DB_DSN": dsn, "SHM_DB_PATIENCE": "1s"})
        server.start()
        try:
            install = Install(server.url).arrived()
            embedded._control("stop", "-m", "fast")
            answer = install.snapshot({"a": 1})
            assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
            assert int(answer.headers["Retry-After"]) > 0
            assert httpx.get(f"{server.url}/api/v1/ready").status_code == 503
            assert httpx.get(f"{server.url}/api/v1/healthcheck").status_code == 200
            embedded._start()
            assert install.snapshot({"a": 2}).status_code == 202
            assert "Traceback" not in server.log
        finally:
            server.terminate()


@pytest.mark.parametrize("signal_name", ["kill", "terminate"])
def test_the_embedded_postgres_ends_with_the_last_server_and_survives_a_kill(
    open_folder: Path, signal_name: str
) -> None:
    first = ServerProcess(open_folder, {})
    first.start()
    install = Install(first.url).arrived({"a": 1})
    second = ServerProcess(open_folder, {})
    second.log_file = open_folder.with_suffix(".second.log")
    second.start()
    getattr(first, signal_name)()
    assert len(second.get("instances").json()) == 1
    first.start()
    assert install.snapshot({"a": 2}).status_code == 202
    second.terminate()
    assert first.get("instances").json()[0]["metrics"] == {"a": 2}
    assert first.terminate() == 0
    assert not (open_folder / "postgres" / "postmaster.pid").exists()
    for log in (first.log_file, second.log_file):
        log.unlink()
