"""The bench of reading measures what it says: fleets written by SQL are what the server would have made of them."""

import asyncio
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from bench.read.endpoints import ENDPOINTS, Endpoint
from bench.read.seeded_fleet import Estate, another_day, connected, seed
from shm.database import Database
from shm.queries import with_parts
from shm.rollup import Rollup
from shm.settings import Settings

CHECKOUT = Path(__file__).parent.parent.parent
INSTALLS = 150

Rows = dict[tuple[object, ...], tuple[Decimal, ...]]

MOVED = """
WITH before AS (
    SELECT * FROM standings WHERE FALSE
),
after AS (
    SELECT instance_id, app_slug, app_version, environment, status, first_seen_at, last_seen_at, snapshot_at, leaves
    FROM standings
),
-- use: moved
whole AS (
    SELECT * FROM moved
)
SELECT app_slug, sort, key, value, total, instances, counted_total, counted_instances FROM whole
"""
TALLIES = "SELECT app_slug, sort, key, value, total, instances, counted_total, counted_instances FROM tallies"
HOURS = "SELECT app_slug, sort, key, value, at, total, instances FROM series_hours"
DAYS = """
SELECT app_slug, sort, key, value, at, total, instances FROM series_days
WHERE at >= (SELECT min(at) FROM series_hours)
"""
VERSIONS = "SELECT instance_id::text, app_version, app_slug, first_at FROM versions_seen"
MISPLACED = """
WITH before AS (
    SELECT * FROM standings WHERE FALSE
),
after AS (
    SELECT instance_id, app_slug, app_version, environment, status, first_seen_at, last_seen_at, snapshot_at, leaves
    FROM standings
),
-- use: moved
misplaced AS (
    SELECT FROM instances i
    JOIN placed p USING (instance_id)
    WHERE (i.counted, i.reporting) <> (p.counted, p.reporting) OR i.lapsed > p.lapsed OR i.due_at <> p.due_at
)
SELECT count(*) FROM misplaced
"""


@pytest.mark.timeout(900)  # it starts and ends three servers twice
def test_the_quick_bench_asks_every_endpoint_that_there_is(open_folder: Path) -> None:
    shape = ("--quick", "--small", f"{INSTALLS}", "--large", f"{2 * INSTALLS}", "--folder", str(open_folder))
    done = subprocess.run(
        [sys.executable, "-m", "bench.read", *shape], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for endpoint in ENDPOINTS:
        (line,) = (line for line in done.stdout.splitlines() if line.strip().startswith(f"{endpoint.name}  "))
        assert ("not there yet" in line) != endpoint.is_there
    assert "rolled up" in done.stdout
    assert list(open_folder.iterdir()) == []


def test_a_fleet_that_is_written_at_once_stands_and_adds_up_as_the_server_has_it(database: str) -> None:
    seed(database, Estate(INSTALLS, 12))
    assert _rows(database, TALLIES, 4) == _rows(database, with_parts(MOVED), 4)
    with connected(database) as cursor:
        cursor.execute(with_parts(MISPLACED))
        assert cursor.fetchone() == (0,)


def test_its_series_are_what_the_rollup_makes_of_its_snapshots(database: str) -> None:
    seed(database, Estate(INSTALLS, 12))
    hours, days, versions = _rows(database, HOURS, 5), _rows(database, DAYS, 5), _rows(database, VERSIONS, 2)
    assert hours
    assert days
    with connected(database) as cursor:
        cursor.execute(
            "DELETE FROM series_hours; DELETE FROM series_days; DELETE FROM versions_seen;"
            "UPDATE series_head SET cursor = 0"
        )
    asyncio.run(_roll(database))
    assert _rows(database, HOURS, 5) == hours
    assert _rows(database, DAYS, 5) == days
    assert _rows(database, VERSIONS, 2) == versions


def test_another_day_is_stored_and_not_yet_rolled_up(database: str) -> None:
    seed(database, Estate(INSTALLS, 2))
    stored = another_day(database)
    with connected(database) as cursor:
        cursor.execute("SELECT 24 * count(*) FROM instances WHERE status = 'active'")
        assert cursor.fetchone() == (stored,)


def test_what_the_server_has_is_found_among_its_routes_and_what_it_has_not_is_not() -> None:
    assert all(Endpoint(path, path).is_there for path in ("stats", "instances?limit=50", "metrics/{app}?period=24h"))
    assert not any(Endpoint(path, path).is_there for path in ("statistics", "instances?shape=round", "metrics"))


async def _roll(database: str) -> None:
    async with Database.opened(Settings(), database, size=1) as pool:
        rollup = Rollup(pool)
        while await rollup.roll():
            pass


def _rows(database: str, sql: str, names: int) -> Rows:
    """By name, those that are not nothing."""
    with connected(database) as cursor:
        cursor.execute(sql)
        return {row[:names]: row[names:] for row in cursor.fetchall() if any(row[names:])}
