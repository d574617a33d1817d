"""The rules under which the SQL runs unchanged on Citus, checked in the SQL itself, and what only a cluster shows.

A violation may cause no error on Citus: a delta is 0, or a reader misses a change. The tests marked `cluster` run the
statements on a real one.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from shm.db.migrations import load_migrations, split_statements
from shm.db.statements import split_prologue, sql_directory, statements
from tests.support import citus, first_release, plain_http
from tests.support.background_jobs import run_background_jobs, wait_until_rolled_up
from tests.support.clusters import wait_for
from tests.support.databases import empty_database, execute, migrate, select_column
from tests.support.installs import Install
from tests.support.load import Load, stored_snapshots
from tests.support.oracle import assert_matches_oracle, assert_series_match_oracle
from tests.support.server_process import ServerProcess
from tests.support.shm_command import run_shm

SCALE = (sql_directory() / "scale" / "citus.sql").read_text(encoding="utf-8")
DISTRIBUTED = re.findall(r"create_distributed_table\('(\w+)', 'instance_id'", SCALE)
LOCAL = [name for line in re.findall(r"^-- local: (.*)$", SCALE, re.MULTILINE) for name in line.split(", ")]

BASES = {"instance_items": "instances", "instance_states": "instances"}  # of views
READS = re.compile(r"\b(?:FROM|JOIN|USING)\s+(?:ONLY\s+)?(\w+)\b")
CHANGES = re.compile(r"\b(?:INSERT INTO|UPDATE|DELETE FROM)\s+(\w+)\b")
SNAPSHOT_ASSIGNMENTS = re.compile(r"\bUPDATE snapshots\b[\w\s]*?\bSET\b(.*?)\b(?:FROM|WHERE|RETURNING)\b", re.DOTALL)

VOLATILE = re.compile(
    r"\b(nextval|setval|clock_timestamp|timeofday|random|gen_random_uuid|pg_notify)\s*\(", re.IGNORECASE
)
NULLABLE_BESIDE_SUBQUERY = re.compile(r"(?:\$\d+|%\(\w+\)s)(?:::\w+)?(?:\[\])? IS NULL\s+OR\b[^()]*\(\s*SELECT\b")
UNSUPPORTED = re.compile(
    r"\b(MERGE INTO|GROUPING SETS|ROLLUP\s*\(|CUBE\s*\(|WITH RECURSIVE|FOR (NO KEY )?UPDATE|FOR (KEY )?SHARE"
    r"|CREATE (CONSTRAINT )?TRIGGER)\b"
)


# Three snapshots of one instance, whose columns have no defaults and many characters that SQL quotes.
SAMPLES = """
    INSERT INTO snapshots ({columns})
    SELECT
        '24e5eb10-8e2c-4dfc-9fd6-7c0a4c1d5a10', now() - number * interval '1 hour', '2026-01-01 00:00:00.123456+00',
        E'1.0 \\'\\\\ % \\n \u00e9', number = 3, nullif(number, 2),
        '{{"a": 1.10, "b": 123456789012345678901234567890, "c": "\\\\ \\" '' %L \u00e9", "d": [null]}}', 'ledger',
        CASE number WHEN 3 THEN '{{"a": 1.10}}'::jsonb END, 7
    FROM generate_series(1, 3) number
"""
SAMPLE_COLUMNS = (
    *("instance_id", "snapshot_at", "received_at", "app_version", "version_refused", "sequence", "metrics", "app_slug"),
    *("leaves", "cursor"),
)


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


def tables(parts: list[Cte], found: list[str]) -> set[str]:
    """The tables among names, with the base of a view and without the statement's own CTEs."""
    return {BASES.get(name, name) for name in found} & {*DISTRIBUTED, *LOCAL} - {part.name for part in parts}


STATEMENT_NAMES = sorted(statements())
SNAPSHOT_STATEMENTS = [name for name in STATEMENT_NAMES if re.search(r"(?<!::)\bsnapshots\b", body(name))]
FREQUENT_STATEMENTS = {name for name, statement in statements().items() if statement.preparation is not None}


