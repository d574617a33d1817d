"""PostgreSQL's errors as exceptions of SHM, with its message only where that cannot contain an install's data."""

import asyncio
import io
import logging
import os
import resource
from collections.abc import Iterator

import psycopg2
import pytest
from psycopg2.extensions import make_dsn

from shm.core.errors import (
    ConfigurationError,
    DatabaseBusy,
    DatabaseUnavailable,
    QueryTooSlow,
    ShmError,
    StatementFailed,
    UnstorableData,
)
from shm.core.file_limit import raise_file_limit
from shm.core.logs import RedactingFormatter
from shm.core.settings import Settings
from shm.db.advisory_locks import Lock
from shm.db.connect_errors import check_dsn, describe_connect_error
from shm.db.connection import Connection
from shm.db.database import Database
from tests.support.databases import admin_cursor, execute

FD_SETSIZE = 1_024  # select.select takes only file descriptors below it
SECRET = "sent-by-an-install"
SETTINGS = Settings.load({"SHM_START_PATIENCE": "1s"})


def log_output(error: ShmError) -> str:
    """The log's output for an exception."""
    output = io.StringIO()
    handler = logging.StreamHandler(output)
    handler.setFormatter(RedactingFormatter("%(message)s"))
    logger = logging.Logger("shm.test")
    logger.addHandler(handler)
    logger.error("it failed", exc_info=error)
    return output.getvalue()


async def error_of(connection: Connection, sql: str) -> ShmError:
    """The error of a string of SQL without parameters."""
    with pytest.raises(ShmError) as raised:
        await connection.execute_sql(sql, "a change of the schema")
    return raised.value


async def test_a_failed_schema_change_has_postgresqls_message(database: str) -> None:
    async with Database.connect(SETTINGS, database, 1) as pool, pool.dedicated_connection() as connection:
        exists = await error_of(connection, "CREATE TABLE applications ()")
        syntax = await error_of(connection, "CREATE STABLE applications ()")
    assert type(exists) is type(syntax) is StatementFailed
    expected = 'a change of the schema: relation "applications" already exists (DuplicateTable, SQLSTATE 42P07)'
    assert str(exists) == expected
    assert f"StatementFailed: {expected}" in log_output(exists)
    assert 'syntax error at or near "STABLE"' in log_output(syntax)


async def test_the_error_of_a_schema_change_quotes_no_stored_value(database: str) -> None:
    async with Database.connect(SETTINGS, database, 1) as pool, pool.dedicated_connection() as connection:
        execute(database, "INSERT INTO applications (slug, name) VALUES (%s, 'x'), ('other', 'x')", SECRET)
        cast = await error_of(connection, "ALTER TABLE applications ALTER slug TYPE integer USING slug::integer")
        unique = await error_of(connection, "CREATE UNIQUE INDEX ON applications (name)")
    assert str(cast) == "a change of the schema: InvalidTextRepresentation, SQLSTATE 22P02"
    assert "could not create unique index" in str(unique)
    assert SECRET not in log_output(cast) + log_output(unique)


@pytest.mark.parametrize("kind", [Database, Connection])
async def test_a_statement_with_parameters_fails_without_their_values(
    database: str, kind: type[Database] | type[Connection]
) -> None:
    async with Database.connect(SETTINGS, database, 1) as pool, pool.dedicated_connection() as connection:
        runner = pool if kind is Database else connection
        with pytest.raises(StatementFailed) as null:
            await runner.execute("applications.add_alias", slug=SECRET, app_slug=None)
        with pytest.raises(UnstorableData) as no_uuid:
            await runner.execute("tokens.delete", id=SECRET)
    assert str(null.value) == "applications.add_alias: NotNullViolation, SQLSTATE 23502"
    assert str(no_uuid.value) == "tokens.delete: InvalidTextRepresentation, SQLSTATE 22P02"
    assert "StatementFailed: applications.add_alias: NotNullViolation, SQLSTATE 23502" in log_output(null.value)
    assert SECRET not in log_output(null.value) + log_output(no_uuid.value)


