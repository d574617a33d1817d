"""Every statement is understood by a real PostgreSQL with the real schema."""

import re

import psycopg2
import pytest

from shm.queries import LOCK, apart, numbered, statements

WRITES = re.compile(r"\b(INSERT INTO|UPDATE|DELETE FROM) (instances|snapshots|feed_head|removals|tallies|absences)\b")

WRITES_SERIES = re.compile(r"\b(INSERT INTO|UPDATE|DELETE FROM) (series_(hours|days|head)|versions_seen)\b")
ROLLUP_LOCK = "SELECT pg_advisory_xact_lock(1397247235);"


@pytest.mark.parametrize("name", sorted(statements()))
def test_a_statement_fits_the_schema(name: str, database: str) -> None:
    statement = statements()[name]
    preparation = statement.preparation or f"PREPARE this AS {numbered(apart(statement.sql)[1])[0]}"
    connection = psycopg2.connect(database)
    try:
        with connection.cursor() as cursor:
            cursor.execute(preparation)
    finally:
        connection.close()


@pytest.mark.parametrize("name", sorted(statements()))
def test_a_statement_that_writes_instances_takes_the_lock_first_in_a_statement_of_its_own(name: str) -> None:
    statement = statements()[name]
    text = statement.preparation or statement.sql
    assert (LOCK in apart(statement.sql)[0]) == bool(WRITES.search(text))


@pytest.mark.parametrize("name", sorted(statements()))
def test_a_statement_that_writes_the_series_takes_their_lock_first_and_the_writers_after_it(name: str) -> None:
    statement = statements()[name]
    before, _ = apart(statement.sql)
    assert before.startswith(ROLLUP_LOCK) == bool(WRITES_SERIES.search(statement.sql))


def test_what_runs_all_the_time_is_planned_once_on_each_connection() -> None:
    prepared = {name for name, statement in statements().items() if statement.preparation}
    assert {"intake.store", "instances.public_keys", "tokens.granted"} <= prepared
