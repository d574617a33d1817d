"""A page of a long history reads the page and not the history: it holds the rollup's lock meanwhile."""

from collections.abc import Iterator
from typing import Any

import pytest

from shm.db.statements import split_prologue, statements
from tests.support.databases import admin_cursor, execute
from tests.support.long_history import fill_with_history

SNAPSHOTS = 5_000
LIMIT = 50
PREPARE = """
    UPDATE series_head SET cursor = (SELECT cursor FROM feed_head);
    UPDATE instances SET erasing_since = now();
    INSERT INTO applications (slug, name) VALUES ('atlas', 'Atlas');
    UPDATE snapshots SET app_slug = 'atlas' WHERE cursor <= (SELECT cursor / 2 FROM feed_head);
"""
MOVED = "SELECT instance_id::text, max(snapshot_at) FROM snapshots WHERE app_slug = 'atlas' GROUP BY instance_id"
MAX_LEAVES = 1_000  # of a page; also the limits of the application that the install moves to
LIMITS = ("max_leaves", "max_keys", "max_values", "max_all_values", "max_versions")


def rows_read(plan: dict[str, Any]) -> Iterator[float]:
    """The rows that each scan of snapshots returned or discarded."""
    if plan.get("Relation Name", "").startswith("snapshots") and "Scan" in plan["Node Type"]:
        found = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
        yield found * plan["Actual Loops"]
    for part in plan.get("Plans", []):
        yield from rows_read(part)


@pytest.mark.parametrize("name", ["erasure.delete_page", "bulk.move_snapshots"])
def test_a_page_reads_no_more_of_a_history_than_the_page(database: str, name: str) -> None:
    fill_with_history(database, 1, SNAPSHOTS)
    execute(database, PREPARE)
    _, sql = split_prologue(statements()[name].sql)
    with admin_cursor(database) as cursor:
        cursor.execute(MOVED)
        ((instance_id, after),) = cursor.fetchall()
        parameters = {"instance_id": instance_id, "limit": LIMIT, "after": after}
        parameters |= {"app_slug": "ledger", "into_slug": "atlas"}
        cursor.execute("SET timezone = 'UTC'; SET jit = off")
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", parameters | dict.fromkeys(LIMITS, MAX_LEAVES))
        (((plan,),),) = cursor.fetchall()
    read = [*rows_read(plan["Plan"])]
    assert read
    assert max(read) < SNAPSHOTS / 10
