"""`shm check`: a healthy database has no difference, whatever came in; what is wrong is named, and mended from raw."""

import argparse
import random
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg2
import pytest

from shm.analytics.consistency import MAX_SHOWN
from shm.cli.check import run
from tests.support import plain_http
from tests.support.databases import admin_cursor, fresh_database
from tests.support.installs import Install
from tests.support.load import Load
from tests.support.oracle import assert_matches_oracle
from tests.support.server_process import ServerProcess
from tests.support.signed_actions import act

LIMIT_S = 60
FLEET = 30

ROLLED = "SELECT h.cursor = f.cursor AND NOT h.stale FROM series_head h, feed_head f"


@dataclass(frozen=True)
class Checked:
    """What `shm check` said of a database."""

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


def fleet(url: str, headers: dict[str, str]) -> None:
    """Installs that do whatever installs do: report late, twice, a backlog, change application, are revoked, erased."""
    seed = secrets.randbits(32)
    print(f"the fleet's seed is {seed}")
    by_chance = random.Random(seed)
    for _ in range(FLEET):
        one = Install(
            url,
            app_name=by_chance.choice(["Ledger", "Kiosk"]),
            app_version=by_chance.choice(["1.4.2", "1.5.0", ""]),
            environment=by_chance.choice(["production", "Dev", "ci", ""]),
        )
        one.register()
        if by_chance.random() < 0.9:
            assert one.activate().status_code == 200
            report(one, by_chance)
        if by_chance.random() < 0.2:
            one.register(app_name="Kiosk", app_version="2.0")
            report(one, by_chance)
        fate = by_chance.random()
        if fate < 0.15:
            address = f"{url}/api/v1/admin/instances/{one.instance_id}/revoke"
            plain_http.post(address, headers=headers).raise_for_status()
        elif fate < 0.3:
            act(one, "erase")


def report(one: Install, by_chance: random.Random) -> None:
    """Some snapshots, in any order, some of them twice and some in a backlog."""
    now = datetime.now(UTC)
    times = [now - timedelta(hours=by_chance.choice([0, 1, 30, 300, 700]) * by_chance.random()) for _ in range(6)]
    times += [(now - timedelta(days=by_chance.randrange(29))).replace(minute=0, second=0, microsecond=0)]
    for at in times:
        one.snapshot(metrics(by_chance), at)
        if by_chance.random() < 0.2:
            one.snapshot(metrics(by_chance), at)
    members = [{"timestamp": (at - timedelta(hours=5)).isoformat(), "metrics": metrics(by_chance)} for at in times[:3]]
    body = httpx.Request("POST", one.url, json={"instance_id": one.instance_id, "snapshots": members}).content
    one.post("/v1/snapshots", body, one.signed(body))


def metrics(by_chance: random.Random) -> dict[str, Any]:
    """Every sort of value, and not every key each time."""
    every = {
        "sent": by_chance.randrange(1000),
        "hit_rate": by_chance.randrange(1000) / 8,
        "beta": by_chance.random() < 0.5,
        "plan": by_chance.choice(["free", "team", "x" * 65]),
        "mail": {"sent": by_chance.choice([1, 2.5, True, "no", None]), "tags": [1], "mem_mb": -3},
        "sys_ephemeral": by_chance.random() < 0.2,
    }
    return {key: value for key, value in every.items() if by_chance.random() < 0.8}


def wait_until_rolled(dsn: str) -> None:
    """Until all snapshots are in the series."""
    deadline = time.monotonic() + LIMIT_S
    with admin_cursor(dsn) as cursor:
        while True:
            cursor.execute(ROLLED)
            if cursor.fetchone() == (True,):
                return
            assert time.monotonic() < deadline, "the series are not rolled up"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def grown(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, str]]:
    """A server with a fleet on a database of its own, and its DSN. Whatever a test spoils, it mends."""
    with fresh_database(postgres) as dsn:
        server = ServerProcess(tmp_path_factory.mktemp("grown") / "data", {"SHM_DB_DSN": dsn})
        server.start()
        try:
            fleet(server.url, server.headers)
            wait_until_rolled(dsn)
            yield server, dsn
        finally:
            server.terminate()


def test_a_healthy_database_has_no_difference(grown: tuple[ServerProcess, str], check: Callable[..., Checked]) -> None:
    assert check(grown[1]) == Checked(0, [])


