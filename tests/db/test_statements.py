"""Every statement can be prepared against the real schema, and acquires its locks in the declared order."""

import re
from collections.abc import Iterator

import psycopg2
import pytest

from shm.analytics.instance_fields import COLUMNS
from shm.db.advisory_locks import Lock
from shm.db.statements import original_statements, split_prologue, sql_directory, statements, to_positional
from tests.support.databases import admin_cursor, empty_database, fresh_database
from tests.support.original_schema import CREATE_ORIGINAL

WRITES = re.compile(
    r"\b(INSERT INTO|UPDATE|DELETE FROM) "
    r"(instances|snapshots|feed_head|removals|tallies|absences|aggregated_(keys|values|versions)|application_aliases)\b"
)

WITH_WRITERS_LOCK = {"series.select_settled_cursor"}  # it waits until all that came before is visible
WITHOUT_WRITERS_LOCK = {  # they change nothing that tallies depend on
    "erasure.delete_page",
    "instances.end_series",
    "repair.orphans",
    "bulk.move_snapshots",
}

WRITES_SERIES = re.compile(
    r"\b(INSERT INTO|UPDATE|DELETE FROM) (series_(hours|days|head)|versions_seen)\b|\bDELETE FROM snapshots\b"
)
ADVISORY = re.compile(r"\bpg_(?:try_)?advisory\w*\(\s*([^\s,)]+)")


def advisory_locks(sql: str) -> list[Lock]:
    """The locks that a statement acquires, in order."""
    return [Lock(int(number)) for number in ADVISORY.findall(sql)]


@pytest.fixture(scope="module")
def schema(postgres: str) -> Iterator[psycopg2.extensions.cursor]:
    """A cursor in a migrated database, which these tests do not change."""
    with fresh_database(postgres) as dsn, admin_cursor(dsn) as cursor:
        yield cursor


@pytest.mark.parametrize("name", sorted(statements()))
def test_a_statement_fits_the_schema(name: str, schema: psycopg2.extensions.cursor) -> None:
    statement = statements()[name]
    sql = split_prologue(statement.sql)[1].replace("%(columns)s", ", ".join(COLUMNS))  # names, and not a value
    preparation = statement.preparation or f"PREPARE statement AS {to_positional(sql)[0]}"
    schema.execute(preparation)
    schema.execute("DEALLOCATE ALL")


def test_a_statement_for_the_original_fits_its_schema(postgres: str) -> None:
    with empty_database(postgres) as dsn, admin_cursor(dsn) as cursor:
        cursor.execute(CREATE_ORIGINAL)
        for name, statement in original_statements().items():
            text, _ = to_positional(statement.sql)
            cursor.execute(f"PREPARE statement AS {text}; DEALLOCATE statement")
            assert text.startswith("SELECT"), name


def test_writes_to_instances_acquire_the_writers_lock_first() -> None:
    """The lock is acquired by a separate statement before the one that writes."""
    for name, statement in statements().items():
        writes = WRITES.search(statement.preparation or statement.sql) is not None
        is_locked = Lock.WRITERS in advisory_locks(split_prologue(statement.sql)[0])
        assert is_locked == (name in WITH_WRITERS_LOCK or (writes and name not in WITHOUT_WRITERS_LOCK)), name


def test_writes_to_series_acquire_the_rollup_lock_first() -> None:
    """So does the deletion of what the series are computed from. The rollup lock precedes the writers' lock."""
    for name, statement in statements().items():
        prologue, _ = split_prologue(statement.sql)
        assert (advisory_locks(prologue)[:1] == [Lock.ROLLUP]) == bool(WRITES_SERIES.search(statement.sql)), name


def test_a_statement_acquires_its_locks_in_the_order_of_the_enum() -> None:
    for name, statement in statements().items():
        acquired = advisory_locks(statement.sql)
        assert acquired == [each for each in Lock if each in acquired], name


def test_lock_numbers_are_written_in_one_module_only() -> None:
    root = sql_directory().parent
    files = [each for folder in ("shm", "sql", "bench", "tests") for each in (root / folder).rglob("*.*")]
    numbers = re.compile("|".join(rf"\b{each.value}\b|(?i:0x{each.value:x})\b" for each in Lock))
    found = [each for each in files if each.suffix in (".py", ".sql") and numbers.search(each.read_text())]
    assert found == [root / "shm" / "db" / "advisory_locks.py"]


def test_frequent_statements_are_prepared() -> None:
    prepared = {name for name, statement in statements().items() if statement.preparation}
    assert {"intake.store_batch", "instances.select_public_keys", "tokens.select_principals"} <= prepared
