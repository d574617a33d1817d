"""The rules under which the SQL runs unchanged on Citus, checked in the SQL itself, and on a Citus if one is given.

A violation causes no error on Citus: a delta is 0, or a reader misses a change. docs/scaling.md explains the rules.
SHM_TEST_CITUS_DSN is the DSN of an empty database on a coordinator with workers.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from shm.db.migrations import load_migrations
from shm.db.statements import split_prologue, sql_directory, statements
from tests.support import plain_http
from tests.support.clusters import wait_for
from tests.support.databases import admin_cursor, migrate
from tests.support.installs import Install
from tests.support.server_process import ServerProcess

CITUS = os.environ.get("SHM_TEST_CITUS_DSN")

SCALE = (sql_directory() / "scale" / "citus.sql").read_text(encoding="utf-8")
DISTRIBUTED = set(re.findall(r"create_distributed_table\('(\w+)', 'instance_id'", SCALE))
REFERENCE = set(re.findall(r"create_reference_table\('(\w+)'\)", SCALE))
LOCAL = {name for line in re.findall(r"^-- local: (.*)$", SCALE, re.MULTILINE) for name in line.split(", ")}
VIEWS = {"instance_items", "instance_states"}  # over instances

ON_WORKERS = "|".join(sorted(DISTRIBUTED | VIEWS))
READS = re.compile(rf"\b(?:FROM|JOIN|USING)\s+(?:ONLY\s+)?(?:{ON_WORKERS})\b")
WRITES = re.compile(rf"\b(?:INSERT INTO|UPDATE|DELETE FROM)\s+(?:{'|'.join(sorted(DISTRIBUTED))})\b")
CHANGES = re.compile(rf"\b(?:UPDATE|DELETE FROM)\s+(?:{'|'.join(sorted(DISTRIBUTED))})\b")
BY_ID = re.compile(r"= ANY\(ARRAY\(SELECT (?:\w+\.)?instance_id\b")

VOLATILE = re.compile(r"\b(nextval|setval|clock_timestamp|timeofday|random|gen_random_uuid)\s*\(", re.IGNORECASE)
UNSUPPORTED = re.compile(
    r"\b(MERGE INTO|GROUPING SETS|ROLLUP\s*\(|CUBE\s*\(|WITH RECURSIVE|FOR (NO KEY )?UPDATE|FOR (KEY )?SHARE"
    r"|CREATE (CONSTRAINT )?TRIGGER)\b"
)
STATEMENT_NAMES = sorted(statements())
NOT_RUN_ON_CITUS = {"check.repair_instances"}  # docs/scaling.md: `shm check --repair` does not run on Citus


@dataclass(frozen=True)
class Cte:
    """A CTE of a statement: `name AS [MATERIALIZED] (body)`. The main query has no name."""

    name: str
    is_materialized: bool
    body: str


def strip_literals(sql: str) -> str:
    """SQL without comments and the contents of string literals."""
    return re.sub(r"'(?:[^']|'')*'", "''", re.sub(r"--.*", "", sql))


def body(name: str) -> str:
    """A named statement without its prologue."""
    statement = statements()[name]
    return strip_literals(split_prologue(statement.preparation or statement.sql)[1])


def ctes(sql: str) -> list[Cte]:
    """The CTEs and the main query of a statement, in order."""
    parsed = []
    with_keyword = re.match(r"\s*(?:PREPARE .*? AS )?\s*WITH\s+", sql, re.DOTALL)
    rest = sql[with_keyword.end() :] if with_keyword else sql
    while with_keyword and (match := re.match(r"\s*(\w+)\s+AS\s+(MATERIALIZED\s+)?\(", rest)):
        end = closing_parenthesis(rest, match.end())
        parsed.append(Cte(match[1], match[2] is not None, rest[match.end() : end]))
        rest = rest[end + 1 :].lstrip()
        if not rest.startswith(","):
            break
        rest = rest[1:]
    return [*parsed, Cte("", False, rest)]


def closing_parenthesis(sql: str, start: int) -> int:
    """The index of the parenthesis that closes the one just before `start`."""
    depth = 1
    for position in range(start, len(sql)):
        depth += {"(": 1, ")": -1}.get(sql[position], 0)
        if depth == 0:
            return position
    raise AssertionError(f"a parenthesis is never closed: {sql[start - 1 : start + 60]}")


def strip_parentheses(sql: str) -> str:
    """SQL without everything in parentheses."""
    while (shorter := re.sub(r"\([^()]*\)", "", sql)) != sql:
        sql = shorter
    return sql


def assignments(sql: str) -> Iterator[str]:
    """The assignments of each SET of an UPDATE of a distributed table and of each DO UPDATE."""
    for match in re.finditer(rf"\b(?:UPDATE\s+(?:{'|'.join(sorted(DISTRIBUTED))})\b[\w\s]*|DO UPDATE)\s+SET\b", sql):
        depth, position = 0, match.end()
        while position < len(sql) and depth >= 0:
            if depth == 0 and re.match(r"\b(FROM|WHERE|RETURNING)\b", sql[position:]):
                break
            depth += {"(": 1, ")": -1}.get(sql[position], 0)
            position += 1
        yield sql[match.end() : position]


def first_column(database: str, sql: str, *parameters: object) -> set[str]:
    """The first column of all rows."""
    with admin_cursor(database) as cursor:
        cursor.execute(sql, parameters or None)
        return {str(row[0]) for row in cursor.fetchall()}


def test_the_scale_file_places_every_table(database: str) -> None:
    tables = first_column(
        database,
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
        " AND NOT relispartition",
    )
    assert tables == DISTRIBUTED | REFERENCE | LOCAL
    assert len(DISTRIBUTED) + len(REFERENCE) + len(LOCAL) == len(tables)
    views = first_column(database, "SELECT viewname FROM pg_views WHERE schemaname = 'public'")
    assert views == VIEWS


def test_unique_keys_of_distributed_tables_contain_the_instance(database: str) -> None:
    without = first_column(
        database,
        "SELECT i.indexrelid::regclass FROM pg_index i"
        " JOIN pg_class c ON c.oid = i.indrelid AND c.relnamespace = 'public'::regnamespace"
        " WHERE i.indisunique AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = i.indrelid"
        " AND a.attname = 'instance_id' AND a.attnum = ANY(i.indkey)) AND c.relname <> ALL(%s)",
        sorted(REFERENCE | LOCAL),
    )
    assert without == set()


def test_no_table_has_a_trigger_or_a_foreign_key(database: str) -> None:
    assert first_column(database, "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal") == set()
    keys = first_column(database, "SELECT conname FROM pg_constraint WHERE contype = 'f'")
    assert keys == set()


def test_the_schema_has_no_identity_column_or_sequence(database: str) -> None:
    assert first_column(database, "SELECT relname FROM pg_class WHERE relkind = 'S'") == set()


@pytest.mark.parametrize("name", STATEMENT_NAMES)
def test_a_lock_is_acquired_by_a_separate_statement(name: str) -> None:
    assert "pg_advisory_xact_lock(" not in body(name)
    assert "pg_advisory_lock(" not in body(name)


@pytest.mark.parametrize("name", STATEMENT_NAMES)
def test_statements_use_only_what_citus_supports(name: str) -> None:
    """A statement has no syntax that Citus lacks, and no function that would differ between workers."""
    assert not UNSUPPORTED.search(body(name))
    assert not VOLATILE.search(body(name))


@pytest.mark.parametrize("name", STATEMENT_NAMES)
def test_values_set_on_workers_do_not_depend_on_their_clocks(name: str) -> None:
    for text in assignments(body(name)):
        assert not re.search(r"\bnow\(\)|\bcurrent_(date|time|timestamp)\b", text), text


@pytest.mark.parametrize("name", sorted(set(STATEMENT_NAMES) - NOT_RUN_ON_CITUS))
def test_old_values_are_materialized_before_an_update_and_by_id(name: str) -> None:
    parts = ctes(body(name))
    changing = [position for position, part in enumerate(parts) if CHANGES.search(part.body)]
    if not changing:
        return
    names = {part.name for part in parts if part.name}
    for position, part in enumerate(parts):
        if not READS.search(CHANGES.sub("", part.body)) or position in changing:
            continue
        assert part.is_materialized, part.name
        assert position < changing[0], f"{part.name} follows the CTE that changes its rows"
        joined = set(re.findall(r"\b(?:FROM|JOIN)\s+(\w+)", strip_parentheses(part.body))) & names
        assert not joined or BY_ID.search(part.body), f"{part.name} is joined with {joined}"


@pytest.mark.parametrize("name", STATEMENT_NAMES)
def test_changes_are_read_up_to_a_published_cursor(name: str) -> None:
    """Changes after a cursor are read only up to a published cursor."""
    sql = body(name)
    if not READS.search(sql) or not re.search(r"\bcursor > ", sql):
        return
    assert re.search(r"\bcursor <= \(SELECT cursor FROM (feed_head|step_end)\)", sql)
    if "reach" in sql:
        assert re.search(
            r"reach AS MATERIALIZED \(\s*SELECT least\([^;]*?, cursor\) AS cursor FROM feed_head\s*\)", sql
        )


@pytest.mark.parametrize("name", STATEMENT_NAMES)
def test_rows_on_workers_are_never_selected_by_ctid(name: str) -> None:
    for part in ctes(body(name)):
        assert "ctid" not in part.body or not (READS.search(part.body) or WRITES.search(part.body))


@pytest.mark.parametrize("name", STATEMENT_NAMES)
def test_applications_are_not_written_in_a_transaction_that_reads_instances(name: str) -> None:
    sql = body(name)
    assert not re.search(r"\b(INSERT INTO|UPDATE|DELETE FROM) applications\b", sql) or not READS.search(sql)


@pytest.mark.parametrize("name", STATEMENT_NAMES)
def test_no_lateral_join_reads_workers_for_each_application(name: str) -> None:
    for part in ctes(body(name)):
        per_application = re.search(r"\bFROM applications\b", part.body) and "LATERAL" in part.body
        assert not (per_application and READS.search(part.body))


@pytest.mark.parametrize("version", load_migrations())
def test_a_migration_consists_of_separate_statements(version: int) -> None:
    for statement in re.split(r";[ ]*$", load_migrations()[version], flags=re.MULTILINE):
        text = re.sub(r"\$\$.*?\$\$", "$$", strip_literals(statement), flags=re.DOTALL)
        assert ";" not in text.strip(), "a statement ends with `;` at the end of a line, and nothing else does"
        if "CREATE FUNCTION flatten_metrics" not in text:
            assert not UNSUPPORTED.search(text)
    assert not re.search(
        r"\b(nextval|clock_timestamp|serial|bigserial|GENERATED)\b", strip_literals(load_migrations()[version])
    )


def test_the_parsers_of_these_tests_recognize_the_statements() -> None:
    store = ctes(body("intake.store_batch"))
    assert [part.name for part in store][:3] == ["batch", "existing", "verdicts"]
    assert store[1].is_materialized
    assert BY_ID.search(store[1].body)
    assert any("last_seen_at = p.last_seen_at" in text for text in assignments(body("intake.store_batch")))
    assert sum(bool(CHANGES.search(part.body)) for part in ctes(body("erasure.delete_page"))) == 3
    assert {"instances", "snapshots", "absences", "versions_seen"} == DISTRIBUTED


@pytest.mark.skipif(CITUS is None, reason="SHM_TEST_CITUS_DSN is not set")
def test_a_server_works_on_a_real_citus(tmp_path: Path) -> None:
    assert CITUS is not None
    with admin_cursor(CITUS) as cursor:
        cursor.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        assert cursor.fetchone() == (0,), "the database of SHM_TEST_CITUS_DSN is not empty"
        cursor.execute("CREATE EXTENSION IF NOT EXISTS citus")
    server = ServerProcess(tmp_path / "data", {"SHM_DB_DSN": CITUS})
    try:
        migrate(CITUS)
        with admin_cursor(CITUS) as cursor:
            for statement in re.split(r";[ ]*$", SCALE, flags=re.MULTILINE):
                if strip_literals(statement).strip():
                    cursor.execute(statement)
        server.start()
        installs = [Install(server.url).enroll({"orders": n, "mail": {"sent": 2}, "beta": True}) for n in range(20)]
        for install in installs[:10]:
            assert install.snapshot({"orders": 100, "locale": "fr"}).status_code == 202
        assert server.get("stats").json()["total_instances"] == 20
        text = server.get("applications/ledger/kpis").json()
        assert {kpi["key"]: kpi["value"] for kpi in text["kpis"]}["orders"] == 1_000 + sum(range(10, 20))
        assert len(server.get("instances?limit=100").json()) == 20

        def rolled_up() -> bool:
            with admin_cursor(str(CITUS)) as cursor:
                cursor.execute("SELECT s.cursor = f.cursor FROM series_head s, feed_head f")
                return cursor.fetchone() == (True,)

        wait_for(rolled_up, "the series")
        assert server.get("metrics/ledger?period=24h&keys=orders").json()["metrics"]["orders"][-1] == 1_145
        revoke = f"{server.url}/api/v1/admin/instances/{installs[0].instance_id}/revoke"
        plain_http.post(revoke, headers=server.headers).raise_for_status()
        remove = f"{server.url}/api/v1/admin/instances/{installs[1].instance_id}"
        plain_http.delete(remove, headers=server.headers).raise_for_status()
        wait_for(rolled_up, "the series")
        assert server.get("applications/ledger/kpis").json()["instances"]["total"] == 19
        assert server.get("metrics/ledger?period=24h&keys=orders").json()["metrics"]["orders"][-1] == 945
        assert "Traceback" not in server.log
    finally:
        server.terminate()
        with admin_cursor(CITUS) as cursor:
            cursor.execute("DROP VIEW instance_items, instance_states; DROP FUNCTION flatten_metrics")
            for table in (*DISTRIBUTED, *REFERENCE, *LOCAL):
                cursor.execute(f"DROP TABLE IF EXISTS {table}")