AN_INSTALL = "(SELECT instance_id FROM instances WHERE snapshot_at IS NOT NULL AND status = 'active' LIMIT 1)"
SPOILT = {
    "leaves of a snapshot": (
        "UPDATE snapshots SET leaves = '{\"x\": 1}' WHERE instance_id = ONE",
        "snapshots: ",
        'leaves: is {"x": 1}, should be ',
    ),
    "leaves of an instance": (
        "UPDATE instances SET leaves = '{\"x\": 1}' WHERE instance_id = ONE",
        "instances: ",
        'leaves: is {"x": 1}, should be ',
    ),
    "metrics of an instance": (
        "UPDATE instances SET metrics = '{\"x\": 1}' WHERE instance_id = ONE",
        "instances: ",
        'metrics: is {"x": 1}, should be ',
    ),
    "an older current snapshot": (
        "UPDATE instances SET snapshot_at = snapshot_at - interval '1 hour' WHERE instance_id = ONE",
        "instances: ",
        "snapshot_at: is ",
    ),
    "no current snapshot": (
        "UPDATE instances SET snapshot_at = NULL, metrics = '{}', leaves = NULL WHERE instance_id = ONE",
        "instances: ",
        "snapshot_at: is nothing, should be 20",
    ),
    "counted": (
        "UPDATE instances SET counted = NOT counted WHERE instance_id = ONE",
        "instances: ",
        "counted: is ",
    ),
    "elapsed_windows": (
        "UPDATE instances SET elapsed_windows = 3 WHERE instance_id = ONE",
        "instances: ",
        "elapsed_windows: is 3, should be 0",
    ),
    "reporting": (
        "UPDATE instances SET reporting = FALSE WHERE instance_id = ONE",
        "instances: ",
        "reporting: is false, should be true",
    ),
    "due later": (
        "UPDATE instances SET refresh_at = refresh_at + interval '1 day' WHERE instance_id = ONE",
        "instances: ",
        "refresh_at: is ",
    ),
    "never due": (
        "UPDATE instances SET refresh_at = NULL WHERE instance_id = ONE",
        "instances: ",
        "refresh_at: is nothing, should be ",
    ),
    "rank of a version": (
        "UPDATE instances SET version_rank = '0' WHERE instance_id = ONE",
        "instances: ",
        "version_rank: is 0, should be ",
    ),
    "tallies that are gone": (
        "DELETE FROM tallies WHERE metric_type = 'number'",
        "tallies: ",
        "number, sent: is 0 over 0, ",
    ),
    "a total": (
        "UPDATE tallies SET total = total + 0.5 WHERE (app_slug, key) = ('ledger', 'sent')",
        "tallies: ledger, number, sent: is ",
        ".5 over ",
    ),
    "a count of all sorts": (
        "UPDATE tallies SET instances = instances + 1000 WHERE app_slug = 'ledger'",
        "tallies: ledger, version, ",
        " over 10",
    ),
    "a counted part": (
        "UPDATE tallies SET counted_total = counted_total - 7, counted_instances = counted_instances + 1"
        " WHERE (app_slug, metric_type, key) = ('ledger', 'number', 'hit_rate')",
        "tallies: ledger, number, hit_rate: is ",
        ", counted ",
    ),
    "a tally of nothing": (
        "INSERT INTO tallies VALUES ('ghost', 'string', 'plan', E'a\\x1b]52;c', 0, 2, 0, 1)",
        "tallies: ghost, string, plan, a�]52;c: is 0 over 2, counted 0 over 1, should be 0 over 0, counted 0 over 0",
        "",
    ),
    "hours that are gone": ("DELETE FROM series_hours WHERE key = 'sent'", "series_hours: ", "number, sent, 20"),
    "an hour": (
        "UPDATE series_hours SET total = total + 1000 WHERE ctid = (SELECT max(ctid) FROM series_hours)",
        "series_hours: ",
        ":00:00+00: is ",
    ),
    "an hour too many": (
        "INSERT INTO series_hours VALUES ('ghost', 'version', '', '9.9', date_trunc('hour', now()), 0, 3)",
        "series_hours: ghost, version, 9.9, 20",
        ":00:00+00: is 0 over 3, should be 0 over 0",
    ),
    "days that are gone": ("DELETE FROM series_days WHERE key = 'sent'", "series_days: ", "number, sent, 20"),
    "a day": (
        "UPDATE series_days SET instances = instances + 1 WHERE ctid = (SELECT max(ctid) FROM series_days)",
        "series_days: ",
        " 00:00:00+00: is ",
    ),
    "a day too many": (
        "INSERT INTO series_days VALUES ('ledger', 'number', 'ghost', '', '2020-02-02 00:00Z', 2.50, 3)",
        "series_days: ledger, number, ghost, 2020-02-02 00:00:00+00: is 2.5 over 3, should be 0 over 0",
        "",
    ),
    "versions that are gone": (
        "DELETE FROM versions_seen WHERE instance_id = ONE",
        "versions_seen: ",
        ": is nothing, should be 20",
    ),
    "a version that came later": (
        "UPDATE versions_seen SET first_at = first_at + interval '1 second' WHERE instance_id = ONE",
        "versions_seen: ",
        ", should be 20",
    ),
    "a version that came earlier": (
        "UPDATE versions_seen SET first_at = first_at - interval '1 second' WHERE instance_id = ONE",
        "versions_seen: ",
        ", should be 20",
    ),
    "a version of another application": (
        "UPDATE versions_seen SET app_slug = 'ghost' WHERE instance_id = ONE",
        "versions_seen: ",
        ", ghost, should be 20",
    ),
    "a version that nobody reported": (
        "INSERT INTO versions_seen VALUES (ONE, '9.9', 'ledger', now())",
        "versions_seen: ",
        ", ledger, should be nothing",
    ),
    "an absence of nobody": (
        "INSERT INTO absences VALUES (gen_random_uuid(), now() - interval '1 day', now())",
        "absences: ",
        ", of no instance, should be none",
    ),
    "an absence that ends before it begins": (
        "INSERT INTO absences VALUES (ONE, now(), now() - interval '1 day')",
        "absences: ",
        "should be none",
    ),
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_what_is_wrong_is_named_and_mended(
    grown: tuple[ServerProcess, str], check: Callable[..., Checked], spoilt: str
) -> None:
    server, dsn = grown
    sql, part, words = SPOILT[spoilt]
    with admin_cursor(dsn) as cursor:
        cursor.execute(sql.replace("ONE", AN_INSTALL))
    found = check(dsn)
    assert found.status == 1
    assert any(line.startswith(part) and words in line for line in found.lines), found.lines
    mended = check(dsn, repair=True)
    assert mended.status == 0
    assert any(line.startswith(f"mended {part}") and words in line for line in mended.lines), mended.lines
    assert check(dsn) == Checked(0, [])
    for slug in ("ledger", "kiosk"):
        assert_matches_oracle(server, dsn, slug)


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


def test_of_many_differences_the_first_are_shown_and_all_are_mended(
    grown: tuple[ServerProcess, str], check: Callable[..., Checked]
) -> None:
    with admin_cursor(grown[1]) as cursor:
        cursor.execute("DELETE FROM series_days WHERE total <> 0 OR instances <> 0")  # a row of nothing says nothing
        gone = cursor.rowcount
    found = check(grown[1])
    assert found.status == 1
    assert len(found.lines) == MAX_SHOWN + 1
    assert found.lines[-1] == f"series_days: and {gone - MAX_SHOWN} more"
    assert check(grown[1], repair=True).status == 0
    assert check(grown[1]) == Checked(0, [])


def test_a_sweep_that_is_due_is_no_difference(grown: tuple[ServerProcess, str], check: Callable[..., Checked]) -> None:
    server, dsn = grown
    server.terminate()
    with admin_cursor(dsn) as cursor:
        cursor.execute("UPDATE instances SET refresh_at = '-infinity' WHERE snapshot_at IS NOT NULL")
    assert check(dsn) == Checked(0, [])
    server.start()
    assert check(dsn) == Checked(0, [])


def test_check_and_repair_work_under_load(server: ServerProcess, database: str, check: Callable[..., Checked]) -> None:
    """Under load a healthy database has no difference and a spoilt one is mended."""
    fleet(server.url, server.headers)
    load = Load([server.url], 6)
    with load.running():
        for _ in range(4):
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


def test_another_active_window_makes_the_series_anew(
    serve: Callable[..., ServerProcess], database: str, check: Callable[..., Checked]
) -> None:
    server = serve()
    fleet(server.url, server.headers)
    wait_until_rolled(database)
    server.terminate()
    for window in ("36h", "90m", "30d"):
        other = serve(SHM_ACTIVE_WINDOW=window)
        wait_until_rolled(database)
        wait_until_placed(database)
        assert check(database) == Checked(0, [])
        assert "Traceback" not in other.log
        other.terminate()


def wait_until_placed(dsn: str) -> None:
    """Until the sweeps have been over all instances."""
    deadline = time.monotonic() + LIMIT_S
    with admin_cursor(dsn) as cursor:
        while True:
            cursor.execute("SELECT FROM instances WHERE refresh_at <= now() LIMIT 1")
            if cursor.fetchone() is None:
                return
            assert time.monotonic() < deadline, "the sweeps are not over"
            time.sleep(0.05)


def test_charts_of_another_window_differ_until_recomputed(
    serve: Callable[..., ServerProcess], database: str, check: Callable[..., Checked]
) -> None:
    """Charts of another window are a difference until a server has made them anew."""
    server = serve()
    fleet(server.url, server.headers)
    wait_until_rolled(database)
    server.terminate()
    with admin_cursor(database) as cursor:
        cursor.execute(
            "UPDATE settings SET active_window = '2 days', activity_windows = '{1 day,2 days,7 days,30 days}'"
        )
        cursor.execute("UPDATE instances SET refresh_at = '-infinity'")
        cursor.execute("UPDATE series_head SET stale = TRUE")
    for repair in (False, True):
        found = check(database, repair=repair)
        assert found.status == 1
        assert found.lines == ["series_head: stale: is true, should be false"]
    serve(SHM_ACTIVE_WINDOW="2d")
    wait_until_rolled(database)
    assert check(database) == Checked(0, [])


@pytest.mark.parametrize("retention", ["110d", "60d"])  # hours from before the dropped weeks are there, or forgotten
def test_only_provable_figures_are_compared_after_drops(
    serve: Callable[..., ServerProcess], database: str, check: Callable[..., Checked], retention: str
) -> None:
    """Where raw snapshots were dropped what can be proven is and the rest stands."""
    server = serve(SHM_MAX_SNAPSHOT_AGE="120d", SHM_ACTIVE_WINDOW="5d", SHM_RETENTION="125d")
    now = datetime.now(UTC)
    by_chance = random.Random(secrets.randbits(32))
    installs = [Install(server.url).enroll({"sent": 1}, ago=timedelta(days=100)) for _ in range(12)]
    for one in installs * 12:
        one.snapshot(metrics(by_chance), now - timedelta(days=100 * by_chance.random()))
    act(installs[0], "erase")
    wait_until_rolled(database)
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
    wait_until_rolled(database)
    wait_until_placed(database)
    wait_until_hours_are_forgotten(database)
    assert check(database) == Checked(0, [])
    hold_days_to_hours(database)
    with admin_cursor(database) as cursor:
        cursor.execute("DELETE FROM series_hours WHERE at > now() - interval '20 days'")
        cursor.execute("DELETE FROM series_days WHERE at > now() - interval '20 days'")
    assert check(database, repair=True).status == 0
    hold_days_to_hours(database)
    with admin_cursor(database) as cursor:
        cursor.execute("SELECT sum(instances), sum(total) FROM series_days WHERE at < now() - interval '70 days'")
        assert cursor.fetchone() == old
    later.terminate()


def drop_all_before(cursor: psycopg2.extensions.cursor, age: str) -> None:
    """Makes a young database one that has been there for long: weeks, of which the oldest have had their time."""
    cursor.execute("SELECT date_trunc('week', now() - %s::interval, 'UTC')", (age,))
    (oldest,) = cursor.fetchone() or (None,)
    cursor.execute("ALTER TABLE snapshots DETACH PARTITION snapshots_first")
    cursor.execute("SELECT date_trunc('week', now(), 'UTC') + interval '14 days'")
    (end,) = cursor.fetchone() or (None,)
    cursor.execute("CREATE TABLE the_past PARTITION OF snapshots FOR VALUES FROM (%s) TO (%s)", (oldest, end))
    cursor.execute("INSERT INTO snapshots SELECT * FROM snapshots_first WHERE snapshot_at >= %s", (oldest,))
    cursor.execute("UPDATE series_head SET raw_since = %s", (oldest,))
    cursor.execute("DROP TABLE snapshots_first")


def wait_until_hours_are_forgotten(dsn: str) -> None:
    """Until the background has forgotten the oldest hours."""
    deadline = time.monotonic() + LIMIT_S
    with admin_cursor(dsn) as cursor:
        while True:
            cursor.execute("SELECT FROM series_hours h, series_head head WHERE h.at < head.hours_since LIMIT 1")
            if cursor.fetchone() is None:
                return
            assert time.monotonic() < deadline, "the oldest hours are still there"
            time.sleep(0.05)


def hold_days_to_hours(dsn: str) -> None:
    """From each closed day the hours lead to the next one, as charts need it."""
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