def first_column(database: str, sql: str, *parameters: object) -> set[str]:
    """The first column of all rows."""
    return {str(value) for value in select_column(database, sql, *parameters)}


def test_the_scale_file_places_every_table(database: str) -> None:
    names = first_column(
        database,
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
        " AND NOT relispartition",
    )
    assert sorted(names) == sorted([*DISTRIBUTED, *LOCAL])
    assert DISTRIBUTED == ["snapshots"]
    assert first_column(database, "SELECT viewname FROM pg_views WHERE schemaname = 'public'") == BASES.keys()


def test_unique_keys_of_snapshots_contain_the_instance(database: str) -> None:
    without = first_column(
        database,
        "SELECT i.indexrelid::regclass FROM pg_index i WHERE i.indrelid = 'snapshots'::regclass AND i.indisunique"
        " AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = i.indrelid"
        " AND a.attname = 'instance_id' AND a.attnum = ANY(i.indkey))",
    )
    assert without == set()


def test_snapshots_have_no_trigger_foreign_key_or_sequence(database: str) -> None:
    triggers = "SELECT tgname FROM pg_trigger WHERE tgrelid = 'snapshots'::regclass AND NOT tgisinternal"
    assert first_column(database, triggers) == set()
    keys = "SELECT conname FROM pg_constraint WHERE contype = 'f' AND 'snapshots'::regclass IN (conrelid, confrelid)"
    assert first_column(database, keys) == set()
    defaults = "SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = 'snapshots'::regclass"
    assert first_column(database, defaults) == {"false", "now()"}


def test_a_lock_is_acquired_by_a_separate_statement() -> None:
    for name in STATEMENT_NAMES:
        assert "pg_advisory_xact_lock(" not in body(name), name
        assert "pg_advisory_lock(" not in body(name), name


@pytest.mark.parametrize("name", SNAPSHOT_STATEMENTS)
def test_statements_use_only_what_citus_supports(name: str) -> None:
    """A statement has no syntax that Citus lacks, and no function that would differ between workers.

    Citus leaves a materialized CTE that reads only other ones to PostgreSQL.
    """
    parts = ctes(body(name))
    for part in parts:
        if not part.is_materialized or tables(parts, READS.findall(part.body)):
            assert not UNSUPPORTED.search(part.body), part.name
    assert not VOLATILE.search(body(name))
    assert not any(re.search(r"\bnow\(\)", text) for text in SNAPSHOT_ASSIGNMENTS.findall(body(name)))


@pytest.mark.parametrize("name", SNAPSHOT_STATEMENTS)
def test_old_values_are_read_by_a_cte_before_their_change(name: str) -> None:
    """Citus executes the CTEs in their order, and each sees the changes of those before it."""
    parts = ctes(body(name))
    changed = [tables(parts, CHANGES.findall(part.body)) for part in parts]
    for position, part in enumerate(parts):
        read = tables(parts, READS.findall(CHANGES.sub("", part.body)))
        assert not read & set().union(*changed[:position]), f"{part.name} follows the CTE that changes its rows"
        if read & set().union(*changed[position + 1 :]) and not changed[position]:
            assert part.is_materialized, part.name


@pytest.mark.parametrize("name", SNAPSHOT_STATEMENTS)
def test_snapshots_are_selected_without_ctid_and_with_a_column(name: str) -> None:
    """Rows of workers have no common ctid, and Citus cannot fetch a subquery without a column."""
    for part in ctes(body(name)):
        if "snapshots" in READS.findall(part.body):
            assert not re.search(r"\bctid\b|\bSELECT FROM\b", part.body), part.name


@pytest.mark.parametrize("name", SNAPSHOT_STATEMENTS)
def test_no_condition_with_a_subquery_depends_on_a_null_parameter(name: str) -> None:
    """PostgreSQL removes such a condition, and Citus then reads no rows of the CTE before it, with only a warning."""
    for part in ctes(body(name)):
        assert not NULLABLE_BESIDE_SUBQUERY.search(part.body), part.name


def test_citus_plans_no_statement_of_the_intake() -> None:
    """They read and write snapshots by functions: with all their parts, planning takes longer than the batch."""
    assert {"intake.store_batch", "enrolment.register_batch", "enrolment.confirm_batch"} <= FREQUENT_STATEMENTS
    assert FREQUENT_STATEMENTS.isdisjoint(SNAPSHOT_STATEMENTS)


