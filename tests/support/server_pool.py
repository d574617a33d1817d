"""A running server that tests use one after the other, each with an empty database.

A server of its own costs a short test most of its time. One is used again unless the test has changed what emptying the
tables does not restore: processes, files, settings, the schema. A test that needs other settings or a new server starts
its own with the fixture `serve`.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import psycopg2
from psycopg2.extensions import parse_dsn

from tests.support.databases import (
    TEMPLATE,
    admin_cursor,
    copy_database,
    drop_database,
    execute,
    select_column,
    unique_name,
)
from tests.support.server_process import ServerProcess

# Cursors are not reset, because the server's never go back.
KEPT_TABLES = ["schema_migrations", "tokens", "settings", "feed_head", "series_head", "event_head", "background_rounds"]
TRUNCATE_SQL = """
    SELECT format('TRUNCATE %%s', string_agg(oid::regclass::text, ', ')) FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition AND relname <> ALL(%s)
"""
RESET_SERIES_SQL = """
    UPDATE series_head SET
        cursor = (SELECT cursor FROM feed_head), closed_until = date_trunc('day', now(), 'UTC'),
        hours_since = '-infinity', frozen_until = '-infinity', raw_since = '-infinity', stale = FALSE
"""
# What no test with a pooled server may change.
STATE_SQL = """
    WITH here AS (SELECT 'public'::regnamespace AS schema)
    SELECT
        (SELECT array_agg(relname || relkind::text ORDER BY oid) FROM pg_class, here WHERE relnamespace = schema),
        (SELECT array_agg(tgname || tgenabled::text ORDER BY oid) FROM pg_trigger),
        (SELECT array_agg(conname ORDER BY oid) FROM pg_constraint),
        (SELECT array_agg(proname || md5(prosrc) ORDER BY oid) FROM pg_proc, here WHERE pronamespace = schema),
        (SELECT array_agg(setconfig::text ORDER BY setconfig::text) FROM pg_db_role_setting),
        (SELECT array_agg(to_jsonb(settings)) FROM settings)
"""
FAULT = re.compile(r" (WARNING|ERROR|CRITICAL) ")


def empty_tables(database: str) -> None:
    """Removes what a test has stored. Citus cancels this where a deadlock with the running server is possible."""
    with admin_cursor(database) as cursor:
        cursor.execute(TRUNCATE_SQL, [KEPT_TABLES])
        (truncate,) = cursor.fetchone() or ("",)
        for is_last in (False, False, True):
            try:
                return cursor.execute(truncate + ";" + RESET_SERIES_SQL)
            except psycopg2.errors.DeadlockDetected:
                if is_last:
                    raise
    return None


@dataclass(frozen=True)
class PooledServer:
    """A running server with its database, and what was true when both were new."""

    server: ServerProcess
    database: str
    pid: int
    state: tuple[object, ...]
    files: dict[str, bytes]
    tokens: list[str]


class ServerPool:
    """At most one server, which is replaced after a test that has changed it."""

    def __init__(self, postgres: str, folder: Path) -> None:
        self._postgres = postgres
        self._folder = folder
        self._pooled: PooledServer | None = None

    def take(self) -> PooledServer:
        """A server with empty tables and an empty log."""
        if self._pooled is None:
            self._pooled = self._start()
        else:
            empty_tables(self._pooled.database)
            execute(self._pooled.database, "DELETE FROM tokens WHERE id::text <> ALL(%s)", self._pooled.tokens)
        self._pooled.server.forget_log()
        return self._pooled

    def give_back(self) -> None:
        """Ends the server if it is not as it was."""
        if self._pooled is not None and not _is_unchanged(self._pooled):
            self.end()

    def end(self) -> None:
        """Ends the server and drops its database."""
        pooled, self._pooled = self._pooled, None
        if pooled is not None:
            pooled.server.terminate()
            drop_database(self._postgres, parse_dsn(pooled.database)["dbname"])

    def _start(self) -> PooledServer:
        name = unique_name()
        database = copy_database(self._postgres, TEMPLATE, name)
        server = ServerProcess(self._folder / name, {"SHM_DB_DSN": database})
        server.start()
        tokens = _read_tokens(database)
        return PooledServer(server, database, server.pid, _read_state(database), _read_files(server), tokens)


def _is_unchanged(pooled: PooledServer) -> bool:
    server = pooled.server
    return (
        server.is_running
        and server.pid == pooled.pid
        and not FAULT.search(server.log)
        and _read_files(server) == pooled.files
        and server.is_ready()
        and _read_state(pooled.database) == pooled.state
        and set(pooled.tokens) <= set(_read_tokens(pooled.database))
    )


def _read_state(database: str) -> tuple[object, ...]:
    with admin_cursor(database) as cursor:
        cursor.execute(STATE_SQL)
        return tuple(cursor.fetchone() or ())


def _read_tokens(database: str) -> list[str]:
    return select_column(database, "SELECT id::text FROM tokens")


def _read_files(server: ServerProcess) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in server.data_dir.rglob("*")}
