"""Databases on the Citus cluster of TEST_CITUS_DSN: each exists on the coordinator and on every worker.

TEST_CITUS_DSN is the DSN of an empty database on the coordinator, as a superuser (CONTRIBUTING.md, Tests).
That database is only read, for the addresses of the nodes. A copy of a template on every node is a distributed database
of its own, because Citus addresses shards by the name of the database.
"""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from typing import Any

import psycopg2
from psycopg2.extensions import make_dsn, parse_dsn

from shm.db.migrations import split_statements
from shm.db.statements import sql_directory

DSN = os.environ.get("TEST_CITUS_DSN", "")
SHARD_COUNT = 4  # few, because each shard has a table for each week
DISTRIBUTE_FIRST_RELEASE = (
    "SELECT create_distributed_table('snapshots', 'instance_id')",
    "SELECT create_distributed_function('flatten_metrics(jsonb)')",
)
DROP_TABLES = """
    SELECT format('DROP TABLE IF EXISTS %s CASCADE', oid::regclass) FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
"""
DROP_FUNCTIONS = """
    SELECT format('DROP FUNCTION %s CASCADE', oid::regprocedure) FROM pg_proc
    WHERE pronamespace = 'public'::regnamespace
"""
NOT_PROPAGATED = "SET citus.enable_create_database_propagation = off"
NODES = "SELECT nodename, nodeport FROM pg_dist_node ORDER BY groupid"
TERMINATE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'"
IS_USED = "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}'"


def create_database(name: str, options: str = "") -> str:
    """Creates a database on every node and returns its DSN on the coordinator."""
    for node in _nodes():
        _run(node, NOT_PROPAGATED, f"CREATE DATABASE {name} {options}")
    if "TEMPLATE" not in options:
        for node in _nodes():
            _run(make_dsn(node, dbname=name), "CREATE EXTENSION citus")
        (coordinator, *workers) = _run(DSN, NODES)
        dsn = make_dsn(DSN, dbname=name)
        _run(dsn, "SELECT citus_set_coordinator_host('{}', {})".format(*coordinator))
        _run(dsn, *("SELECT citus_add_node('{}', {})".format(*worker) for worker in workers))
    return make_dsn(DSN, dbname=name)


def drop_database(name: str) -> None:
    """Drops a database on every node. The coordinator is first, because it keeps connections to the workers."""
    for node in _nodes():
        _run(node, NOT_PROPAGATED, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def distribute(dsn: str) -> None:
    """Runs sql/scale/citus.sql, as psql does."""
    scale = (sql_directory() / "scale" / "citus.sql").read_text(encoding="utf-8")
    _run(dsn, f"SET citus.shard_count = {SHARD_COUNT}", *split_statements(scale))


def distribute_first_release(dsn: str) -> None:
    """Runs the sql/scale/citus.sql of the first release."""
    _run(dsn, f"SET citus.shard_count = {SHARD_COUNT}", *DISTRIBUTE_FIRST_RELEASE)


def empty_schema(dsn: str) -> None:
    """Removes all tables, views and functions, and leaves the extension, which a drop of the schema would damage."""
    for statements in (DROP_TABLES, DROP_FUNCTIONS):
        _run(dsn, *(statement for (statement,) in _run(dsn, statements)))


def close_connections(name: str) -> None:
    """Ends all connections to a database for good, so that it can be copied. Citus has some of its own."""
    for node in _nodes():
        _run(node, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    for node in _nodes():
        while _run(node, IS_USED.format(name)) != [(0,)]:
            _run(node, TERMINATE.format(name))


@contextmanager
def worker_away(dsn: str) -> Iterator[None]:
    """During the context the coordinator cannot connect to a database on one of the workers."""
    name, worker = parse_dsn(dsn)["dbname"], _nodes()[1]
    _run(worker, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false", TERMINATE.format(name))
    try:
        yield
    finally:
        _run(worker, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


@cache
def _nodes() -> list[str]:
    """The DSN of the empty database on each node, the coordinator's first."""
    coordinator, *workers = _run(DSN, NODES)
    assert len(workers) >= 2, f"the coordinator of TEST_CITUS_DSN, {coordinator}, has fewer than two workers"
    return [DSN, *(make_dsn(DSN, host=host, port=port) for host, port in workers)]


def _run(dsn: str, *statements: str) -> list[tuple[Any, ...]]:
    """Executes statements on one connection, and returns the rows of the last one."""
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if statements and cursor.description else []
