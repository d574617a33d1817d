"""A response made of several statements sees one snapshot of the database, whatever is written meanwhile."""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any

import psycopg2
import pytest

from shm.core.errors import QueryTooSlow
from shm.core.settings import Settings
from shm.db.database import Database
from shm.db.statement_runner import Reader
from tests.support import plain_http
from tests.support.databases import admin_cursor
from tests.support.installs import Install
from tests.support.server_process import ServerProcess

TIMEOUT_S = 60
COUNT_WAITING = """
    SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE l.relation = %s::regclass AND NOT l.granted AND position(%s IN a.query) > 0
"""

TERMINATE = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND state = 'idle in transaction'
"""


def _fetch_value(cursor: psycopg2.extensions.cursor, sql: str, *parameters: object) -> Any:
    cursor.execute(sql, parameters)
    (value,) = cursor.fetchone() or (None,)
    return value


@contextmanager
def locked(dsn: str, table: str, statement: str) -> Iterator[Callable[[], None]]:
    """Readers of the table wait until the context ends. The yielded function returns once this statement waits.

    `statement` is a part of its text. Background jobs read the same tables.
    """
    holder = psycopg2.connect(dsn)
    with admin_cursor(dsn) as cursor, holder.cursor() as lock:
        lock.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")

        def wait_for_reader() -> None:
            deadline = time.monotonic() + TIMEOUT_S
            while _fetch_value(cursor, COUNT_WAITING, table, statement) == 0:
                assert time.monotonic() < deadline, "no statement waits for the table"
                time.sleep(0.01)

        try:
            yield wait_for_reader
        finally:
            holder.close()


def test_stats_see_one_snapshot_of_the_database(server: ServerProcess, database: str) -> None:
    Install(server.url).enroll()
    with ThreadPoolExecutor(1) as pool:
        with locked(database, "applications", "kpis.count_by_application") as wait_for_reader:
            future = pool.submit(server.get, "stats")
            wait_for_reader()  # the total is read, the counts of each application are not read yet
            assert Install(server.url).register().status_code == 201
        stats = future.result(TIMEOUT_S).json()
    assert stats["per_app_counts"] == {"Ledger": stats["total_instances"]}


@pytest.mark.parametrize("path", ["applications/ledger/kpis", "metrics/ledger"])
def test_values_and_overrides_see_one_snapshot_of_the_database(server: ServerProcess, database: str, path: str) -> None:
    Install(server.url).enroll({"n": 1})
    Install(server.url).enroll({"n": 3})
    change = """
        UPDATE applications SET overrides = '{"n": {"aggregate": "max"}}';
        UPDATE instances SET metrics = '{"n": 5}', leaves = NULL WHERE metrics = '{"n": 3}';
        UPDATE tallies SET total = 6 WHERE metric_type = 'number' AND key = 'n';
        UPDATE feed_head SET cursor = cursor + 1;
    """
    with ThreadPoolExecutor(1) as pool, admin_cursor(database) as cursor:
        with locked(database, "settings", "refresh_at <= now() AND ('ledger'") as wait_for_reader:
            before = _fetch_value(cursor, "SELECT cursor FROM feed_head")
            future = pool.submit(server.get, path)
            wait_for_reader()  # the overrides are read, the values are not read yet
            cursor.execute(change)
        response = future.result(TIMEOUT_S)
    body = response.json()
    value = body["metrics"]["n"][-1] if "metrics" in body else body["kpis"][0]["value"]
    assert value == 4, "expected the sum before the change"
    if "X-Feed-Cursor" in response.headers:
        assert int(response.headers["X-Feed-Cursor"]) == before


def test_kpis_and_counts_see_one_snapshot_of_the_database(server: ServerProcess) -> None:
    """Each install reports `n`, so `instances` of its KPI equals the active count while installs are revoked."""
    fleet = [Install(server.url).enroll({"n": 1}).instance_id for _ in range(60)]
    done = Event()

    def revoke() -> None:
        with plain_http.Client(base_url=f"{server.url}/api/v1/admin/", headers=server.headers) as client:
            for instance_id in fleet[1:]:
                client.post(f"instances/{instance_id}/revoke").raise_for_status()
        done.set()

    with ThreadPoolExecutor(1) as pool:
        revoking = pool.submit(revoke)
        while not (done.is_set() or revoking.done()):
            kpis = server.get("applications/ledger/kpis").json()
            assert kpis["kpis"][0]["instances"] == kpis["instances"]["active"]
        revoking.result()


async def test_a_lost_connection_starts_the_transaction_again(database: str) -> None:
    reads = 0
    async with Database.connect(Settings.load({}), database, size=1) as pool:

        async def read(reader: Reader) -> list[int]:
            nonlocal reads
            reads += 1
            response = [row["cursor"] for row in await reader.fetch(dict, "feed.select_head")]
            with admin_cursor(database) as cursor:
                cursor.execute("UPDATE feed_head SET cursor = cursor + 1")
                if reads == 1:
                    cursor.execute(TERMINATE)
            return [*response, *[row["cursor"] for row in await reader.fetch(dict, "feed.select_head")]]

        assert await pool.read_consistently(read) == [1, 1]
        assert pool.usage.used == 0


async def test_statements_of_one_answer_have_one_time_limit(database: str) -> None:
    """It ends the answer whether its statements are slow or many. The limit of one statement is 30 s."""
    async with Database.connect(Settings.load({}), database, size=1) as pool:

        async def read(reader: Reader) -> None:
            while True:
                await reader.fetch(dict, "feed.select_head")

        async with asyncio.timeout(TIMEOUT_S):
            with pytest.raises(QueryTooSlow):
                await pool.read_consistently(read, 0.1)
            with locked(database, "feed_head", ""), pytest.raises(QueryTooSlow):
                await pool.read_consistently(read, 0.1)
        assert [*await pool.fetch(dict, "feed.select_head")]  # the connection's own limit applies again
