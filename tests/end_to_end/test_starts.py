"""Failed starts and shutdowns: each logs one sentence and leaves no process."""

import os
import re
import signal
import socket
import struct
import subprocess
import time
from contextlib import closing
from pathlib import Path

import psutil
import psycopg2
import pytest
from psycopg2.extensions import make_dsn, parse_dsn

from shm.db.embedded.postgres import EmbeddedPostgres
from shm.db.embedded.role import SUPERUSER
from tests.support.cluster_template import create_data_dir
from tests.support.clusters import embedded_cluster, wait_for
from tests.support.databases import admin_cursor, empty_database, superuser_cursor
from tests.support.installs import Install
from tests.support.parameters import long_after
from tests.support.server_process import ServerProcess, free_port
from tests.support.shm_command import postgres_of, run_shm, start_serve

STARTED = "ready to accept connections"  # in PostgreSQL's log
TIMEOUT_S = 60


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        (("--port", "80a"), {}, "--port='80a' is invalid"),
        (("--data-dir", "/dev/null/x"), {}, "cannot be used"),
        (("--data-dir", "/srv/a,b"), {}, "contains ',', a character that PostgreSQL does not support"),
        ((), {"SHM_DB_DSN": "foo"}, "SHM_DB_DSN is invalid"),
        ((), {"SHM_DB_DSN": "host=127.0.0.1 port=1", "SHM_START_PATIENCE": "1s"}, "could not be reached within 1 s"),
        ((), {"SHM_ADMIN_TOKN": "x"}, "Did you mean SHM_ADMIN_TOKEN?"),
    ],
)
def test_a_start_that_fails_logs_one_sentence(
    arguments: tuple[str, ...], environment: dict[str, str], sentence: str
) -> None:
    done = run_shm("serve", *arguments, **environment)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_systemd_is_told_when_the_server_is_ready(database: str, tmp_path: Path, workers: int) -> None:
    """By the process that systemd started, and once all workers listen."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        manager.settimeout(TIMEOUT_S)
        environment = {"SHM_DB_DSN": database, "NOTIFY_SOCKET": str(tmp_path / "notify"), "SHM_WORKERS": str(workers)}
        server = ServerProcess(tmp_path / "data", environment)
        server.start()
        try:
            message, ((_, _, credentials),), _, _ = manager.recvmsg(100, socket.CMSG_SPACE(12))
            assert (message, struct.unpack("iii", credentials)[0]) == (b"READY=1", server.pid)
            assert server.is_ready()
        finally:
            assert server.terminate() == 0


@pytest.mark.parametrize("command", long_after(1, ["serve", "migrate"]))
def test_a_failed_migration_is_reported_with_line_and_message(postgres: str, command: str) -> None:
    """The message is PostgreSQL's own. The migrations before it stay."""
    with empty_database(postgres) as dsn:
        with superuser_cursor(dsn) as cursor:
            cursor.execute("REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC")
        done = run_shm(command, "--dsn", dsn)
        with admin_cursor(dsn) as cursor:
            cursor.execute("SELECT max(version), to_regproc('find_snapshots') FROM schema_migrations")
            assert cursor.fetchone() == (11, None)
    assert done.returncode == 1
    assert re.search(r"migration 0012_\w+\.sql, statement 1: permission denied for language plpgsql", done.stderr)
    assert "InsufficientPrivilege, SQLSTATE 42501" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("host", "token"), [("a..b", ""), ("127.0.0.1", "short")])
def test_an_unusable_host_or_token_is_reported_in_a_sentence(database: str, host: str, token: str) -> None:
    done = run_shm("serve", "--host", host, "--port", "0", SHM_DB_DSN=database, SHM_ADMIN_TOKEN=token or "x" * 30)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)


def test_a_start_on_a_port_in_use_logs_one_sentence(shared_server: ServerProcess, database: str) -> None:
    done = run_shm("serve", "--port", str(shared_server.port), SHM_DB_DSN=database, SHM_ADMIN_TOKEN="x" * 30)
    assert done.returncode == 1
    assert "Cannot listen on" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "when",
    [
        "applying migration",
        *(pytest.param(text, marks=pytest.mark.long) for text in ("creating an embedded", "open the console")),
    ],
)
def test_a_signal_during_startup_leaves_no_process(postgres_dir: Path, number: signal.Signals, when: str) -> None:
    process = start_serve("--port", str(free_port()), "--data-dir", str(postgres_dir))
    assert process.stdout is not None
    for line in process.stdout:
        if when in line:
            break
    process.send_signal(number)
    try:
        output, _ = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
    assert process.returncode in (0, 128 + number, 128 + signal.SIGTERM)
    assert "Traceback" not in output
    assert postgres_of(postgres_dir) == []


