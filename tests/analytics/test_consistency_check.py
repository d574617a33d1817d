"""`shm check`: a healthy database has no difference after any input; corruptions are reported and repaired."""

import argparse
import asyncio
import random
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import httpx
import psycopg2
import pytest

from shm.analytics.consistency import MAX_EXAMPLES, MAX_LEAVES_ROWS
from shm.analytics.percentiles import MAX_AGE
from shm.cli.check import run
from shm.core.settings import Settings
from shm.db.database import Database
from tests.support import plain_http
from tests.support.background_jobs import wait_until_rolled_up
from tests.support.clusters import wait_for
from tests.support.corruptions import CORRUPTIONS, GROUPS
from tests.support.databases import admin_cursor, execute, select_column
from tests.support.installs import Install
from tests.support.load import Load
from tests.support.module_server import module_server
from tests.support.oracle import assert_matches_oracle
from tests.support.server_process import ServerProcess
from tests.support.signed_actions import act

pytestmark = pytest.mark.cluster

FLEET_SIZE = 12

CORRUPTION_GROUPS = [
    *(pytest.param(group, id=f"{len(group)} with {group[0]}") for group in GROUPS),
    *(pytest.param((name,), id=f"only {name}", marks=pytest.mark.long) for name in CORRUPTIONS),
]


@dataclass(frozen=True)
class Checked:
    """The result of `shm check`: its exit status and the lines of its standard output."""

    status: int
    lines: list[str]


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Callable[..., Checked]:
    """Runs `shm check` on a database."""

    def check(dsn: str, *, repair: bool = False) -> Checked:
        capsys.readouterr()
        status = run(argparse.Namespace(dsn=dsn, data_dir=None, repair=repair))
        return Checked(status, capsys.readouterr().out.splitlines())

    return check


def report_fleet(url: str, headers: dict[str, str]) -> None:
    """Installs that report late, twice or a backlog, change their application, are revoked or erased."""
    seed = secrets.randbits(32)
    print(f"the fleet's seed is {seed}")
    rng = random.Random(seed)
    for _ in range(FLEET_SIZE):
        install = Install(
            url,
            app_name=rng.choice(["Ledger", "Kiosk"]),
            app_version=rng.choice(["1.4.2", "1.5.0", ""]),
            environment=rng.choice(["production", "Dev", "ci", ""]),
        )
        install.register()
        if rng.random() < 0.9:
            assert install.activate().status_code == 200
            send_snapshots(install, rng)
        if rng.random() < 0.2:
            install.register(app_name="Kiosk", app_version="2.0")
            send_snapshots(install, rng)
        outcome = rng.random()
        if outcome < 0.15:
            address = f"{url}/api/v1/admin/instances/{install.instance_id}/revoke"
            plain_http.post(address, headers=headers).raise_for_status()
        elif outcome < 0.3:
            act(install, "erase")


def send_snapshots(install: Install, rng: random.Random) -> None:
    """Sends snapshots in random order, some of them twice and some in a backlog."""
    now = datetime.now(UTC)
    times = [now - timedelta(hours=rng.choice([0, 1, 30, 300, 700]) * rng.random()) for _ in range(6)]
    times += [(now - timedelta(days=rng.randrange(29))).replace(minute=0, second=0, microsecond=0)]
    for at in times:
        install.snapshot(metrics(rng), at, **({"sequence": rng.randrange(5)} if rng.random() < 0.5 else {}))
        if rng.random() < 0.2:
            install.snapshot(metrics(rng), at)
    members = [{"timestamp": (at - timedelta(hours=5)).isoformat(), "metrics": metrics(rng)} for at in times[:3]]
    body = httpx.Request("POST", install.url, json={"instance_id": install.instance_id, "snapshots": members}).content
    install.post("/v1/snapshots", body, install.signed(body))


def metrics(rng: random.Random) -> dict[str, Any]:
    """Values of every type; each key is left out at random."""
    values = {
        "sent": rng.randrange(1000),
        "hit_rate": rng.randrange(1000) / 8,
        "beta": rng.random() < 0.5,
        "plan": rng.choice(["free", "team", "x" * 65]),
        "mail": {"sent": rng.choice([1, 2.5, True, "no", None]), "tags": [1], "mem_mb": -3},
        "sys_ephemeral": rng.random() < 0.2,
    }
    return {key: value for key, value in values.items() if rng.random() < 0.8}


