"""The embedded PostgreSQL: libpq's environment, another user's data directory, and the privileges of its role."""

import multiprocessing
import os
import pwd
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import pytest
from psycopg2 import errors

from shm.db.embedded.postgres import EmbeddedPostgres
from shm.db.embedded.role import ROLE
from tests.support.cluster_template import create_data_dir
from tests.support.clusters import embedded_cluster
from tests.support.databases import admin_cursor, migrate
from tests.support.installs import Install
from tests.support.parameters import long_after
from tests.support.server_process import ServerProcess
from tests.support.shm_command import postgres_of, run_shm

TIMEOUT_S = 60
LIBPQ_ENVIRONMENT = {
    "PGPORT": "1",
    "PGHOST": "/nowhere",
    "PGHOSTADDR": "192.0.2.1",
    "PGUSER": "nobody",
    "PGDATABASE": "nothing",
    "PGSERVICE": "nothing",
    "PGSSLMODE": "verify-full",
    "PGTARGETSESSIONATTRS": "standby",
    "PGREQUIREAUTH": "scram-sha-256",
    "PGREQUIREPEER": "nobody",
    "PGDATA": "/nowhere",
    "PGTZ": "Asia/Kathmandu",
}


def test_libpqs_environment_does_not_reach_the_embedded_postgres(postgres_dir: Path) -> None:
    with embedded_cluster(postgres_dir, None, **LIBPQ_ENVIRONMENT) as cluster:
        (server,) = cluster.servers
        Install(server.url).enroll({"a": 1})
        listed = run_shm("token", "list", "--data-dir", str(server.data_dir), **LIBPQ_ENVIRONMENT)
        assert listed.returncode == 0, listed.stderr
        assert "admin.token" in listed.stdout
        cluster.kill_postgres(signal.SIGQUIT)
        while not server.is_ready():
            assert server.is_running
            time.sleep(0.02)
        assert Install(server.url).enroll({"a": 1})


def test_two_servers_share_one_data_directory(postgres_dir: Path) -> None:
    """They have one token and one PostgreSQL, which the last of them stops. A port in use gets a sentence."""
    data_dir = create_data_dir(postgres_dir / "data")
    first, second = ServerProcess(data_dir, {}), ServerProcess(data_dir, {})
    second.log_file = data_dir.with_suffix(".second.log")
    try:
        first.start()
        second.start()
        refused = run_shm("serve", "--port", str(first.port), "--data-dir", str(data_dir))
        assert refused.returncode == 1
        assert refused.stderr.splitlines()[-1].startswith(f"shm: Cannot listen on 127.0.0.1, port {first.port}:")
        install = Install(first.url).enroll({"n": 1})
        assert first.terminate() == 0
        assert len(postgres_of(data_dir)) > 0
        install.url = second.url
        assert install.snapshot({"n": 2}).status_code == 202
        assert [item["metrics"] for item in second.get("instances").json()] == [{"n": 2}]
        assert second.terminate() == 0
        assert postgres_of(data_dir) == []
    finally:
        first.terminate()
        second.terminate()


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE SCHEMA other",
        "CREATE DATABASE other",
        "CREATE ROLE other",
        "CREATE TEMP TABLE other ()",
        "ALTER SYSTEM SET fsync = off",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "SELECT pg_read_file('postgresql.conf')",
        "SET ROLE postgres",
        "SELECT rolpassword FROM pg_authid",
    ],
)
def test_the_role_of_the_server_owns_its_schema_and_nothing_else(embedded: str, sql: str) -> None:
    with admin_cursor(embedded) as cursor:
        with pytest.raises(errors.InsufficientPrivilege):
            cursor.execute(sql)
        cursor.execute("SELECT current_user, nspowner::regrole::text FROM pg_namespace WHERE nspname = 'public'")
        assert cursor.fetchone() == (ROLE, ROLE)


@pytest.fixture(scope="module")
def embedded() -> Iterator[str]:
    """The DSN of an embedded PostgreSQL."""
    with tempfile.TemporaryDirectory(prefix="shm-tests-") as folder, EmbeddedPostgres(Path(folder)).running() as dsn:
        yield dsn


