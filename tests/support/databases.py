"""Databases for tests, each a copy of one migrated template: on one PostgreSQL, or on the cluster of TEST_CITUS_DSN."""

import argparse
import os
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import psycopg2
from psycopg2.extensions import make_dsn, parse_dsn

from shm.cli.migrate import run as run_migrate
from shm.db.embedded_role import ROLE, SUPERUSER
from tests.support import citus

TEMPLATE = f"shm_template_{os.environ.get('PYTEST_XDIST_WORKER', 'gw0')}"
STRATEGY = "FILE_COPY"  # takes half of the CPU time of WAL_LOG, the default, where fsync is off


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


def fresh_database(postgres: str) -> AbstractContextManager[str]:
    """The DSN of a migrated database that is dropped at the end of the context."""
    return empty_database(postgres, TEMPLATE)


@contextmanager
def empty_database(postgres: str, template: str = "template1") -> Iterator[str]:
    """The DSN of a database, a copy of `template`, that is dropped at the end of the context."""
    name = f"shm_{secrets.token_hex(6)}"
    yield create_database(postgres, name, f"TEMPLATE {template} STRATEGY {STRATEGY}")
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
    create_database(postgres, name, f"TEMPLATE {source} STRATEGY {STRATEGY}")


def migrate(dsn: str) -> None:
    """Migrates the schema of a database, as `shm migrate` does."""
    assert run_migrate(argparse.Namespace(dsn=dsn, data_dir=None)) == 0


def select_column(database: str, sql: str, *parameters: object) -> list[Any]:
    """The first column of all rows."""
    with admin_cursor(database) as cursor:
        cursor.execute(sql, parameters or None)
        return [row[0] for row in cursor.fetchall()]


def execute(database: str, sql: str, *parameters: object) -> None:
    """Executes SQL without the server."""
    with admin_cursor(database) as cursor:
        cursor.execute("SET timezone = 'UTC'")
        cursor.execute(sql, parameters or None)
