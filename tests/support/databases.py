"""Databases for tests, each a copy of one migrated template: on one PostgreSQL, or on the cluster of TEST_CITUS_DSN."""

import argparse
import asyncio
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.extensions import make_dsn, parse_dsn

from shm.cli.migrate import run as run_migrate
from shm.core.settings import Settings
from shm.db import partitions
from shm.db.database import Database
from shm.db.embedded.role import ROLE, SUPERUSER
from tests.support import citus

TEMPLATE = f"shm_template_{os.environ.get('PYTEST_XDIST_WORKER', 'gw0')}"
STRATEGY = "FILE_COPY"  # takes half of the CPU time of WAL_LOG, the default, where fsync is off
MEMORY = Path("/dev/shm")  # noqa: S108 - a file system in memory, which Linux has
MIN_FREE_MEMORY = 4 * 1024**3  # bytes; each worker's PostgreSQL takes some hundred MiB
SET_READ_ONLY = """
    DO $$ BEGIN
        EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = {}', current_database());
    END $$
"""
OPENING_TIMEOUT_S = 60  # of a session
COUNT_OPENING = """
    SELECT count(*) FROM pg_locks JOIN pg_database ON objid = pg_database.oid
    WHERE classid = 'pg_database'::regclass AND datname = current_database()
"""
END_SESSIONS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'shm'
"""


def memory_folder() -> str | None:
    """A directory in memory, if it has space: a database is copied in a fifth of the CPU time there."""
    is_large = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= MIN_FREE_MEMORY
    return str(MEMORY) if is_large else None


@contextmanager
def admin_cursor(dsn: str) -> Iterator[psycopg2.extensions.cursor]:
    """A cursor in autocommit."""
    connection = psycopg2.connect(dsn)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


@contextmanager
def superuser_cursor(dsn: str) -> Iterator[psycopg2.extensions.cursor]:
    """A cursor in autocommit, as the superuser of the embedded PostgreSQL or of the cluster."""
    with admin_cursor(dsn if citus.DSN else make_dsn(dsn, user=SUPERUSER)) as cursor:
        yield cursor


def make_read_only(cursor: psycopg2.extensions.cursor) -> None:
    """Makes a database read-only for SHM: the sessions that it opens from now on, and those it has, which end.

    A session reads the setting while it opens, holding a lock, and is listed in pg_stat_activity only afterwards. So
    the setting is committed first, then those that read it before have opened, and only then all of them end.
    """
    cursor.execute(SET_READ_ONLY.format("ON"))
    cursor.execute(COUNT_OPENING)
    deadline = time.monotonic() + OPENING_TIMEOUT_S
    while cursor.fetchone() != (0,):
        assert time.monotonic() < deadline, "a session does not open"
        time.sleep(0.01)
        cursor.execute(COUNT_OPENING)
    cursor.execute(END_SESSIONS)


def make_writable(cursor: psycopg2.extensions.cursor) -> None:
    """Ends what `make_read_only` did, for the sessions that SHM opens from now on."""
    cursor.execute(SET_READ_ONLY.format("OFF"))


def create_database(postgres: str, name: str, options: str = "") -> str:
    """Creates a database whose schema belongs to SHM's role, and returns its DSN."""
    if citus.DSN:
        return citus.create_database(name, options)
    with superuser_cursor(postgres) as cursor:
        cursor.execute(f"CREATE DATABASE {name} {options}")
    dsn = make_dsn(postgres, dbname=name)
    with superuser_cursor(dsn) as cursor:
        cursor.execute(f"ALTER SCHEMA public OWNER TO {ROLE}")
    return dsn


def empty_schema(dsn: str) -> None:
    """Removes everything from a database."""
    if citus.DSN:
        return citus.empty_schema(dsn)
    with superuser_cursor(dsn) as cursor:
        cursor.execute(f"DROP SCHEMA public CASCADE; CREATE SCHEMA public AUTHORIZATION {ROLE}")
    return None


def copy_database(postgres: str, source: str, name: str) -> str:
    """Creates a copy of a database without connections, with its owners, and returns its DSN."""
    if citus.DSN:
        return citus.create_database(name, f"TEMPLATE {source} STRATEGY {STRATEGY}")
    with superuser_cursor(postgres) as cursor:
        cursor.execute(f"CREATE DATABASE {name} TEMPLATE {source} STRATEGY {STRATEGY}")
    return make_dsn(postgres, dbname=name)


def unique_name() -> str:
    """A name for a database that no other one has."""
    return f"shm_{secrets.token_hex(6)}"


@contextmanager
def fresh_database(postgres: str) -> Iterator[str]:
    """The DSN of a migrated database that is dropped at the end of the context."""
    name = unique_name()
    yield copy_database(postgres, TEMPLATE, name)
    drop_database(postgres, name)


@contextmanager
def empty_database(postgres: str) -> Iterator[str]:
    """The DSN of a database without tables that is dropped at the end of the context."""
    name = unique_name()
    yield create_database(postgres, name, f"STRATEGY {STRATEGY}")
    drop_database(postgres, name)


def drop_database(postgres: str, name: str) -> None:
    """Drops a database, and ends its connections."""
    if citus.DSN:
        return citus.drop_database(name)
    with superuser_cursor(postgres) as cursor:
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
    return None


def recreate(postgres: str, database: str, template: str) -> None:
    """Replaces a database by a copy of another, while neither has a connection. All three are DSNs."""
    name, source = (parse_dsn(dsn)["dbname"] for dsn in (database, template))
    drop_database(postgres, name)
    if citus.DSN:
        citus.close_connections(source)
    copy_database(postgres, source, name)


def create_weeks(dsn: str) -> None:
    """Creates the weekly partitions as a server's start does, which would take a fifth of its time."""

    async def create() -> None:
        async with Database.connect(Settings(), dsn, size=1) as database:
            await partitions.create_missing(database, Settings())

    asyncio.run(create())


def migrate(dsn: str) -> None:
    """Migrates the schema of a database, as `shm migrate` does."""
    assert run_migrate(argparse.Namespace(dsn=dsn, data_dir=None)) == 0


def select_column(database: str, sql: str, *parameters: object) -> list[Any]:
    """The first column of all rows."""
    with admin_cursor(database) as cursor:
        cursor.execute(sql, parameters or None)
        return [row[0] for row in cursor.fetchall()]


def waiting_statements(database: str) -> list[str]:
    """The statements that wait for a lock."""
    return select_column(
        database,
        "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
    )


def execute(database: str, sql: str, *parameters: object) -> None:
    """Executes SQL without the server."""
    with admin_cursor(database) as cursor:
        cursor.execute("SET timezone = 'UTC'")
        cursor.execute(sql, parameters or None)
