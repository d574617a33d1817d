"""PostgreSQL's failures as errors of ours: with its message where that can hold nothing that an install sent."""

import asyncio
import io
import logging

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
from shm.core.logs import RedactingFormatter
from shm.core.settings import Settings
from shm.db.advisory_locks import Lock
from shm.db.connect_errors import check_dsn, describe_connect_error
from shm.db.database import Connection, Database
from tests.support.databases import admin_cursor

SECRET = "sent-by-an-install"
FIRST_TRY = Settings.load({"SHM_START_PATIENCE": "1s"})


def logged(error: ShmError) -> str:
    """What the server's log says of an exception."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(RedactingFormatter("%(message)s"))
    logger = logging.Logger("shm.test")
    logger.addHandler(handler)
    logger.error("it failed", exc_info=error)
    return written.getvalue()


async def refused(connection: Connection, sql: str) -> ShmError:
    """The error that a string of SQL without parameters ends with."""
    with pytest.raises(ShmError) as caught:
        await connection.execute_sql(sql, "a change of the schema")
    return caught.value


async def test_a_change_of_the_schema_that_fails_has_postgresqls_message(database: str) -> None:
    async with Database.connect(FIRST_TRY, database, 1) as opened, opened.dedicated_connection() as connection:
        exists = await refused(connection, "CREATE TABLE applications ()")
        syntax = await refused(connection, "CREATE STABLE applications ()")
    assert type(exists) is type(syntax) is StatementFailed
    expected = 'a change of the schema: relation "applications" already exists (DuplicateTable, SQLSTATE 42P07)'
    assert str(exists) == expected
    assert f"StatementFailed: {expected}" in logged(exists)
    assert 'syntax error at or near "STABLE"' in logged(syntax)


async def test_a_value_in_a_table_is_not_quoted_by_a_change_of_the_schema(database: str) -> None:
    async with Database.connect(FIRST_TRY, database, 1) as opened, opened.dedicated_connection() as connection:
        for slug in (SECRET, "other"):
            await connection.execute("applications.insert_missing", slug=slug, name="x")
        cast = await refused(connection, "ALTER TABLE applications ALTER slug TYPE integer USING slug::integer")
        unique = await refused(connection, "CREATE UNIQUE INDEX ON applications (name)")
    assert str(cast) == "a change of the schema: InvalidTextRepresentation, SQLSTATE 22P02"
    assert "could not create unique index" in str(unique)
    assert SECRET not in logged(cast) + logged(unique)


@pytest.mark.parametrize("kind", [Database, Connection])
async def test_a_statement_with_parameters_fails_without_their_values(
    database: str, kind: type[Database] | type[Connection]
) -> None:
    async with Database.connect(FIRST_TRY, database, 1) as opened, opened.dedicated_connection() as connection:
        runner = opened if kind is Database else connection
        with pytest.raises(StatementFailed) as null:
            await runner.execute("applications.insert_missing", slug=SECRET, name=None)
        with pytest.raises(UnstorableData) as no_uuid:
            await runner.execute("tokens.delete", id=SECRET)
    assert str(null.value) == "applications.insert_missing: NotNullViolation, SQLSTATE 23502"
    assert str(no_uuid.value) == "tokens.delete: InvalidTextRepresentation, SQLSTATE 22P02"
    assert "StatementFailed: applications.insert_missing: NotNullViolation, SQLSTATE 23502" in logged(null.value)
    assert SECRET not in logged(null.value) + logged(no_uuid.value)


async def test_a_table_in_use_and_a_cancelled_statement_are_told_apart(database: str) -> None:
    async with Database.connect(FIRST_TRY, database, 1) as opened:
        with admin_cursor(database) as cursor:
            cursor.execute("BEGIN; LOCK TABLE tokens IN ACCESS EXCLUSIVE MODE")
            async with opened.schema_change_connection(Lock.PARTITIONS, 50) as connection:
                assert type(await refused(connection, "ALTER TABLE tokens ADD x integer")) is DatabaseBusy
            cursor.execute("ROLLBACK")
            async with opened.dedicated_connection() as connection:
                asked = asyncio.create_task(refused(connection, "SELECT pg_sleep(60)"))
                cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'"
                while not asked.done():
                    cursor.execute(cancel)
                    await asyncio.sleep(0.05)
                assert type(await asked) is QueryTooSlow


async def test_fetch_value_has_the_requested_type_or_is_none(database: str) -> None:
    """One value is of the class that was asked for and null and no row are none."""
    async with Database.connect(FIRST_TRY, database, 1) as opened:
        assert await opened.fetch_value(int, "kpis.count_new_this_week") == 0
        assert await opened.fetch_value(bool, "instances.is_refresh_due") is None
        with pytest.raises(TypeError, match=r"health\.ping returned int, expected str"):
            await opened.fetch_value(str, "health.ping")
        assert [await opened.execute("applications.insert_missing", slug="a", name="a") for _ in range(2)] == [1, 0]


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ({"dbname": "no_such"}, "The database no_such does not exist. Create it with `createdb no_such`"),
        ({"user": "nobody_here"}, "The role nobody_here does not exist. Create it with `createuser"),
        ({"host": "/nowhere"}, "There is no socket of PostgreSQL in its directory."),
        ({"host": "127.0.0.1", "port": "1"}, "Nothing listens at the host and port of SHM_DB_DSN."),
    ],
)
async def test_a_start_that_cannot_connect_says_why_and_what_mends_it(
    postgres: str, parts: dict[str, str], problem: str
) -> None:
    dsn = make_dsn(postgres, password=SECRET, **parts)
    with pytest.raises(DatabaseUnavailable) as caught:
        async with Database.connect(FIRST_TRY, dsn, 1):
            pass
    assert "could not be reached within 1 s" in str(caught.value)
    assert problem in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("libpq", "problem"),
    [
        ('FATAL:  password authentication failed for user "shm"', "refused the password of the role shm."),
        ("fe_sendauth: no password supplied", "SHM_DB_DSN has none"),
        ("server does not support SSL, but SSL was required", "sslmode=prefer"),
        ("SSL error: certificate verify failed", "sslrootcert"),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.9", user "a", database "b", no encryption', "sslmode=require"),
        ("FATAL:  sorry, too many clients already", "max_connections"),
        ("something that nobody knows\nand more", "something that nobody knows"),
    ],
)
def test_what_libpq_says_becomes_a_sentence_with_a_remedy(libpq: str, problem: str) -> None:
    failure = psycopg2.OperationalError(f'connection to server at "db", port 5432 failed: {libpq}\n')
    assert problem in describe_connect_error(failure)
    assert "10.0.0.9" not in describe_connect_error(failure)


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://u:a@{SECRET}@127.0.0.1:1/db",
        f"postgresql://u:a/{SECRET}@127.0.0.1:1/db",
        f"postgresql://u:1/{SECRET}@127.0.0.1:1/db",
    ],
)
def test_a_password_that_is_not_encoded_is_refused_and_not_shown(dsn: str) -> None:
    with pytest.raises(ConfigurationError, match="SHM_DB_DSN is invalid") as caught:
        check_dsn(dsn)
    assert SECRET not in str(caught.value)


def test_a_socket_folder_may_have_any_name() -> None:
    check_dsn("postgresql:///db?host=%2Ftmp%2Fa%40b")
    check_dsn("host=@abstract dbname=a@b")
