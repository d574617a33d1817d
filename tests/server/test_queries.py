"""Every statement is understood by a real PostgreSQL with the real schema."""

import re

import psycopg2
import pytest

from shm.queries import statements

LOCK = "SELECT pg_advisory_xact_lock(1397247234);"
WRITES = re.compile(r"\b(INSERT INTO|UPDATE) (instances|snapshots|feed_head)\b")


@pytest.mark.parametrize("name", sorted(statements()))
def test_a_statement_fits_the_schema(name: str, database: str) -> None:
    sql = statements()[name].removeprefix(LOCK)
    numbers: dict[str, int] = {}

    def placeholder(match: re.Match[str]) -> str:
        return f"${numbers.setdefault(match[1], len(numbers) + 1)}"

    numbered = re.sub(r"%\((\w+)\)s", placeholder, sql).replace("%%", "%")
    connection = psycopg2.connect(database)
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"PREPARE this AS {numbered}")
    finally:
        connection.close()


@pytest.mark.parametrize("name", sorted(statements()))
def test_a_statement_that_writes_instances_takes_the_lock_first_in_a_statement_of_its_own(name: str) -> None:
    sql = statements()[name]
    assert sql.startswith(LOCK) == bool(WRITES.search(sql))