def owners(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Owner, group and mode of every file that PostgreSQL itself does not create and remove while it runs."""
    found = {}
    for path in (folder, *folder.rglob("*")):
        with suppress(FileNotFoundError):
            status = path.lstat()
            found[str(path)] = (status.st_uid, status.st_gid, status.st_mode)
    return found


@contextmanager
def running_as(user: pwd.struct_passwd, data_dir: Path) -> Iterator[None]:
    """The embedded PostgreSQL of a data directory, run by an ordinary user, with a migrated schema.

    The process is forked, because that user cannot read the interpreter of root.
    """
    context = multiprocessing.get_context("fork")
    is_ready, stop = context.Event(), context.Event()

    def run() -> None:
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
        with EmbeddedPostgres(data_dir).running() as dsn:
            migrate(dsn)
            is_ready.set()
            stop.wait(TIMEOUT_S)

    process = context.Process(target=run)
    process.start()
    try:
        assert is_ready.wait(TIMEOUT_S)
        yield
    finally:
        stop.set()
        process.join(TIMEOUT_S)
    assert process.exitcode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run commands as two users")
@pytest.mark.parametrize(
    "is_running", [pytest.param(True, id="running"), pytest.param(False, id="stopped", marks=pytest.mark.long)]
)
def test_roots_command_leaves_a_users_data_directory_usable(postgres_dir: Path, *, is_running: bool) -> None:
    user = pwd.getpwnam("nobody")
    postgres_dir.chmod(0o755)
    home = postgres_dir / "home"
    home.mkdir(mode=0o700)
    os.chown(home, user.pw_uid, user.pw_gid)
    data_dir = home / "data"

    with running_as(user, data_dir) if is_running else nullcontext():
        if not is_running:
            with running_as(user, data_dir):
                pass
        before = owners(data_dir)
        listed = run_shm("token", "list", "--data-dir", str(data_dir))
        assert listed.returncode == 0, listed.stderr
        after = owners(data_dir)
        assert {path: after[path] for path in before if path in after} == {
            path: status for path, status in before.items() if path in after
        }
        assert {uid for uid, _, _ in after.values()} == {user.pw_uid}
        added = run_shm("token", "add", "x", "--data-dir", str(data_dir))
        assert added.returncode == 0, added.stderr
        assert {uid for uid, _, _ in owners(data_dir).values()} == {user.pw_uid}
    with running_as(user, data_dir):
        pass


@pytest.mark.parametrize("command", long_after(1, [("token", "list"), ("check",), ("export",)]))
def test_a_command_that_only_reads_creates_no_data_directory(postgres_dir: Path, command: tuple[str, ...]) -> None:
    data_dir = postgres_dir / "data"
    done = run_shm(*command, "--data-dir", str(data_dir))
    assert done.returncode == 1
    assert "has no database yet: `shm serve` creates it" in done.stderr
    assert not data_dir.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as another user")
def test_the_users_of_postgres_cannot_name_a_folder_for_root_to_remove(postgres_dir: Path) -> None:
    """Neither in shm.conf nor in postmaster.pid, which PostgreSQL's user can write."""
    data_dir = postgres_dir / "data"
    with EmbeddedPostgres(data_dir).running():
        owner = (data_dir / "postgres").stat()
    victims = [postgres_dir / "victim", Path(tempfile.gettempdir()) / f"shm-{secrets.token_hex(4)}"]
    try:
        for victim in victims:
            victim.mkdir(mode=0o700)
            (victim / "file").touch()
            os.chown(victim, owner.st_uid, owner.st_gid)
            with EmbeddedPostgres(data_dir).running():
                configuration = data_dir / "postgres" / "shm.conf"
                text = configuration.read_text()
                configuration.write_text(text.replace(str(data_dir / "postgres"), str(victim)))
                pid_file = data_dir / "postgres" / "postmaster.pid"
                lines = pid_file.read_text().splitlines()
                lines[4] = str(victim)
                pid_file.write_text("\n".join([*lines, ""]))
            assert (victim / "file").exists()
    finally:
        for victim in victims:
            subprocess.run(["rm", "-rf", str(victim)], check=True)
