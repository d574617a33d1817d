"""`shm backup` and `shm restore`: under load, between databases and data directories, and what they refuse."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import psycopg2
import pytest
from psycopg2.extensions import make_dsn, parse_dsn

from shm.core.errors import ConfigurationError
from shm.db.advisory_locks import Lock
from shm.db.client_programs import find_program, run_client
from shm.db.embedded.programs import packaged_programs
from tests.support import plain_http
from tests.support.clusters import embedded_cluster, wait_for
from tests.support.databases import admin_cursor, empty_database, execute, migrate, select_column, superuser_cursor
from tests.support.installs import Install
from tests.support.load import Load, stored_snapshots
from tests.support.old_clusters import OLDER_MAJOR, create_older_cluster
from tests.support.postgres_tls import PostgresTls
from tests.support.server_process import ServerProcess
from tests.support.shm_command import SHM, run_shm
from tests.support.signed_actions import act

PASSWORD = "it's a secret"
WAITING_SQL = """
    SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
    WHERE l.locktype = 'advisory' AND NOT l.granted AND d.datname = current_database()"""


def run(*arguments: str, **environment: str) -> str:
    """Runs `shm` and returns its standard error. Fails if the command does."""
    done = run_shm(*arguments, **environment)
    assert done.returncode == 0, done.stderr
    return done.stderr


def refusal(*arguments: str, **environment: str) -> str:
    """The last line of a command that ends with status 1."""
    done = run_shm(*arguments, **environment)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def find_dumps(pid: int) -> list[psutil.Process]:
    """The child processes that dump a database. Others only print their version."""
    found = []
    for child in psutil.Process(pid).children():
        with suppress(psutil.NoSuchProcess):
            if "--format=custom" in child.cmdline():
                found.append(child)
    return found


@pytest.fixture
def empty(postgres: str) -> Iterator[str]:
    """The DSN of a database without tables."""
    with empty_database(postgres) as dsn:
        yield dsn


def test_a_backup_under_load_is_restored_and_checked(postgres_dir: Path, tmp_path: Path, empty: str) -> None:
    """From the embedded PostgreSQL into a database, and from there into a new data directory.

    A view that belongs to an extension, such as those of pg_stat_statements, is neither in the way nor in a backup.
    """
    with superuser_cursor(empty) as superuser:
        superuser.execute("CREATE VIEW public.statistics AS SELECT 1")
        superuser.execute("ALTER EXTENSION plpgsql ADD VIEW public.statistics")
    file, second = tmp_path / "shm.dump", tmp_path / "second.dump"
    with embedded_cluster(postgres_dir) as cluster:
        (server,) = cluster.servers
        load = Load(cluster.urls, 4, rest_s=0.02)
        with load.running():
            load.wait_for_more(30)
            acknowledged = set(load.acknowledged)
            run("backup", "--data-dir", str(server.data_dir), "--output", str(file), PGPORT="1")
            load.wait_for_more(10)
        cursor = int(server.get("instances").headers["X-Feed-Cursor"])
    assert file.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == [file.name]

    assert "Restored 4 instances" in run("restore", str(file), SHM_DB_DSN=empty)
    run("check", SHM_DB_DSN=empty)
    rows = stored_snapshots(empty)
    stored = {(instance_id, at) for instance_id, at, _ in rows}
    assert acknowledged <= stored
    assert len(rows) == len(stored) < len(load.sent)
    assert "is not empty" in refusal("restore", str(file), SHM_DB_DSN=empty)

    run("backup", "--output", str(second), SHM_DB_DSN=empty)
    moved = ServerProcess(postgres_dir / "restored", {})
    run("restore", str(second), "--data-dir", str(moved.data_dir))
    run("check", "--data-dir", str(moved.data_dir))
    moved.start()
    try:
        assert int(moved.get("instances").headers["X-Feed-Cursor"]) > cursor + 1_000_000
        (install, *_) = load._installs
        install.url = moved.url
        assert install.snapshot({"n": 10**6}).status_code == 202
        assert len(moved.get("instances").json()) == 4
    finally:
        moved.terminate()


@pytest.mark.long
def test_two_commands_move_the_data_of_an_older_postgres(postgres_dir: Path, tmp_path: Path) -> None:
    """A restoration into it is refused. The start names the commands."""
    old, new, file = postgres_dir / "data", postgres_dir / "data-18", tmp_path / "shm.dump"
    with create_older_cluster(old).running() as dsn:
        migrate(dsn)
        server = ServerProcess(tmp_path / "server", {"SHM_DB_DSN": dsn})
        server.start()
        try:
            install = Install(server.url).enroll({"n": 3})
        finally:
            server.terminate()
    started = refusal("serve", "--port", "0", "--data-dir", str(old))
    assert f"was created by PostgreSQL {OLDER_MAJOR}" in started
    assert f"`shm backup --data-dir {old} --output shm.dump` and `shm restore --data-dir {new} shm.dump`" in started
    run("backup", "--data-dir", str(old), "--output", str(file))
    run("restore", "--data-dir", str(new), str(file))
    run("check", "--data-dir", str(new))
    moved = ServerProcess(new, {})
    moved.start()
    try:
        assert [each["instance_id"] for each in moved.get("instances").json()] == [install.instance_id]
    finally:
        moved.terminate()
    run("backup", "--data-dir", str(new), "--output", str(file))
    with create_older_cluster(postgres_dir / "empty").running() as dsn:
        assert "restore it into a PostgreSQL that is not older" in refusal("restore", str(file), SHM_DB_DSN=dsn)
        with admin_cursor(dsn) as cursor:
            cursor.execute("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace")
            assert cursor.fetchone() == (0,)


def test_an_interrupted_backup_leaves_the_file_as_it_was(database: str, tmp_path: Path) -> None:
    """And no password is on the command line of the program that it runs."""
    file = tmp_path / "shm.dump"
    file.write_text("older")
    with admin_cursor(database) as cursor:
        cursor.execute("BEGIN; LOCK TABLE instances IN ACCESS EXCLUSIVE MODE")  # pg_dump waits for it
        process = subprocess.Popen(
            [*SHM, "backup", "--output", str(file)],
            env=os.environ | {"SHM_DB_DSN": make_dsn(database, password=PASSWORD)},
            stderr=subprocess.PIPE,
        )
        wait_for(lambda: bool(find_dumps(process.pid)), "pg_dump")
        (child,) = find_dumps(process.pid)
        assert PASSWORD not in " ".join(child.cmdline())
        assert child.environ()["PGPASSWORD"] == PASSWORD
        assert not [name for name in child.environ() if name.startswith("SHM_")]
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert not child.is_running()
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [(file.name, "older")]


def test_a_directory_keeps_a_backup_of_each_day(database: str, tmp_path: Path) -> None:
    """The newest of a day, so that a job that fails and starts again does not push out older ones."""
    directory = tmp_path / "backups"
    directory.mkdir()
    old = [f"shm-2026010{day}T000000Z.dump" for day in range(1, 5)]
    other = ["notes.txt", "shm-20260101T000000Z.dump.gpg"]
    repeated = [f"shm-{datetime.now(UTC):%Y%m%d}T0000{second:02}Z.dump" for second in range(5)]
    repeated += [f"{name[:12]}T12{minute:02}00Z.dump" for name in old for minute in range(3)]
    old = [f"{name[:12]}T235959Z.dump" for name in old]
    for name in [
        *old,
        *repeated,
        *other,
        ".shm-20260101T000000Z.dump.0a1b2c3d",
    ]:  # the last is of a command that was killed
        (directory / name).touch()
    run("backup", "--directory", str(directory), "--keep", "3", SHM_DB_DSN=database)
    names = sorted(each.name for each in directory.iterdir())
    (newest,) = [name for name in names if name not in (*old, *repeated, *other)]
    assert names == sorted([*old[-2:], newest, *other])
    assert (directory / newest).stat().st_size > 10_000
    assert "--keep needs --directory" in refusal("backup", "--keep", "3", SHM_DB_DSN=database)


def test_a_failed_backup_removes_no_older_one(tmp_path: Path) -> None:
    (tmp_path / "shm-20260101T000000Z.dump").touch()
    arguments = ("backup", "--directory", str(tmp_path), "--keep", "1", "--dsn", "host=127.0.0.1 port=1")
    assert "could not be reached" in refusal(*arguments, SHM_START_PATIENCE="1s")
    assert [each.name for each in tmp_path.iterdir()] == ["shm-20260101T000000Z.dump"]


def test_a_backup_streams_to_standard_output(database: str, empty: str, tmp_path: Path) -> None:
    """And ends without a message if the reader of the pipe does."""
    environment = os.environ | {"SHM_DB_DSN": database}
    output = subprocess.check_output([*SHM, "backup"], env=environment, stderr=subprocess.DEVNULL)
    (tmp_path / "shm.dump").write_bytes(output)
    run("restore", str(tmp_path / "shm.dump"), SHM_DB_DSN=empty)
    with subprocess.Popen(
        [*SHM, "backup"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_a_backup_of_a_newer_release_changes_nothing(database: str, empty: str, tmp_path: Path) -> None:
    with admin_cursor(database) as cursor:
        cursor.execute("INSERT INTO schema_migrations (version, checksum) VALUES (9999, repeat('0', 64))")
    run("backup", "--output", str(tmp_path / "shm.dump"), SHM_DB_DSN=database)
    refused = refusal("restore", str(tmp_path / "shm.dump"), SHM_DB_DSN=empty)
    assert "has migration 9999, which this release does not have" in refused
    assert "is not empty" not in refusal("restore", str(tmp_path / "shm.dump"), SHM_DB_DSN=empty)


def test_snapshots_that_arrived_after_the_backups_moment_are_not_restored(
    server: ServerProcess, database: str, empty: str, tmp_path: Path
) -> None:
    """A backup of a Citus cluster has some, because the workers are read after the coordinator."""
    install = Install(server.url).enroll({"n": 1})
    execute(
        database,
        "INSERT INTO snapshots (instance_id, snapshot_at, app_version, metrics, app_slug, cursor)"
        " SELECT instance_id, now(), app_version, '{\"n\": 2}', app_slug, h.cursor + 1 FROM snapshots, feed_head h",
    )
    assert len(stored_snapshots(database)) == 2
    run("backup", "--output", str(tmp_path / "shm.dump"), SHM_DB_DSN=database)
    run("restore", str(tmp_path / "shm.dump"), SHM_DB_DSN=empty)
    ((instance_id, _, metrics),) = stored_snapshots(empty)
    assert (instance_id, metrics) == (install.instance_id, '{"n": 1}')
    run("check", SHM_DB_DSN=empty)


def test_what_was_erased_after_a_backup_is_erased_again(
    server: ServerProcess, database: str, empty: str, tmp_path: Path
) -> None:
    """By the install, by an admin, and many at once. What these installs signed before is refused again."""
    dump, erased, admin = tmp_path / "shm.dump", tmp_path / "erased.jsonl", f"{server.url}/api/v1/admin"
    kept, itself, deleted = (Install(server.url).enroll({"n": number}) for number in range(3))
    many = [Install(server.url, environment="staging").enroll({"n": number}) for number in range(2)]
    run("backup", "--output", str(dump), SHM_DB_DSN=database)
    after = Install(server.url).enroll({"n": 9})
    for install in (itself, after):
        assert act(install, "erase").status_code == 200
    plain_http.request("DELETE", f"{admin}/instances/{deleted.instance_id}", headers=server.headers).raise_for_status()
    change = {"action": "delete", "environment": "staging"}
    plain_http.post(f"{admin}/instances/bulk", json=change, headers=server.headers).raise_for_status()
    wait_for(lambda: len(server.get("instances").json()) == 1, "the deletion of many")
    run("export", "--erased", "--output", str(erased), SHM_DB_DSN=database)
    assert erased.stat().st_mode & 0o777 == 0o600
    assert not any(install.instance_id in erased.read_text() for install in (itself, deleted, *many, after))

    damaged = tmp_path / "damaged.jsonl"
    damaged.write_bytes(b"".join(erased.read_bytes().splitlines(keepends=True)[:-1]))
    refused = refusal("restore", str(dump), "--erased", str(damaged), SHM_DB_DSN=empty)
    assert f"{damaged}, line 6: the list ends before its last line" in refused
    other = tmp_path / "other.jsonl"
    other.write_text(re.sub('"database":"[0-9a-f]+"', f'"database":"{"0" * 64}"', erased.read_text()))
    assert "was not replaced" in refusal("export", "--erased", "--output", str(other), SHM_DB_DSN=database)
    erase_again = ("restore", "--erased", str(erased))
    assert "has no data of SHM" in refusal(*erase_again, SHM_DB_DSN=empty)
    refused = refusal("restore", str(dump), "--erased", str(other), SHM_DB_DSN=empty)
    assert f"{other} is the list of another database: nothing was erased" in refused
    with admin_cursor(empty) as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [Lock.WRITERS])  # an erasure waits for it
        process = subprocess.Popen([*SHM, *erase_again], env=os.environ | {"SHM_DB_DSN": empty}, stderr=subprocess.PIPE)
        wait_for(lambda: select_column(empty, WAITING_SQL) == [1], "the erasure")
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, b"Traceback" in errors) == (128 + signal.SIGTERM, False)
    assert f"run `shm {' '.join(erase_again)}`".encode() in errors
    assert len(select_column(empty, "SELECT instance_id FROM instances")) == 5
    assert "Erased 4 instances again" in run(*erase_again, SHM_DB_DSN=empty)
    assert "Erased 0 instances again" in run(*erase_again, SHM_DB_DSN=empty)
    run("check", SHM_DB_DSN=empty)
    assert select_column(empty, "SELECT instance_id FROM instances") == [kept.instance_id]
    restored = ServerProcess(tmp_path / "restored", {"SHM_DB_DSN": empty})
    restored.start()
    try:
        for install in (itself, after):
            install.url = restored.url
            assert install.register().json()["code"] == "signed_before_erasure"
            assert install.register_signed().status_code == 201
            late = install.snapshot({"n": 1}, datetime.now(UTC) - timedelta(hours=1))
            assert late.json()["code"] == "signed_before_erasure"
    finally:
        restored.terminate()


@pytest.mark.long
def test_an_interrupted_restoration_says_how_to_begin_anew(database: str, empty: str, tmp_path: Path) -> None:
    """The signal arrives after the data, while the schema is brought up to date."""
    file = tmp_path / "shm.dump"
    run("backup", "--output", str(file), SHM_DB_DSN=database)
    with admin_cursor(empty) as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [Lock.MIGRATIONS])
        command = [*SHM, "restore", str(file)]
        process = subprocess.Popen(command, env=os.environ | {"SHM_DB_DSN": empty}, stderr=subprocess.PIPE, text=True)
        wait_for(lambda: select_column(empty, WAITING_SQL) == [1], "the migration")
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "is not ready for a server: remove the restored data" in errors
    assert "Traceback" not in errors


def test_a_restoration_beside_another_one_says_so(database: str, empty: str, tmp_path: Path) -> None:
    """As after a `kill -9` of the command, whose pg_restore still runs: its tables are not to be seen yet."""
    file = tmp_path / "shm.dump"
    run("backup", "--output", str(file), SHM_DB_DSN=database)
    other = psycopg2.connect(empty)
    with other.cursor() as cursor:
        cursor.execute("CREATE TABLE instances ()")
    command = [*SHM, "restore", str(file)]
    process = subprocess.Popen(command, env=os.environ | {"SHM_DB_DSN": empty}, stderr=subprocess.PIPE, text=True)
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted"
    wait_for(lambda: select_column(empty, waiting) == [1], "pg_restore")
    other.commit()
    other.close()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Another command restores into this database" in errors.splitlines()[-1]


def test_a_damaged_backup_leaves_the_database_empty(database: str, empty: str, tmp_path: Path) -> None:
    file = tmp_path / "shm.dump"
    run("backup", "--output", str(file), SHM_DB_DSN=database)
    whole = file.read_bytes()
    for content in (b"", b"x" * 5000, whole[:20]):
        file.write_bytes(content)
        assert refusal("restore", str(file), SHM_DB_DSN=empty).startswith("shm: ")
    for content in (whole[: len(whole) // 2], whole[:-2000]):
        file.write_bytes(content)
        assert "The backup is damaged or incomplete" in refusal("restore", str(file), SHM_DB_DSN=empty)
    file.write_bytes(whole)
    run("restore", str(file), SHM_DB_DSN=empty)


@pytest.mark.long
def test_a_schema_is_restored_under_its_name_only(postgres: str, empty: str, tmp_path: Path) -> None:
    file = tmp_path / "shm.dump"
    with admin_cursor(make_dsn(empty, user="postgres")) as cursor:
        cursor.execute('CREATE SCHEMA "Odd name" AUTHORIZATION shm')
    named = make_dsn(empty, options='-csearch_path="Odd\\ name"')
    run("migrate", SHM_DB_DSN=named)
    run("backup", "--output", str(file), SHM_DB_DSN=named)
    with empty_database(postgres) as other:
        refused = refusal("restore", str(file), SHM_DB_DSN=other)
        assert 'CREATE SCHEMA "Odd name" AUTHORIZATION "shm"' in refused
        with admin_cursor(make_dsn(other, user="postgres")) as cursor:
            cursor.execute('CREATE SCHEMA "Odd name" AUTHORIZATION shm')
        run("restore", str(file), SHM_DB_DSN=make_dsn(other, options='-csearch_path="Odd\\ name"'))
        run("check", SHM_DB_DSN=make_dsn(other, options='-csearch_path="Odd\\ name"'))


def test_what_is_missing_is_said_in_a_sentence(postgres: str, empty: str, postgres_dir: Path, tmp_path: Path) -> None:
    assert "has no data of SHM to back up" in refusal("backup", SHM_DB_DSN=empty)
    assert "has no database yet" in refusal("backup", "--data-dir", str(postgres_dir / "none"))
    assert "cannot be read" in refusal("restore", "/nowhere/x", SHM_DB_DSN=empty)
    assert "Name the backup to restore" in refusal("restore", SHM_DB_DSN=empty)
    with empty_database(postgres) as other:
        with admin_cursor(other) as cursor:
            cursor.execute("CREATE TABLE invoices (id bigint)")
        dump = ("--format=custom", f"--file={tmp_path / 'other'}")
        run_client(find_program("pg_dump", "18"), *dump, dsn=other, sslmode="prefer")
    assert "is a dump of another application" in refusal("restore", str(tmp_path / "other"), SHM_DB_DSN=empty)
    packaged = packaged_programs("18")
    assert packaged is not None
    with pytest.raises(ConfigurationError, match=r"has no TLS: install .*`apt install postgresql-client-18`"):
        run_client(packaged / "pg_dump", dsn=f"{empty} sslrootcert=system", sslmode="verify-full")
    with pytest.raises(ConfigurationError, match=r"pg_dump of PostgreSQL 99, .*`apt install postgresql-client-99"):
        find_program("pg_dump", "99")
    with pytest.raises(ConfigurationError, match="sslpassword"):
        run_client(Path("pg_dump"), dsn="host=x sslpassword=y", sslmode="prefer")


def test_what_is_read_with_tls_is_not_backed_up_without(database: str, tmp_path: Path) -> None:
    """Where only the embedded pg_dump is there, which has no TLS. With sslmode=disable, everything is without it."""
    if find_program("pg_dump", "18").parent != packaged_programs("18"):
        pytest.skip("the system's pg_dump has TLS")
    backup = ("backup", "--output", str(tmp_path / "shm.dump"))
    parts = parse_dsn(database)
    with PostgresTls(Path(parts["host"]) / f".s.PGSQL.{parts.get('port', 5432)}", tmp_path).running() as proxy:
        dsn = make_dsn(database, host="127.0.0.1", port=proxy.port)
        refused = refusal(*backup, SHM_DB_DSN=dsn)
        assert "has no TLS: install the system's of the same version" in refused
        assert (proxy.encrypted > 0, proxy.plain) == (True, 0)
        assert not (tmp_path / "shm.dump").exists()
        run(*backup, SHM_DB_DSN=dsn, PGSSLMODE="disable")
        assert proxy.plain > 1
