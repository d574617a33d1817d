"""`GET /api/v1/ready` is 200 only while a snapshot could be stored."""

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg2
import pytest

from shm.db.advisory_locks import Lock
from shm.db.statements import statements
from tests.support import plain_http
from tests.support.databases import admin_cursor, execute, select_column
from tests.support.module_server import module_server
from tests.support.server_process import ServerProcess

WAIT_TIMEOUT_S = 60
OTHER_TABLES = (
    *("instances", "tallies", "feed_head", "absences", "aggregated_keys", "aggregated_values", "key_refusals"),
    *("aggregated_versions", "settings", "applications", "application_aliases", "ONLY snapshots"),
)
BLOCKED = [
    "LOCK TABLE snapshots",
    "LOCK TABLE snapshots_first",  # the partition of this week
    *(pytest.param(f"LOCK TABLE {table}", marks=pytest.mark.long) for table in OTHER_TABLES),
    f"SELECT pg_advisory_xact_lock({Lock.WRITERS})",
]


@pytest.fixture(scope="module")
def writable(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, str]]:
    """A server and its database. Each test repairs the database."""
    with module_server(postgres, tmp_path_factory.mktemp("writable")) as server_and_database:
        yield server_and_database


def ready(server: ServerProcess) -> tuple[int, str]:
    """The status of an answer, and its state or code."""
    answer = plain_http.get(f"{server.url}/api/v1/ready")
    body = answer.json()
    return answer.status_code, body.get("code", body.get("status"))


def becomes(server: ServerProcess, status: int) -> bool:
    """Whether the answer gets this status in time; an answer may be a second old."""
    deadline = time.monotonic() + WAIT_TIMEOUT_S
    while ready(server)[0] != status:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_the_test_write_uses_every_table_that_a_batch_uses(writable: tuple[ServerProcess, str]) -> None:
    names = select_column(writable[1], "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")

    def tables(statement: str) -> set[str]:
        sql = statements()[statement].preparation or statements()[statement].sql
        return {name for name in names if re.search(rf"\b{name}\b", sql)}

    assert tables("intake.store_batch") | tables("intake.store_new_keys") == tables("health.probe_write")


@pytest.mark.parametrize("blocking", BLOCKED)
def test_a_server_that_cannot_write_is_not_ready(writable: tuple[ServerProcess, str], blocking: str) -> None:
    server, database = writable
    connection = psycopg2.connect(database)
    try:
        connection.cursor().execute(blocking)
        assert becomes(server, 503)
    finally:
        connection.close()
    assert becomes(server, 200)
    assert "Traceback" not in server.log


@pytest.mark.parametrize(
    ("breaking", "mending"),
    [
        ("REVOKE INSERT ON snapshots FROM CURRENT_USER", "GRANT INSERT ON snapshots TO CURRENT_USER"),
        ("REVOKE UPDATE ON tallies FROM CURRENT_USER", "GRANT UPDATE ON tallies TO CURRENT_USER"),
        ("ALTER TABLE absences RENAME TO gone", "ALTER TABLE gone RENAME TO absences"),
    ],
)
def test_a_database_that_refuses_writes_is_not_ready(
    writable: tuple[ServerProcess, str], breaking: str, mending: str
) -> None:
    server, database = writable
    execute(database, breaking)
    assert becomes(server, 503)
    execute(database, mending)
    assert becomes(server, 200)


def test_many_questions_cost_one_write_a_second(serve: Callable[..., ServerProcess], database: str) -> None:
    server = serve()
    with admin_cursor(database) as cursor:
        cursor.execute("SELECT pg_current_xact_id()::text::bigint")
        (before,) = cursor.fetchone() or (0,)
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda _: ready(server), range(200))) == {(200, "ready")}
        cursor.execute("SELECT pg_current_xact_id()::text::bigint")
        (after,) = cursor.fetchone() or (0,)
    assert after - before < 100  # other servers of the tests write too