@pytest.mark.parametrize("is_scaled", [False, True])
def test_both_functions_that_insert_snapshots_store_the_same(database: str, is_scaled: bool) -> None:
    """That of the scale file too, on one PostgreSQL: all columns as they are, and what is stored already not again."""
    if is_scaled:
        (function,) = (statement for statement in split_statements(SCALE) if "FUNCTION insert_snapshots" in statement)
        execute(database, function)
    columns = "SELECT attname::text FROM pg_attribute WHERE attrelid = 'snapshots'::regclass AND attnum > 0"
    assert first_column(database, columns) == set(SAMPLE_COLUMNS)
    execute(database, SAMPLES.format(columns=", ".join(SAMPLE_COLUMNS)))
    execute(database, "CREATE TABLE samples AS TABLE snapshots")
    execute(database, "DELETE FROM snapshots WHERE sequence IS DISTINCT FROM 1")
    insert = "SELECT snapshot_at FROM insert_snapshots(ARRAY(SELECT ROW(s.*)::snapshots FROM samples s))"
    assert first_column(database, insert) == first_column(
        database, "SELECT snapshot_at FROM samples WHERE sequence IS DISTINCT FROM 1"
    )
    assert first_column(database, insert) == set()
    rows = first_column(database, "SELECT row_to_json(s) FROM samples s")
    assert first_column(database, "SELECT row_to_json(s) FROM snapshots s") == rows
    assert len(rows) == 3
    assert first_column(database, "SELECT count(*) FROM insert_snapshots('{}')") == {"0"}


@pytest.mark.parametrize("version", load_migrations())
def test_a_migration_consists_of_separate_statements(version: int) -> None:
    for statement in split_statements(load_migrations()[version]):
        text = re.sub(r"\$\$.*?\$\$", "$$", strip_literals(statement), flags=re.DOTALL)
        assert ";" not in text.strip(), (
            "a statement ends with `;` at the end of a line, and nothing else does outside of `$$`"
        )


def test_the_parsers_of_these_tests_recognize_the_statements() -> None:
    store = ctes(body("intake.store_batch"))
    assert [part.name for part in store][:3] == ["batch", "existing", "verdicts"]
    assert store[1].is_materialized
    assert tables(store, READS.findall(store[1].body)) == {"instances"}
    assert sum("snapshots" in CHANGES.findall(part.body) for part in ctes(body("erasure.delete_page"))) == 1
    assert {"health.probe_write", "series.roll_up", "check.instances"} <= set(SNAPSHOT_STATEMENTS)
    assert SNAPSHOT_ASSIGNMENTS.findall(body("repair.leaves"))


@pytest.mark.cluster
@pytest.mark.skipif(not citus.DSN, reason="TEST_CITUS_DSN is not set")
def test_a_new_week_of_snapshots_is_distributed(database: str, serve: Callable[..., ServerProcess]) -> None:
    """A server creates it at its start, and attaches it to a distributed table."""
    names = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'snapshots'::regclass ORDER BY 1"
    weeks = select_column(database, names)
    execute(database, f"DROP TABLE {weeks[-2]}")  # the last one is `snapshots_first`
    serve()
    assert select_column(database, names) == weeks
    placed = "SELECT logicalrelid::text FROM pg_dist_shard GROUP BY logicalrelid HAVING count(*) = %s"
    assert set(weeks) <= set(select_column(database, placed, citus.SHARD_COUNT))


@pytest.mark.cluster
@pytest.mark.skipif(not citus.DSN, reason="TEST_CITUS_DSN is not set")
def test_a_distributed_database_of_the_first_release_is_migrated(
    database: str, serve: Callable[..., ServerProcess]
) -> None:
    first_release.restore(database)
    citus.distribute_first_release(database)
    snapshots = select_column(database, "SELECT count(*) FROM snapshots")
    migrate(database)
    citus.distribute(database)
    assert select_column(database, "SELECT count(*) FROM snapshots") == snapshots
    first_release.bring_to_today(database)
    with run_background_jobs(database) as background:
        server = serve()
        background.run()
        assert_matches_oracle(server, database)
        assert_series_match_oracle(server, database)
        assert background.differences() == {}