@pytest.fixture
def many_open_files() -> Iterator[None]:
    """The next file of this process gets a descriptor above 1,023."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    raise_file_limit()
    files = [os.open(os.devnull, os.O_RDONLY)]
    try:
        while files[-1] < FD_SETSIZE:
            files.append(os.dup(files[0]))
        yield
    finally:
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.usefixtures("many_open_files")
async def test_errors_arrive_on_connections_with_high_descriptors(database: str) -> None:
    async with Database.connect(SETTINGS, database, 1) as pool:
        for _ in range(2):
            with pytest.raises(UnstorableData):
                await pool.execute("tokens.delete", id=SECRET)
        execute(database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'shm'")
        with pytest.raises(UnstorableData):  # on a new connection
            await pool.execute("tokens.delete", id=SECRET)


async def test_a_locked_table_and_a_cancelled_statement_raise_different_errors(database: str) -> None:
    async with Database.connect(SETTINGS, database, 1) as pool:
        with admin_cursor(database) as cursor:
            cursor.execute("BEGIN; LOCK TABLE tokens IN ACCESS EXCLUSIVE MODE")
            async with pool.schema_change_connection(Lock.PARTITIONS, 50) as connection:
                assert type(await error_of(connection, "ALTER TABLE tokens ADD x integer")) is DatabaseBusy
            cursor.execute("ROLLBACK")
            async with pool.dedicated_connection() as connection:
                statement = asyncio.create_task(error_of(connection, "SELECT pg_sleep(60)"))
                cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'"
                while not statement.done():
                    cursor.execute(cancel)
                    await asyncio.sleep(0.05)
                assert type(await statement) is QueryTooSlow


@pytest.mark.parametrize(
    ("sqlstate", "message", "is_expected"),
    [
        ("08006", f"connection to the remote node shm@10.0.0.9:5432 failed with the following error: {SECRET}", True),
        ("XX000", "failure on connection marked as essential: 10.0.0.9:5432", True),
        ("XX000", f"failure on {SECRET}", False),
        ("08P01", "invalid message format", False),
    ],
)
async def test_a_worker_of_citus_that_is_away_makes_the_database_unavailable(
    database: str, sqlstate: str, message: str, is_expected: bool
) -> None:
    async with Database.connect(SETTINGS, database, 1) as pool, pool.dedicated_connection() as connection:
        raised = await error_of(connection, f"DO $$ BEGIN RAISE '{message}' USING ERRCODE = '{sqlstate}'; END $$")
    said = f"a change of the schema: PostgreSQL cannot reach a worker of Citus, SQLSTATE {sqlstate}"
    assert (type(raised) is DatabaseUnavailable and str(raised) == said) is is_expected
    assert SECRET not in log_output(raised)
    assert "10.0.0.9" not in log_output(raised)


async def test_fetch_value_has_the_requested_type_or_is_none(database: str) -> None:
    """NULL and a missing row are None; a value of another type raises TypeError."""
    async with Database.connect(SETTINGS, database, 1) as pool:
        assert await pool.fetch_value(int, "kpis.count_new_this_week") == 0
        assert await pool.fetch_value(bool, "instances.is_refresh_due") is None
        with pytest.raises(TypeError, match=r"kpis\.count_new_this_week returned int, expected str"):
            await pool.fetch_value(str, "kpis.count_new_this_week")
        execute(database, "INSERT INTO applications (slug, name) VALUES ('a', 'a')")
        assert [await pool.execute("applications.delete_empty", slug="a") for _ in range(2)] == [1, 0]


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ({"dbname": "no_such"}, "The database no_such does not exist. Create it with `createdb no_such`"),
        ({"user": "nobody_here"}, "The role nobody_here does not exist. Create it with `createuser"),
        ({"host": "/nowhere"}, "The socket of PostgreSQL does not exist"),
        ({"host": "127.0.0.1", "port": "1"}, "No server listens on the host and port of SHM_DB_DSN."),
    ],
)
async def test_a_failed_connection_at_the_start_has_a_cause_and_a_remedy(
    postgres: str, parts: dict[str, str], problem: str
) -> None:
    dsn = make_dsn(postgres, password=SECRET, **parts)
    with pytest.raises(DatabaseUnavailable) as raised:
        async with Database.connect(SETTINGS, dsn, 1):
            pass
    assert "could not be reached within 1 s" in str(raised.value)
    assert problem in str(raised.value)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ('FATAL:  password authentication failed for user "shm"', "refused the password of the role shm."),
        ("fe_sendauth: no password supplied", "SHM_DB_DSN has none"),
        ("server does not support SSL, but SSL was required", "sslmode=prefer"),
        ("SSL error: certificate verify failed", "sslrootcert"),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.9", user "a", database "b", no encryption', "sslmode=require"),
        ("local user with ID 12345 does not exist", "SHM_DB_DSN names no role. Add a role to SHM_DB_DSN"),
        ("FATAL:  terminating connection due to transaction timeout", "RESET transaction_timeout"),
        ("FATAL:  sorry, too many clients already", "max_connections"),
        ('FATAL:  too many connections for role "shm"', "the role shm may have are in use. Raise its CONNECTION LIMIT"),
        ('FATAL:  too many connections for database "a"', "the database a may have are in use. Raise its CONNECTION"),
        ("an unknown message\nand more", "an unknown message"),
    ],
)
def test_a_message_of_libpq_becomes_a_cause_and_a_remedy(message: str, problem: str) -> None:
    error = psycopg2.OperationalError(f'connection to server at "db", port 5432 failed: {message}\n')
    described = describe_connect_error(error, "SHM_DB_DSN")
    assert problem in described
    assert "10.0.0.9" not in described


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://u:a@{SECRET}@127.0.0.1:1/db",
        f"postgresql://u:a/{SECRET}@127.0.0.1:1/db",
        f"postgresql://u:1/{SECRET}@127.0.0.1:1/db",
        f"postgresql://u:a@{SECRET}/b@127.0.0.1:1/db",
        f"postgresql://u:a@b/{SECRET}@127.0.0.1:1/db",
        f"postgres://u@{SECRET}:a@127.0.0.1:1/db",
        f"postgresql://u:a@b/{SECRET}?c@127.0.0.1:1/db",
        f"postgresql://u:a/{SECRET}?b=c@127.0.0.1:1/db",
        f"postgresql://u:a@b?dbname={SECRET}@127.0.0.1:1/db",
        f"postgresql://u:{SECRET}@b?application_name=c@127.0.0.1:1/db",
        f"postgresql://u:a@b/c?host={SECRET}@127.0.0.1:1/db",
        f"postgresql://u:a@b?no_such={SECRET}@127.0.0.1:1/db",
        f"postgresql://u:{SECRET}%zz@127.0.0.1:1/db",
        f"host=127.0.0.1 port=1 password=a {SECRET} dbname=db",
        f"host=127.0.0.1 port=1 password='a'{SECRET} dbname=db",
        f"host=127.0.0.1 port=1 password='{SECRET} dbname=db",
    ],
)
def test_a_password_that_is_not_encoded_is_refused_and_not_shown(dsn: str) -> None:
    with pytest.raises(ConfigurationError, match="SHM_DB_DSN is invalid") as raised:
        check_dsn(dsn, "SHM_DB_DSN")
    assert SECRET not in str(raised.value)


def test_a_socket_directory_may_have_any_name() -> None:
    check_dsn("postgresql:///db?host=%2Ftmp%2Fa%40b", "SHM_DB_DSN")
    check_dsn("postgresql:///db?host=@abstract&user=shm@server", "SHM_DB_DSN")
    check_dsn("postgresql://shm@host/db?password=p@ss", "SHM_DB_DSN")
    check_dsn("host=@abstract dbname=a@b", "SHM_DB_DSN")