@pytest.fixture(scope="module")
def fleet_database(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, str]]:
    """A server with a fleet on a database of its own, and its DSN. Each test repairs the corruptions that it makes.

    After them every figure must match the oracle.
    """
    with module_server(postgres, tmp_path_factory.mktemp("grown")) as (server, dsn):
        report_fleet(server.url, server.headers)
        for number in range(len(CORRUPTIONS)):
            install = Install(server.url, environment="Dev" if number % 3 == 0 else "production")
            install.enroll({"sent": number, "hit_rate": number / 8})
        wait_until_rolled_up(dsn)
        yield server, dsn
        for slug in ("ledger", "kiosk"):
            assert_matches_oracle(server, dsn, slug)


def test_a_healthy_database_has_no_difference(
    fleet_database: tuple[ServerProcess, str], check: Callable[..., Checked]
) -> None:
    assert check(fleet_database[1]) == Checked(0, [])


@pytest.mark.parametrize("corruptions", CORRUPTION_GROUPS)
def test_corruptions_are_reported_and_repaired(
    fleet_database: tuple[ServerProcess, str], check: Callable[..., Checked], corruptions: tuple[str, ...]
) -> None:
    """Each has a line of its own in the output, and in that of the repair. The long form makes one at a time."""
    _, dsn = fleet_database
    active = select_column(dsn, "SELECT instance_id FROM instances WHERE snapshot_at IS NOT NULL AND status = 'active'")
    assert len(active) >= len(corruptions)
    for name, instance_id in zip(corruptions, active, strict=False):
        execute(dsn, CORRUPTIONS[name][0].replace("ONE", f"'{instance_id}'::uuid"))
    result = check(dsn)
    assert result.status == 1
    assert_reported(corruptions, result.lines)
    repair_result = check(dsn, repair=True)
    assert repair_result.status == 0
    assert_reported(corruptions, [line.removeprefix("repaired ") for line in repair_result.lines])
    assert all(line.startswith("repaired ") for line in repair_result.lines)
    assert check(dsn) == Checked(0, [])


def assert_reported(corruptions: tuple[str, ...], lines: list[str]) -> None:
    """Asserts that each corruption has a line of its own. The most specific ones choose first."""
    left = list(lines)
    for name in sorted(corruptions, key=lambda name: len("".join(CORRUPTIONS[name][1:])), reverse=True):
        _, start, part = CORRUPTIONS[name]
        line = next((line for line in left if line.startswith(start) and part in line), None)
        assert line is not None, (name, lines)
        left.remove(line)


def test_a_spread_is_compared_until_its_application_changes(
    fleet_database: tuple[ServerProcess, str], check: Callable[..., Checked]
) -> None:
    server, dsn = fleet_database
    asyncio.run(compute_spreads(dsn, "sent", "hit_rate"))
    assert check(dsn) == Checked(0, [])
    execute(dsn, "UPDATE distributions SET p90 = p90 + 1 WHERE key = 'sent' AND counted_only")
    (line,) = check(dsn).lines
    assert line.startswith("distributions: ledger, counted, sent: is ")
    assert check(dsn, repair=True) == Checked(0, [f"repaired {line}"])
    assert len(select_column(dsn, "SELECT key FROM distributions")) == 3
    execute(dsn, "UPDATE distributions SET max = max + 1")
    assert len(check(dsn).lines) == 3
    Install(server.url, app_name="Ledger").enroll({"sent": 1})
    wait_until_rolled_up(dsn)
    assert check(dsn) == Checked(0, [])
    execute(dsn, "DELETE FROM distributions")


async def compute_spreads(dsn: str, *keys: str) -> None:
    """Computes the spreads of Ledger's metrics, as a server does for a large fleet."""
    async with Database.connect(Settings(), dsn, size=1) as database:
        for key, counted_only in product(keys, (False, True)):
            computed = await database.execute(
                "distributions.refresh_one", app="ledger", counted_only=counted_only, key=key, max_age=MAX_AGE
            )
            assert computed == 1


def test_the_snapshot_of_a_move_belongs_to_the_new_application(
    server: ServerProcess, database: str, check: Callable[..., Checked]
) -> None:
    """The snapshot with which an install changes its application belongs to the new one."""
    install = Install(server.url, app_name="Ledger").enroll({"sent": 1}, ago=timedelta(days=1))
    install.register(app_name="Kiosk")
    assert install.snapshot({"sent": 2}).status_code == 202
    with admin_cursor(database) as cursor:
        cursor.execute("SELECT app_slug FROM snapshots ORDER BY snapshot_at")
        assert cursor.fetchall() == [("ledger",), ("kiosk",)]
    assert check(database) == Checked(0, [])


