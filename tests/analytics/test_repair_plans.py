"""`shm check --repair` looks up the rows that it repairs: no repair reads a whole table under a lock of the writers."""

import asyncio
from collections.abc import Iterator
from typing import Any

from shm.analytics.consistency import COMPARISONS, open_repairer
from shm.core.settings import Settings
from shm.db.advisory_locks import Lock
from shm.db.database import Database
from shm.db.statements import split_prologue, statements
from tests.support.databases import execute

# Eight thousand rows of a kilobyte each: to read all of them costs more than to look up a page of differences.
FILL = """
    INSERT INTO instances (
        instance_id, public_key, status, app_slug, app_name, app_version, environment, deployment_mode, os_arch,
        first_seen_at, last_seen_at, snapshot_at, metrics, cursor
    )
    SELECT
        gen_random_uuid(), '', 'active', 'ledger', 'Ledger', '1', '', '', '', now(), now(), now(),
        jsonb_build_object('text', repeat(md5(n::text), 30)), n
    FROM generate_series(1, 8000) n;
    INSERT INTO snapshots (instance_id, snapshot_at, app_version, metrics, app_slug, cursor)
    SELECT instance_id, snapshot_at, app_version, metrics, app_slug, cursor FROM instances;
    INSERT INTO absences
    SELECT instance_id, now() + n * interval '1 s', 'infinity' FROM instances, generate_series(1, 12) n;
    INSERT INTO versions_seen SELECT instance_id, repeat('1', 1000), 'ledger', now() FROM instances;
    ANALYZE;
"""
MAX_COST = 100  # of reading an empty partition, in pages; each filled table has some hundreds


def scans(plan: dict[str, Any]) -> Iterator[str]:
    """The large tables that a plan reads as a whole."""
    if plan["Node Type"] == "Seq Scan" and plan["Total Cost"] > MAX_COST:
        yield plan["Relation Name"]
    for part in plan.get("Plans", []):
        yield from scans(part)


async def plans_of_repairs(dsn: str) -> dict[str, dict[str, Any]]:
    """The plan of each repair, on the connection that carries it out, for a page of differences."""
    async with Database.connect(Settings(), dsn, size=1) as database, open_repairer(database) as repairer:
        assert repairer is not None
        plans = {}
        for name in COMPARISONS:
            prologue, sql = split_prologue(statements()[f"repair.{name}"].sql)
            assert name == "distributions" or any(f"({lock})" in prologue for lock in (Lock.WRITERS, Lock.ROLLUP)), name
            explain = "EXPLAIN (FORMAT JSON) " + sql.replace("%(rows)s", "'[]'").replace("%%", "%")
            ((plan,),) = await repairer._repairing.execute_sql(explain, name)
            assert isinstance(plan, list)
            plans[name] = plan[0]["Plan"]
        return plans


def test_a_repair_reads_no_whole_table_under_a_lock(database: str) -> None:
    execute(database, FILL)
    for name, plan in asyncio.run(plans_of_repairs(database)).items():
        assert [*scans(plan)] == [], name
