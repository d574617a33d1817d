"""An empty database on the coordinator of a Citus cluster, which a bench fills and distributes."""

import time
from contextlib import closing
from pathlib import Path

import psycopg2

from bench.support.errors import InvalidRun
from bench.support.report import print_line
from bench.support.server import run_server
from shm.db.migrations import split_statements
from shm.db.statements import sql_directory

SHARD_COUNT = 8  # a batch becomes as many INSERTs
IS_EMPTY = "SELECT count(*) = 0 FROM pg_tables WHERE schemaname = 'public'"
HAS_CITUS = "SELECT count(*) > 0 FROM pg_extension WHERE extname = 'citus'"
CITUS_VERSION = "SELECT extversion FROM pg_extension WHERE extname = 'citus'"
WORKERS = "SELECT count(*) FROM pg_dist_node WHERE groupid <> 0 AND isactive"


def create_schema(dsn: str, data_dir: Path) -> None:
    """Migrates an empty database by a server's start. Raises InvalidRun for one that is not empty or has no workers."""
    if not _fetch_value(dsn, IS_EMPTY):
        raise InvalidRun("The database of --dsn is not empty. A bench fills it and leaves it filled.")
    if not _fetch_value(dsn, HAS_CITUS) or not _fetch_value(dsn, WORKERS):
        raise InvalidRun("The database of --dsn needs the extension citus and registered workers.")
    with run_server(data_dir, 1, dsn):
        pass


def distribute(dsn: str) -> None:
    """Runs sql/scale/citus.sql, while no server runs, and prints how long it took."""
    snapshots = _fetch_value(dsn, "SELECT count(*) FROM snapshots")
    statements = split_statements((sql_directory() / "scale" / "citus.sql").read_text(encoding="utf-8"))
    started = time.monotonic()
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        connection.autocommit = True  # as psql does: in one transaction some of them would exclude others
        cursor.execute(f"SET citus.shard_count = {SHARD_COUNT}")
        for statement in statements:
            cursor.execute(statement)
    print_line(
        f"coordinator: Citus {_fetch_value(dsn, CITUS_VERSION)}, {_fetch_value(dsn, WORKERS)} workers, "
        f"{SHARD_COUNT} shards; {snapshots:,} snapshots were distributed in {time.monotonic() - started:.1f} s"
    )


def _fetch_value(dsn: str, sql: str) -> object:
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        (value,) = cursor.fetchone() or (None,)
        return value