def test_more_instances_than_a_repair_takes_at_once_are_repaired(
    server: ServerProcess, database: str, check: Callable[..., Checked]
) -> None:
    installs = [Install(server.url).enroll({"sent": number}) for number in range(2 * MAX_LEAVES_ROWS + 1)]
    execute(database, "UPDATE instances SET metrics = '{}'")
    execute(database, "UPDATE snapshots SET leaves = '{\"x\": 1}'")
    result = check(database, repair=True)
    assert result.status == 0
    for table, differences in (("snapshots", len(installs)), ("instances", 2 * len(installs))):  # metrics and leaves
        assert f"repaired {table}: and {differences - MAX_EXAMPLES} more" in result.lines
    assert check(database) == Checked(0, [])
    assert_matches_oracle(server, database)


def test_many_differences_are_shown_in_part_and_repaired_in_all(
    fleet_database: tuple[ServerProcess, str], check: Callable[..., Checked]
) -> None:
    with admin_cursor(fleet_database[1]) as cursor:
        cursor.execute("DELETE FROM series_days WHERE total <> 0 OR instances <> 0")  # zero rows are no differences
        deleted = cursor.rowcount
    result = check(fleet_database[1])
    assert result.status == 1
    assert len(result.lines) == MAX_EXAMPLES + 1
    assert result.lines[-1] == f"series_days: and {deleted - MAX_EXAMPLES} more"
    assert check(fleet_database[1], repair=True).status == 0
    assert check(fleet_database[1]) == Checked(0, [])


def test_a_due_refresh_is_no_difference(
    fleet_database: tuple[ServerProcess, str], check: Callable[..., Checked]
) -> None:
    server, dsn = fleet_database
    server.terminate()
    with admin_cursor(dsn) as cursor:
        cursor.execute("UPDATE instances SET refresh_at = '-infinity' WHERE snapshot_at IS NOT NULL")
    assert check(dsn) == Checked(0, [])
    server.start()
    assert check(dsn) == Checked(0, [])


@pytest.mark.long
def test_check_and_repair_work_under_load(server: ServerProcess, database: str, check: Callable[..., Checked]) -> None:
    """Under load a healthy database has no difference and a corrupt one is repaired."""
    report_fleet(server.url, server.headers)
    load = Load([server.url], 6)
    with load.running():
        for _ in range(2):
            load.wait_for_more(30)
            assert check(database) == Checked(0, [])
        with admin_cursor(database) as cursor:
            cursor.execute("UPDATE tallies SET total = total + 3, counted_instances = counted_instances + 1")
            cursor.execute("DELETE FROM series_hours WHERE key = 'n' OR metric_type = 'version'")
            cursor.execute("UPDATE series_days SET total = total - 1")
            cursor.execute("UPDATE instances SET reporting = FALSE WHERE app_slug = 'kiosk'")
        assert check(database, repair=True).status == 0
        load.wait_for_more(30)
        assert check(database) == Checked(0, [])
    assert load.faults == []
    assert check(database) == Checked(0, [])


@pytest.mark.parametrize("windows", [["90m"], pytest.param(["36h", "90m", "30d"], marks=pytest.mark.long)])
def test_another_active_window_recomputes_the_series(
    serve: Callable[..., ServerProcess], database: str, check: Callable[..., Checked], windows: list[str]
) -> None:
    server = serve()
    report_fleet(server.url, server.headers)
    wait_until_rolled_up(database)
    server.terminate()
    for window in windows:
        other = serve(SHM_ACTIVE_WINDOW=window)
        wait_until_rolled_up(database)
        wait_until_refreshed(database)
        assert check(database) == Checked(0, [])
        assert "Traceback" not in other.log
        other.terminate()


def wait_until_refreshed(dsn: str) -> None:
    """Waits until all due instances have been refreshed."""
    wait_for(
        lambda: select_column(dsn, "SELECT count(*) FROM instances WHERE refresh_at <= now()") == [0], "the refresh"
    )


@pytest.mark.long
def test_charts_of_another_window_differ_until_recomputed(
    serve: Callable[..., ServerProcess], database: str, check: Callable[..., Checked]
) -> None:
    """Charts of another window are a difference until a server has computed them again."""
    server = serve()
    report_fleet(server.url, server.headers)
    wait_until_rolled_up(database)
    server.terminate()
    with admin_cursor(database) as cursor:
        cursor.execute(
            "UPDATE settings SET active_window = '2 days', activity_windows = '{1 day,2 days,7 days,30 days}'"
        )
        cursor.execute("UPDATE instances SET refresh_at = '-infinity'")
        cursor.execute("UPDATE series_head SET stale = TRUE")
    for repair in (False, True):
        result = check(database, repair=repair)
        assert result.status == 1
        assert result.lines == ["series_head: stale: is true, should be false"]
    serve(SHM_ACTIVE_WINDOW="2d")
    wait_until_rolled_up(database)
    assert check(database) == Checked(0, [])


