"""The rules under which the SQL runs unchanged on Citus, read from the SQL itself; and on a Citus, where there is one.

What they guard against is silent there: a delta of 0, a change that a reader never sees. docs/scaling.md says them for
people. A Citus is named by SHM_TEST_CITUS_DSN: an empty database on a coordinator that has workers.
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
UNKNOWN_THERE = re.compile(
    r"\b(MERGE INTO|GROUPING SETS|ROLLUP\s*\(|CUBE\s*\(|WITH RECURSIVE|FOR (NO KEY )?UPDATE|FOR (KEY )?SHARE"
    r"|CREATE (CONSTRAINT )?TRIGGER)\b"
)
ALL = sorted(statements())
NOT_THERE = {"check.repair_instances"}  # docs/scaling.md: `shm check --repair` does not work on Citus


@dataclass(frozen=True)
class Cte:
    """A part of a statement: `name AS [MATERIALIZED] (body)`; the last one, which has no name, is what it ends with."""

    name: str
    is_materialized: bool
    body: str


def bare(sql: str) -> str:
    """Without comments, and without what stands between quotes."""
    return re.sub(r"'(?:[^']|'')*'", "''", re.sub(r"--.*", "", sql))


def body(name: str) -> str:
    """A named statement with its parts, but for the locks and settings before it."""
    statement = statements()[name]
    return bare(split_prologue(statement.preparation or statement.sql)[1])


def ctes(sql: str) -> list[Cte]:
    """What a statement consists of, in its order."""
    found = []
    head = re.match(r"\s*(?:PREPARE .*? AS )?\s*WITH\s+", sql, re.DOTALL)
    rest = sql[head.end() :] if head else sql
    while head and (match := re.match(r"\s*(\w+)\s+AS\s+(MATERIALIZED\s+)?\(", rest)):
        end = closing(rest, match.end())
        found.append(Cte(match[1], match[2] is not None, rest[match.end() : end]))
        rest = rest[end + 1 :].lstrip()
        if not rest.startswith(","):
            break
        rest = rest[1:]
    return [*found, Cte("", False, rest)]


def closing(sql: str, start: int) -> int:
    """Where the parenthesis ends that was opened just before `start`."""
    depth = 1
    for place in range(start, len(sql)):
        depth += {"(": 1, ")": -1}.get(sql[place], 0)
        if depth == 0:
            return place
    raise AssertionError(f"a parenthesis is never closed: {sql[start - 1 : start + 60]}")


def surface(sql: str) -> str:
    """Without all that stands between parentheses."""
    while (shorter := re.sub(r"\([^()]*\)", "", sql)) != sql:
        sql = shorter
    return sql


def settings_of(sql: str) -> Iterator[str]:
    """What stands after each SET of an UPDATE of a distributed table or of a DO UPDATE, up to what comes after it."""
    for match in re.finditer(rf"\b(?:UPDATE\s+(?:{'|'.join(sorted(DISTRIBUTED))})\b[\w\s]*|DO UPDATE)\s+SET\b", sql):
        depth, place = 0, match.end()
        while place < len(sql) and depth >= 0:
            if depth == 0 and re.match(r"\b(FROM|WHERE|RETURNING)\b", sql[place:]):
                break
            depth += {"(": 1, ")": -1}.get(sql[place], 0)
            place += 1
        yield sql[match.end() : place]


def columns(database: str, sql: str, *parameters: object) -> set[str]:
    """The first column of all rows."""
    with admin_cursor(database) as cursor:
        cursor.execute(sql, parameters or None)
        return {str(row[0]) for row in cursor.fetchall()}


def test_the_scale_file_says_of_every_table_where_it_lies(database: str) -> None:
    tables = columns(
        database,
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
        " AND NOT relispartition",
    )
    assert tables == DISTRIBUTED | REFERENCE | LOCAL
    assert len(DISTRIBUTED) + len(REFERENCE) + len(LOCAL) == len(tables)
    views = columns(database, "SELECT viewname FROM pg_views WHERE schemaname = 'public'")
    assert views == VIEWS


def test_every_unique_key_of_what_is_distributed_contains_the_instance(database: str) -> None:
    without = columns(
        database,
        "SELECT i.indexrelid::regclass FROM pg_index i"
        " JOIN pg_class c ON c.oid = i.indrelid AND c.relnamespace = 'public'::regnamespace"
        " WHERE i.indisunique AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = i.indrelid"
        " AND a.attname = 'instance_id' AND a.attnum = ANY(i.indkey)) AND c.relname <> ALL(%s)",
        sorted(REFERENCE | LOCAL),
    )
    assert without == set()


def test_no_table_has_a_trigger_or_hangs_on_a_table_that_lies_elsewhere(database: str) -> None:
    assert columns(database, "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal") == set()
    keys = columns(database, "SELECT conname FROM pg_constraint WHERE contype = 'f'")
    assert keys == set()


def test_no_identity_or_sequence_is_needed(database: str) -> None:
    assert columns(database, "SELECT relname FROM pg_class WHERE relkind = 'S'") == set()


@pytest.mark.parametrize("name", ALL)
def test_a_lock_is_a_statement_of_its_own(name: str) -> None:
    assert "pg_advisory_xact_lock(" not in body(name)
    assert "pg_advisory_lock(" not in body(name)


@pytest.mark.parametrize("name", ALL)
def test_statements_use_only_what_citus_supports(name: str) -> None:
    """A statement has nothing that citus does not know or would compute on each worker by itself."""
    assert not UNKNOWN_THERE.search(body(name))
    assert not VOLATILE.search(body(name))


@pytest.mark.parametrize("name", ALL)
def test_what_is_set_on_workers_does_not_hang_on_their_clocks(name: str) -> None:
    for said in settings_of(body(name)):
        assert not re.search(r"\bnow\(\)|\bcurrent_(date|time|timestamp)\b", said), said


@pytest.mark.parametrize("name", sorted(set(ALL) - NOT_THERE))
def test_old_values_are_read_whole_before_they_change_and_by_their_ids(name: str) -> None:
    parts = ctes(body(name))
    changing = [place for place, part in enumerate(parts) if CHANGES.search(part.body)]
    if not changing:
        return
    names = {part.name for part in parts if part.name}
    for place, part in enumerate(parts):
        if not READS.search(CHANGES.sub("", part.body)) or place in changing:
            continue
        assert part.is_materialized, part.name
        assert place < changing[0], f"{part.name} stands after what changes its rows"
        joined = set(re.findall(r"\b(?:FROM|JOIN)\s+(\w+)", surface(part.body))) & names
        assert not joined or BY_ID.search(part.body), f"{part.name} is joined with {joined}"


@pytest.mark.parametrize("name", ALL)
def test_changes_are_read_up_to_a_published_cursor(name: str) -> None:
    """What changed since is read no further than a cursor that was published."""
    sql = body(name)
    if not READS.search(sql) or not re.search(r"\bcursor > ", sql):
        return
    assert re.search(r"\bcursor <= \(SELECT cursor FROM (feed_head|reach)\)", sql)
    if "reach" in sql:
        assert re.search(
            r"reach AS MATERIALIZED \(\s*SELECT least\([^;]*?, cursor\) AS cursor FROM feed_head\s*\)", sql
        )


@pytest.mark.parametrize("name", ALL)
def test_rows_on_workers_are_never_found_by_where_they_lie(name: str) -> None:
    for part in ctes(body(name)):
        assert "ctid" not in part.body or not (READS.search(part.body) or WRITES.search(part.body))


@pytest.mark.parametrize("name", ALL)
def test_applications_are_not_written_in_a_transaction_that_reads_instances(name: str) -> None:
    sql = body(name)
    assert not re.search(r"\b(INSERT INTO|UPDATE|DELETE FROM) applications\b", sql) or not READS.search(sql)


@pytest.mark.parametrize("name", ALL)
def test_nothing_is_looked_up_on_workers_for_each_application(name: str) -> None:
    for part in ctes(body(name)):
        per_application = re.search(r"\bFROM applications\b", part.body) and "LATERAL" in part.body
        assert not (per_application and READS.search(part.body))


@pytest.mark.parametrize("version", load_migrations())
def test_a_migration_is_statements_that_run_one_by_one(version: int) -> None:
    for statement in re.split(r";[ ]*$", load_migrations()[version], flags=re.MULTILINE):
        text = re.sub(r"\$\$.*?\$\$", "$$", bare(statement), flags=re.DOTALL)
        assert ";" not in text.strip(), "a statement ends with `;` at the end of a line, and nothing else does"
        if "CREATE FUNCTION flatten_metrics" not in text:
            assert not UNKNOWN_THERE.search(text)
    assert not re.search(r"\b(nextval|clock_timestamp|serial|bigserial|GENERATED)\b", bare(load_migrations()[version]))


def test_the_readers_of_these_tests_understand_the_statements() -> None:
    store = ctes(body("intake.store_batch"))
    assert [part.name for part in store][:3] == ["batch", "existing", "verdicts"]
    assert store[1].is_materialized
    assert BY_ID.search(store[1].body)
    assert any("last_seen_at = p.last_seen_at" in said for said in settings_of(body("intake.store_batch")))
    assert sum(bool(CHANGES.search(part.body)) for part in ctes(body("erasure.delete_instance"))) == 4
    assert {"instances", "snapshots", "absences", "versions_seen"} == DISTRIBUTED


@pytest.mark.skipif(CITUS is None, reason="SHM_TEST_CITUS_DSN names no Citus to try it on")
def test_on_a_real_citus_a_server_does_what_it_does_elsewhere(tmp_path: Path) -> None:
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
                if bare(statement).strip():
                    cursor.execute(statement)
        server.start()
        installs = [Install(server.url).enroll({"orders": n, "mail": {"sent": 2}, "beta": True}) for n in range(20)]
        for install in installs[:10]:
            assert install.snapshot({"orders": 100, "locale": "fr"}).status_code == 202
        assert server.get("stats").json()["total_instances"] == 20
        said = server.get("applications/ledger/kpis").json()
        assert {kpi["key"]: kpi["value"] for kpi in said["kpis"]}["orders"] == 1_000 + sum(range(10, 20))
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
