"""A step of the rollup reads as many snapshots as it rolls up, however many wait behind them."""

import asyncio
from collections.abc import Iterator
from typing import Any

from shm.core.settings import Settings
from shm.db.database import Database
from shm.db.statements import split_prologue, statements
from tests.support.databases import execute

STEP_SIZE = 100
MAX_READ = 10 * STEP_SIZE  # a step's snapshots and their neighbours in time, for each of its parts
FILL = """
    INSERT INTO instances (
        instance_id, public_key, status, app_slug, app_name, app_version, environment, deployment_mode, os_arch,
        first_seen_at, last_seen_at, snapshot_at, metrics, cursor
    )
    SELECT
        gen_random_uuid(), '', 'active', 'ledger', 'Ledger', '1', '', '', '', now(), now(), now(),
        jsonb_build_object('users', n), n
    FROM generate_series(1, 8000) n;
    INSERT INTO snapshots (instance_id, snapshot_at, app_version, metrics, app_slug, cursor)
    SELECT instance_id, snapshot_at, app_version, metrics, app_slug, cursor FROM instances;
    UPDATE feed_head SET cursor = 8000;
"""


def rows_read(plan: dict[str, Any]) -> Iterator[int]:
    """The number of rows that each scan of snapshots returned, over all of its loops."""
    if "Scan" in plan["Node Type"] and plan.get("Relation Name", "").startswith("snapshots"):
        yield round(plan["Actual Rows"] * plan["Actual Loops"])
    for part in plan.get("Plans", []):
        yield from rows_read(part)


async def plan_of_a_step(dsn: str) -> dict[str, Any]:
    parameters = {"until": 8_000, "limit": STEP_SIZE, "max_leaves": 25 * STEP_SIZE}
    _, sql = split_prologue(statements()["series.roll_up"].sql)
    explain = "EXPLAIN (ANALYZE, FORMAT JSON) " + sql
    for name, value in parameters.items():
        explain = explain.replace(f"%({name})s", str(value))
    async with Database.connect(Settings(), dsn, size=1) as database, database.dedicated_connection() as connection:
        ((plan,),) = await connection.execute_sql(explain, "plan")
        assert isinstance(plan, list)
        steps: dict[str, Any] = plan[0]["Plan"]
        return steps


def test_a_step_does_not_read_the_snapshots_that_wait_behind_it(database: str) -> None:
    execute(database, FILL)
    read = [*rows_read(asyncio.run(plan_of_a_step(database)))]
    assert STEP_SIZE <= max(read) <= MAX_READ, read
