"""The read bench: a fleet inserted by SQL equals one that the server has stored."""

import asyncio
from decimal import Decimal
from pathlib import Path

import pytest

from bench.read.endpoints import ENDPOINTS, UNMEASURED, Endpoint
from bench.read.seeded_fleet import SeededFleet, add_day, open_cursor, seed_fleet
from shm.analytics.rollup import Rollup
from shm.core.settings import Settings
from shm.db.database import Database
from shm.db.embedded.role import ROLE
from shm.db.statements import expand_parts
from shm.server.app import ADMIN, ROUTES
from shm.server.http.operations import operations_of
from tests.support.bench_program import run_bench
from tests.support.databases import superuser_cursor

INSTALLS = 150

Rows = dict[tuple[object, ...], tuple[Decimal, ...]]

# The beginning of the next two statements: all instances, as if each were new.
DELTAS_OF_INSTANCES = """
WITH before AS (
    SELECT * FROM instance_states WHERE FALSE
),
after AS (
    SELECT instance_id, app_slug, app_version, environment, status, first_seen_at, last_seen_at, snapshot_at, leaves
    FROM instance_states
),
-- use: deltas
"""
TALLIES_OF_INSTANCES = """
all_deltas AS (
    SELECT * FROM deltas
)
SELECT app_slug, metric_type, key, value, total, instances, counted_total, counted_instances FROM all_deltas
"""
TALLIES = "SELECT app_slug, metric_type, key, value, total, instances, counted_total, counted_instances FROM tallies"
HOURS = "SELECT app_slug, metric_type, key, value, at, total, instances FROM series_hours"
DAYS = """
SELECT app_slug, metric_type, key, value, at, total, instances FROM series_days
WHERE at >= (SELECT min(at) FROM series_hours)
"""
VERSIONS = "SELECT instance_id::text, app_version, app_slug, first_at FROM versions_seen"
COUNT_WRONG_COLUMNS = """
wrong AS (
    SELECT FROM instances i
    JOIN evaluated p USING (instance_id)
    WHERE
        (i.counted, i.reporting) <> (p.counted, p.reporting) OR i.elapsed_windows > p.elapsed_windows
        OR i.refresh_at <> p.refresh_at
)
SELECT count(*) FROM wrong
"""


def test_each_read_of_the_admin_api_is_measured() -> None:
    reads = {route for route, handler in ROUTES if route.startswith(f"{ADMIN}/") and "get" in operations_of(handler)}
    assert reads == {endpoint.route for endpoint in ENDPOINTS} | UNMEASURED.keys()


@pytest.mark.long  # it starts and ends three servers twice
def test_the_quick_read_bench_requests_each_endpoint(postgres_dir: Path) -> None:
    shape = ("--quick", "--small", f"{INSTALLS}", "--large", f"{2 * INSTALLS}")
    output = run_bench("read", postgres_dir, *shape)
    for endpoint in ENDPOINTS:
        (line,) = (line for line in output.splitlines() if line.strip().startswith(f"{endpoint.name}  "))
        assert ("not in this version" in line) == (endpoint.route is None)
    assert "rolled up" in output


@pytest.fixture(autouse=True)
def checkpoint_privilege(postgres: str) -> None:
    """Allows the role to run CHECKPOINT, as the bench does after seeding."""
    with superuser_cursor(postgres) as cursor:
        cursor.execute(f"GRANT pg_checkpoint TO {ROLE}")


def test_tallies_of_a_seeded_fleet_match_its_instances(database: str) -> None:
    seed_fleet(database, SeededFleet(INSTALLS, 12))
    assert _rows(database, TALLIES, 4) == _rows(database, expand_parts(DELTAS_OF_INSTANCES + TALLIES_OF_INSTANCES), 4)
    with open_cursor(database) as cursor:
        cursor.execute(expand_parts(DELTAS_OF_INSTANCES + COUNT_WRONG_COLUMNS))
        assert cursor.fetchone() == (0,)


@pytest.mark.long
def test_series_of_a_seeded_fleet_match_the_rollup(database: str) -> None:
    seed_fleet(database, SeededFleet(INSTALLS, 12))
    hours, days, versions = _rows(database, HOURS, 5), _rows(database, DAYS, 5), _rows(database, VERSIONS, 2)
    assert hours
    assert days
    with open_cursor(database) as cursor:
        cursor.execute(
            "DELETE FROM series_hours; DELETE FROM series_days; DELETE FROM versions_seen;"
            "UPDATE series_head SET cursor = 0"
        )
    asyncio.run(_roll_up(database))
    assert _rows(database, HOURS, 5) == hours
    assert _rows(database, DAYS, 5) == days
    assert _rows(database, VERSIONS, 2) == versions


def test_an_added_day_is_stored_without_a_rollup(database: str) -> None:
    seed_fleet(database, SeededFleet(INSTALLS, 2))
    stored = add_day(database)
    with open_cursor(database) as cursor:
        cursor.execute("SELECT 24 * count(*) FROM instances WHERE status = 'active'")
        assert cursor.fetchone() == (stored,)


def test_an_endpoint_has_a_route_if_the_server_has_its_query() -> None:
    assert all(Endpoint(path, path).route for path in ("stats", "instances?limit=50", "metrics/{app}?period=24h"))
    assert not any(Endpoint(path, path).route for path in ("statistics", "instances?shape=round", "metrics"))


async def _roll_up(database: str) -> None:
    async with Database.connect(Settings(), database, size=1) as pool:
        rollup = Rollup(pool)
        while await rollup.roll_up():
            pass


def _rows(database: str, sql: str, names: int) -> Rows:
    """The rows with a value other than zero, by their first `names` columns."""
    with open_cursor(database) as cursor:
        cursor.execute(sql)
        return {row[:names]: row[names:] for row in cursor.fetchall() if any(row[names:])}