# The hours of the dropped weeks are deleted, or kept.
@pytest.mark.long
@pytest.mark.parametrize("retention", ["60d", "110d"])
def test_only_recomputable_values_are_compared_after_drops(
    serve: Callable[..., ServerProcess], database: str, check: Callable[..., Checked], retention: str
) -> None:
    """Where raw snapshots were dropped, only values that can be recomputed are compared; the others stay."""
    server = serve(SHM_MAX_SNAPSHOT_AGE="120d", SHM_ACTIVE_WINDOW="5d", SHM_RETENTION="125d")
    now = datetime.now(UTC)
    rng = random.Random(secrets.randbits(32))
    installs = [Install(server.url).enroll({"sent": 1}, ago=timedelta(days=100)) for _ in range(8)]
    for install in installs * 10:
        install.snapshot(metrics(rng), now - timedelta(days=100 * rng.random()))
    act(installs[0], "erase")
    wait_until_rolled_up(database)
    server.terminate()
    with admin_cursor(database) as cursor:
        drop_all_before(cursor, "60 days")
        cursor.execute("SELECT count(*) FROM snapshots WHERE snapshot_at < now() - interval '67 days'")
        assert cursor.fetchone() == (0,)
    assert check(database) == Checked(0, [])
    with admin_cursor(database) as cursor:
        cursor.execute("SELECT sum(instances), sum(total) FROM series_days WHERE at < now() - interval '70 days'")
        old = cursor.fetchone()
    later = serve(SHM_MAX_SNAPSHOT_AGE="30d", SHM_ACTIVE_WINDOW="3d", SHM_RETENTION=retention)
    wait_until_rolled_up(database)
    wait_until_refreshed(database)
    wait_until_hours_are_deleted(database)
    assert check(database) == Checked(0, [])
    assert_days_match_hours(database)
    with admin_cursor(database) as cursor:
        cursor.execute("DELETE FROM series_hours WHERE at > now() - interval '20 days'")
        cursor.execute("DELETE FROM series_days WHERE at > now() - interval '20 days'")
    assert check(database, repair=True).status == 0
    assert_days_match_hours(database)
    with admin_cursor(database) as cursor:
        cursor.execute("SELECT sum(instances), sum(total) FROM series_days WHERE at < now() - interval '70 days'")
        assert cursor.fetchone() == old
    later.terminate()


def drop_all_before(cursor: psycopg2.extensions.cursor, age: str) -> None:
    """Turns a young database into an old one: partitions by week, of which the oldest are dropped."""
    cursor.execute("SELECT date_trunc('week', now() - %s::interval, 'UTC')", (age,))
    (oldest,) = cursor.fetchone() or (None,)
    cursor.execute("ALTER TABLE snapshots DETACH PARTITION snapshots_first")
    cursor.execute("SELECT date_trunc('week', now(), 'UTC') + interval '14 days'")
    (end,) = cursor.fetchone() or (None,)
    cursor.execute("CREATE TABLE the_past PARTITION OF snapshots FOR VALUES FROM (%s) TO (%s)", (oldest, end))
    cursor.execute("INSERT INTO snapshots SELECT * FROM snapshots_first WHERE snapshot_at >= %s", (oldest,))
    cursor.execute("UPDATE series_head SET raw_since = %s", (oldest,))
    cursor.execute("DROP TABLE snapshots_first")


def wait_until_hours_are_deleted(dsn: str) -> None:
    """Waits until the background has deleted the oldest hours."""
    count_sql = "SELECT count(*) FROM series_hours h, series_head head WHERE h.at < head.hours_since"
    wait_for(lambda: select_column(dsn, count_sql) == [0], "the deletion of the oldest hours")


def assert_days_match_hours(dsn: str) -> None:
    """Asserts that each closed day plus its hours is the next day, as charts need it."""
    with admin_cursor(dsn) as cursor:
        cursor.execute(
            """
            SELECT app_slug, metric_type, key, value, to_day, sum(total), sum(instances)
            FROM (
                SELECT app_slug, metric_type, key, value, at AS to_day, total, instances FROM series_days
                UNION ALL
                SELECT app_slug, metric_type, key, value, at + interval '1 day', -total, -instances FROM series_days
                UNION ALL
                SELECT app_slug, metric_type, key, value,
                    date_trunc('day', at + interval '1 day' - interval '1 microsecond'), -total, -instances
                FROM series_hours
            ) each, series_head head
            WHERE
                to_day <= head.closed_until
                AND to_day >= greatest(head.hours_since, head.frozen_until) + interval '1 day'
            GROUP BY 1, 2, 3, 4, 5
            HAVING sum(total) <> 0 OR sum(instances) <> 0
            """
        )
        assert cursor.fetchall() == []
