"""Migrations: of an empty database, and of one of the first release with all its rows; any other one is refused."""

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg2
import pytest
from nacl.signing import SigningKey

from shm.db.migrations import CREATE_HISTORY, load_migrations
from shm.db.statements import sql_directory
from tests.support import citus, first_release, plain_http
from tests.support.background_jobs import run_background_jobs
from tests.support.databases import admin_cursor, empty_database, empty_schema, migrate
from tests.support.installs import Install
from tests.support.oracle import assert_matches_oracle, assert_series_match_oracle
from tests.support.parameters import long_after
from tests.support.server_process import ServerProcess
from tests.support.shm_command import run_shm
from tests.support.subscriber import subscribe

pytestmark = pytest.mark.cluster

# All data that SHM cannot recompute, in columns that later migrations keep.
SELECT_STORED = """
    SELECT instance_id::text, snapshot_at::text, received_at::text, app_slug, app_version, sequence, metrics::text
    FROM snapshots
    UNION ALL
    SELECT instance_id::text, registered_at::text, first_seen_at::text, app_slug, app_version, cursor, staged::text
    FROM instances
    UNION ALL
    SELECT encode(public_key, 'hex'), last_seen_at::text, revoked_at::text, status, app_name, 0, environment
    FROM instances
    UNION ALL
    SELECT slug, created_at::text, updated_at::text, name, github_url, stars, overrides::text FROM applications
    UNION ALL
    SELECT encode(token_hash, 'hex'), created_at::text, expires_at::text, role, name, 0, id::text FROM tokens
    UNION ALL
    SELECT instance_id::text, lost_at::text, returned_at::text, NULL, NULL, 0, NULL FROM absences
    UNION ALL
    SELECT instance_id::text, removed_at::text, NULL, app_slug, NULL, cursor, NULL FROM removals
    ORDER BY 1, 2, 3, 4, 5
"""
SELECT_HISTORY = "SELECT version, checksum, applied_at FROM schema_migrations ORDER BY version"
SELECT_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
FIRST_DEVELOPMENT_SCHEMA = "3512cb046d73e6511ed9c0827a882ba683e2b90e1ff2d2768e6c02f091420113"  # its checksum


def fetch_rows(dsn: str, sql: str) -> list[tuple[Any, ...]]:
    """All rows."""
    with admin_cursor(dsn) as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


@pytest.fixture
def empty(postgres: str) -> Iterator[str]:
    """The DSN of a database without any table."""
    with empty_database(postgres) as dsn:
        yield dsn


@pytest.fixture
def released(database: str) -> str:
    """The test's database in the state of the first release."""
    first_release.restore(database)
    return database


@pytest.fixture
def migrated(released: str) -> str:
    """The same, migrated, with its timestamps moved to today."""
    migrate(released)
    if citus.DSN:
        citus.distribute(released)
    first_release.bring_to_today(released)
    return released


def test_each_migration_has_its_own_number() -> None:
    """The second one of two with the same number would never be applied."""
    assert len(load_migrations()) == len(list((sql_directory() / "migrations").glob("*.sql")))


def test_migrating_a_database_of_the_first_release_loses_no_data(released: str) -> None:
    before = fetch_rows(released, SELECT_STORED)
    migrate(released)
    assert fetch_rows(released, SELECT_STORED) == before
    history = fetch_rows(released, SELECT_HISTORY)
    assert [(version, checksum) for version, checksum, _ in history] == [
        (version, hashlib.sha256(sql.encode()).hexdigest()) for version, sql in load_migrations().items()
    ]
    migrate(released)
    assert fetch_rows(released, SELECT_HISTORY) == history
    assert fetch_rows(released, SELECT_STORED) == before


def test_a_migrated_and_a_new_database_have_the_same_schema(released: str, empty: str) -> None:
    columns = """
        SELECT table_name, column_name, data_type, is_nullable, column_default, collation_name
        FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2
    """
    constraints = """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace AND contype <> 'n' ORDER BY 1, 2
    """
    objects = """
        SELECT indexname, indexdef, '' FROM pg_indexes WHERE schemaname = 'public'
        UNION ALL
        SELECT viewname, definition, '' FROM pg_views WHERE schemaname = 'public'
        UNION ALL
        SELECT proname, pg_get_functiondef(oid), '' FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        UNION ALL
        SELECT relname, reloptions::text, relkind::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
        ORDER BY 1, 2
    """
    migrate(released)
    migrate(empty)
    for sql in (columns, constraints, objects):
        assert fetch_rows(released, sql) == fetch_rows(empty, sql)


def test_the_figures_of_a_migrated_database_match_its_snapshots(
    migrated: str, serve: Callable[..., ServerProcess]
) -> None:
    with run_background_jobs(migrated) as background:
        server = serve()
        assert_matches_oracle(server, migrated)
        background.run()
        assert_matches_oracle(server, migrated)
        assert_series_match_oracle(server, migrated)
        assert background.differences() == {}
        Install(server.url).enroll({"orders": 5, "mail": {"sent": 1}})
        background.run()
        assert_matches_oracle(server, migrated)
        assert_series_match_oracle(server, migrated, periods=("24h", "3m"))