@pytest.mark.cluster
@pytest.mark.skipif(not citus.DSN, reason="TEST_CITUS_DSN is not set")
def test_a_database_with_a_history_is_distributed(postgres: str, tmp_path: Path) -> None:
    """A server continues on the distributed database, and all figures equal the oracle before and after."""
    with empty_database(postgres) as dsn:
        migrate(dsn)
        server = ServerProcess(tmp_path / "data", {"SHM_DB_DSN": dsn})
        try:
            server.start()
            installs = [Install(server.url).enroll({"orders": number, "beta": True}) for number in range(12)]
            wait_until_rolled_up(dsn)
            server.terminate()
            citus.distribute(dsn)
            server.start()
            for install in installs[:6]:
                assert install.snapshot({"orders": 100, "locale": "fr"}).status_code == 202
            wait_until_rolled_up(dsn)
            assert_matches_oracle(server, dsn)
            assert_series_match_oracle(server, dsn)
            assert "Traceback" not in server.log
        finally:
            server.terminate()
        with run_background_jobs(dsn) as background:
            assert background.differences() == {}
        assert select_column(dsn, "SELECT count(*) FROM snapshots") == [18]


@pytest.mark.cluster
@pytest.mark.skipif(not citus.DSN, reason="TEST_CITUS_DSN is not set")
def test_a_backup_of_a_cluster_under_load_is_restored_into_another(
    postgres: str, database: str, serve: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    """It has the snapshots of all workers as of one moment, and is restored before they are distributed."""
    server = serve()
    file = str(tmp_path / "shm.dump")
    load = Load([server.url], 6)
    with load.running():
        load.wait_for_more(30)
        acknowledged = set(load.acknowledged)
        done = run_shm("backup", "--dsn", database, "--output", file)
        assert done.returncode == 0, done.stderr
        load.wait_for_more(30)
    server.terminate()
    with empty_database(postgres) as restored:
        done = run_shm("restore", "--dsn", restored, file)
        assert done.returncode == 0, done.stderr
        citus.distribute(restored)
        stored = {(instance_id, at) for instance_id, at, _ in stored_snapshots(restored)}
        assert acknowledged <= stored < set(load.sent)
        moved = serve(SHM_DB_DSN=restored)
        wait_until_rolled_up(restored)
        assert_matches_oracle(moved, restored)
        assert_series_match_oracle(moved, restored)
        moved.terminate()
        with run_background_jobs(restored) as background:
            assert background.differences() == {}


@pytest.mark.cluster
@pytest.mark.skipif(not citus.DSN, reason="TEST_CITUS_DSN is not set")
def test_a_worker_that_is_away_refuses_what_needs_it(database: str, serve: Callable[..., ServerProcess]) -> None:
    """With 503; figures, lists of installs and other workers' installs need it not. Afterwards all is as before."""
    server = serve(SHM_DB_PATIENCE="1s")
    admin = f"{server.url}/api/v1/admin"
    installs = [Install(server.url).enroll({"orders": number}) for number in range(12)]
    wait_until_rolled_up(database)
    with citus.worker_away(database):
        assert {install.snapshot({"orders": 100}).status_code for install in installs} == {202, 503}
        histories = [f"{admin}/instances/{install.instance_id}/snapshots" for install in installs]
        assert {plain_http.get(url, headers=server.headers).status_code for url in histories} == {200, 503}
        for path in ("stats", "instances", "metrics/Ledger"):
            assert server.get(path).is_success
        assert Install(server.url).register().status_code == 201
        wait_for(lambda: "could not roll up" in server.log, "a rollup that reads all workers")
    for install in installs:
        assert install.snapshot({"orders": 200}).status_code == 202
    wait_until_rolled_up(database)
    assert_matches_oracle(server, database)
    assert_series_match_oracle(server, database)
    assert "PostgreSQL cannot reach a worker of Citus" in server.log
    assert "Traceback" not in server.log