@pytest.mark.parametrize(
    "name", [pytest.param("data", id="short path", marks=pytest.mark.long), pytest.param("x" * 90, id="long path")]
)
def test_an_embedded_postgres_that_died_is_started_again(postgres_dir: Path, name: str) -> None:
    folder = create_data_dir(postgres_dir / name)
    server = ServerProcess(folder, {}, executed=True)
    server.start()
    try:
        install = Install(server.url).enroll({"a": 1})
        (pid, *_) = (int(line) for line in (folder / "postgres" / "postmaster.pid").read_text().split()[:1])
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + TIMEOUT_S
        while install.snapshot({"a": 2}).status_code != 202:
            assert time.monotonic() < deadline, server.log
            time.sleep(0.02)
        assert server.get("instances").json()[0]["metrics"] == {"a": 2}
    finally:
        assert server.terminate() == 0
    assert postgres_of(folder) == []


def test_as_process_1_the_server_detects_that_postgres_died(postgres_dir: Path) -> None:
    own = ["unshare", "--pid", "--fork", "--kill-child", *(["--user", "--map-current-user"] if os.geteuid() else [])]
    if subprocess.run([*own, "true"], capture_output=True, check=False).returncode:
        pytest.skip("nobody may have process numbers of their own here")
    server = ServerProcess(create_data_dir(postgres_dir / "data"), {}, before=tuple(own))
    server.start()
    (process_1,) = psutil.Process(server.pid).children()

    def kill_postgres() -> None:
        running = (child for child in process_1.children() if child.status() != psutil.STATUS_ZOMBIE)
        (postgres,) = (child for child in running if "-D" in child.cmdline())
        postgres.kill()

    try:
        kill_postgres()
        wait_for(lambda: "was started again" in server.log, "PostgreSQL, started again")
        Install(server.url).enroll({"a": 1})
        kill_postgres()
    finally:
        process_1.terminate()
        process_1.wait(2 * TIMEOUT_S)
        assert server.terminate() == 0


def test_statements_are_removed_from_the_log_of_a_dead_postgres(postgres_dir: Path) -> None:
    with embedded_cluster(postgres_dir) as cluster:
        wal_dir, moved_dir = cluster.postgres_dir / "pg_wal", cluster.postgres_dir / "pg_wal.moved"
        with (
            closing(psycopg2.connect(make_dsn(cluster.dsn, user=SUPERUSER))) as connection,
            connection.cursor() as cursor,
        ):
            wal_dir.rename(moved_dir)
            with pytest.raises(psycopg2.OperationalError):
                cursor.execute("SELECT pg_switch_wal(); CREATE TABLE a_secret (); SELECT pg_switch_wal()")
        log_file = cluster.postgres_dir / "log"
        starts = log_file.read_text().count(STARTED)
        moved_dir.rename(wal_dir)
        # The server's readiness does not show the restart, because the server caches it for a second.
        wait_for(lambda: log_file.read_text().count(STARTED) > starts, "PostgreSQL, started again")
        log = log_file.read_text()
        assert "PANIC" in log
        assert "secret" not in log


def test_shutdown_completes_if_embedded_postgres_dies(postgres_dir: Path) -> None:
    create_data_dir(postgres_dir)
    for _ in range(3):
        with EmbeddedPostgres(postgres_dir).running():
            os.kill(int((postgres_dir / "postgres" / "postmaster.pid").read_text().splitlines()[0]), signal.SIGKILL)


def test_a_long_path_leaves_no_socket_folder_behind(postgres_dir: Path) -> None:
    embedded = EmbeddedPostgres(create_data_dir(postgres_dir / ("x" * 90)))
    with embedded.running() as dsn:
        socket_dir = Path(parse_dsn(dsn)["host"])
        assert socket_dir.is_dir()
        assert oct(socket_dir.stat().st_mode & 0o777) == "0o700"
    assert not socket_dir.exists()