def test_tokens_and_installs_of_the_first_release_stay_valid(
    migrated: str, serve: Callable[..., ServerProcess]
) -> None:
    server = serve()
    headers = {"Authorization": f"Bearer {first_release.TOKEN}"}
    response = plain_http.get(f"{server.url}/api/v1/admin/instances?limit=1000", headers=headers).raise_for_status()
    assert {item["instance_id"] for item in response.json()} == {
        instance_id for (instance_id,) in fetch_rows(migrated, "SELECT instance_id::text FROM instances")
    }
    key = SigningKey.generate()
    with admin_cursor(migrated) as cursor:
        cursor.execute(
            "UPDATE instances SET public_key = %s WHERE staged IS NOT NULL RETURNING instance_id::text",
            [psycopg2.Binary(bytes(key.verify_key))],
        )
        ((instance_id,),) = cursor.fetchall()
    install = Install(server.url, instance_id=instance_id, key=key)
    assert install.snapshot({"orders": 7}).status_code == 202
    item = server.get(f"instances/{instance_id}").json()
    assert (item["metrics"], item["app_version"]) == ({"orders": 7}, "1.6.0")


async def test_a_subscriber_of_the_first_release_resumes_at_its_cursor(
    migrated: str, serve: Callable[..., ServerProcess]
) -> None:
    ((last_cursor,),) = fetch_rows(migrated, "SELECT cursor FROM feed_head")
    removed = {instance_id for (instance_id,) in fetch_rows(migrated, "SELECT instance_id::text FROM removals")}
    server = await asyncio.to_thread(serve)
    async with (
        subscribe(server, f"?since={last_cursor}") as subscriber,
        subscribe(server, "?since=0") as from_zero,
    ):
        assert (await subscriber.message()) == {"type": "hello", "cursor": last_cursor, "heartbeat_s": 15}
        install = await asyncio.to_thread(Install(server.url).enroll, {"orders": 5})
        change = await subscriber.until("instance")
        assert change["instance"]["instance_id"] == install.instance_id
        assert change["cursor"] > last_cursor
        await from_zero.until("instance", change["cursor"])
        known = {instance_id for (instance_id,) in fetch_rows(migrated, "SELECT instance_id::text FROM instances")}
        assert known <= from_zero.instances.keys()
        assert removed
        assert from_zero.cursors == sorted(set(from_zero.cursors))


@pytest.mark.parametrize("is_empty", long_after(1, [False, True]), ids=["first release", "empty"])
def test_two_servers_that_start_at_once_migrate_once_and_both_serve(
    serve: Callable[..., ServerProcess], database: str, *, is_empty: bool
) -> None:
    empty_schema(database)
    if not is_empty:
        first_release.restore(database)
    missing = len(load_migrations()) - len(fetch_rows(database, SELECT_HISTORY) if not is_empty else [])
    with ThreadPoolExecutor(2) as pool:
        servers = list(pool.map(lambda _: serve(), range(2)))
    for server in servers:
        assert "Traceback" not in server.log
        assert Install(server.url).enroll({"orders": 1})
    assert sum(server.log.count("applying migration") for server in servers) == missing


@pytest.mark.parametrize("command", [("migrate",), ("serve", "--port", "0")], ids=["migrate", "serve"])
def test_a_database_of_a_development_version_is_refused_unchanged(empty: str, command: tuple[str, ...]) -> None:
    with admin_cursor(empty) as cursor:
        cursor.execute(CREATE_HISTORY)
        cursor.execute("CREATE TABLE instances (instance_id uuid PRIMARY KEY); CREATE TABLE stirs (cursor bigint)")
        cursor.execute(
            "INSERT INTO schema_migrations (version, checksum) SELECT n, %s FROM generate_series(1, 9) n",
            [FIRST_DEVELOPMENT_SCHEMA],
        )
    before = fetch_rows(empty, SELECT_HISTORY), fetch_rows(empty, SELECT_TABLES)
    refused = run_shm(*command, SHM_DB_DSN=empty)
    assert refused.returncode == 1
    assert "A development version from before the first release created this database" in refused.stderr
    assert "Start with an empty database" in refused.stderr
    assert "`shm export`" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert (fetch_rows(empty, SELECT_HISTORY), fetch_rows(empty, SELECT_TABLES)) == before


@pytest.mark.parametrize("has_history", long_after(1, [True, False]), ids=["without rows", "without the table"])
def test_tables_that_no_recorded_migration_created_are_refused_unchanged(empty: str, *, has_history: bool) -> None:
    with admin_cursor(empty) as cursor:
        cursor.execute("CREATE TABLE snapshots (id bigint); CREATE TABLE applications (id bigint)")
        if has_history:
            cursor.execute(CREATE_HISTORY)
    before = fetch_rows(empty, SELECT_TABLES)
    refused = run_shm("migrate", SHM_DB_DSN=empty)
    assert refused.returncode == 1
    assert "with the names of SHM's own (applications, snapshots)" in refused.stderr
    assert "Start with an empty database" in refused.stderr
    assert fetch_rows(empty, SELECT_TABLES) == before


def test_tables_of_other_programs_are_left_alone(empty: str) -> None:
    with admin_cursor(empty) as cursor:
        cursor.execute("CREATE TABLE invoices (id bigint)")
    migrate(empty)
    assert {("invoices",), ("instances",)} <= {*fetch_rows(empty, SELECT_TABLES)}


def test_a_database_of_a_newer_release_is_refused(database: str) -> None:
    with admin_cursor(database) as cursor:
        cursor.execute("INSERT INTO schema_migrations (version, checksum) VALUES (9999, '')")
    refused = run_shm("migrate", SHM_DB_DSN=database)
    assert refused.returncode == 1
    assert "which this release does not have: a newer SHM" in refused.stderr
