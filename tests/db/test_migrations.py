"""A database of the previous release goes on with this one: nothing is lost, and every figure is what it was."""

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg2
import pytest
from nacl.signing import SigningKey

from shm.cli.migrate import run as run_migrate
from shm.db.migrations import load_migrations
from tests.support import plain_http, previous_release
from tests.support.databases import admin_cursor, migrate
from tests.support.houses import wait_for
from tests.support.installs import Install
from tests.support.previous_release import OldInstall, flat
from tests.support.server_process import ServerProcess
from tests.support.subscriber import subscribed

HEAD = 300  # of the feed, lower than there are snapshots: it has to jump
WINDOW = timedelta(days=30)
APPS = ("ledger", "kiosk")
UNCOUNTED = {"dev", "development", "test", "testing", "ci", "local"}
PERIODS = ("24h", "7d", "30d", "3m", "1y", "all")
MEAN = "sys_cpu_cores"  # the only key of these whose aggregate is no sum

RAW = """
    SELECT instance_id::text, snapshot_at, received_at, app_version, sequence, metrics::text
    FROM snapshots ORDER BY instance_id, snapshot_at
"""
WHO = """
    SELECT instance_id::text, public_key::text, status, app_slug, app_name, app_version, environment, deployment_mode,
        os_arch, registered_at, first_seen_at, last_seen_at, snapshot_at, metrics::text, staged::text, left_slug, cursor
    FROM instances ORDER BY instance_id
"""
OTHERS = """
    SELECT cursor, instance_id::text, app_slug, removed_at::text FROM removals
    UNION ALL
    SELECT 0, encode(token_hash, 'hex'), role, created_at::text FROM tokens WHERE name <> 'admin.token'
    UNION ALL
    SELECT stars, slug, name, created_at::text FROM applications
    ORDER BY 1, 2
"""
ROLLED_UP = "SELECT s.cursor = f.cursor FROM series_head s, feed_head f"
PLACED = "SELECT count(*) = 0 FROM instances WHERE due_at <= now()"


@dataclass(frozen=True)
class Held:
    """All that is in a database by itself, and not computed."""

    snapshots: list[tuple[Any, ...]]
    instances: list[tuple[Any, ...]]
    others: list[tuple[Any, ...]]


def held(dsn: str) -> Held:
    """Reads it."""
    with admin_cursor(dsn) as cursor:
        return Held(*(rows(cursor, sql) for sql in (RAW, WHO, OTHERS)))


def rows(cursor: psycopg2.extensions.cursor, sql: str) -> list[tuple[Any, ...]]:
    """All rows."""
    cursor.execute(sql)
    return cursor.fetchall()


def hold_nothing_lost(before: Held, after: Held) -> None:
    """Not a row and not a word; but a snapshot that told no version has its install's now, and departures are rows."""
    versions = {row[0]: row[5] for row in before.instances}
    assert after.snapshots == [
        (*row[:3], row[3] if row[3] is not None else versions[row[0]], *row[4:]) for row in before.snapshots
    ]
    assert after.instances == before.instances
    departures = {(row[0], row[15]) for row in before.instances if row[15] is not None}
    told = [row for row in after.others if row[1:3] in departures and row not in before.others]
    assert {row[1:3] for row in told} == departures
    assert [row for row in after.others if row not in told] == before.others


@dataclass
class Reading:
    """What a metric reads over some snapshots."""

    total: Decimal = Decimal()
    instances: int = 0


def truth(installs: list[OldInstall], app: str, at: datetime) -> tuple[dict[str, Reading], dict[str, Reading]]:
    """Numbers and booleans at a moment, from the snapshots alone; a revoked install ended when it was last seen."""
    numbers: dict[str, Reading] = {}
    flags: dict[str, Reading] = {}
    for install in installs:
        known = [each for each in install.snapshots if at - WINDOW < each[0] <= at]
        ended = install.status == "revoked" and at >= max(each[1] for each in install.snapshots) if known else False
        if install.app.lower() != app or not known or ended:
            continue
        for key, value in flat(max(known, key=lambda each: each[0])[3]).items():
            if isinstance(value, str):
                continue
            reading = (flags if isinstance(value, bool) else numbers).setdefault(key, Reading())
            reading.total += Decimal(repr(value)) if not isinstance(value, bool) else int(value)
            reading.instances += 1
    return numbers, flags


def asked(server: ServerProcess, path: str) -> Any:
    """GET as an admin of the previous release, numbers with all their digits."""
    headers = {"Authorization": f"Bearer {previous_release.TOKEN}"}
    response = plain_http.get(f"{server.url}/api/v1/admin/{path}", headers=headers, timeout=60).raise_for_status()
    return json.loads(response.text, parse_float=Decimal, parse_int=Decimal)


def hold_value(key: str, value: Decimal | None, reading: Reading | None) -> None:
    """A value is the sum of a reading, or its mean."""
    if reading is None:
        assert value is None, key
    elif key == MEAN:
        assert value is not None, key
        assert abs(value * reading.instances - reading.total) < Decimal("1e-12"), key
    else:
        assert value == reading.total, key


def hold_kpis(server: ServerProcess, installs: list[OldInstall]) -> None:
    """Cards, counts and badges of now."""
    now = datetime.now(UTC)
    for app in APPS:
        mine = [install for install in installs if install.app.lower() == app]
        numbers, flags = truth(installs, app, now)
        kpis = asked(server, f"applications/{app}/kpis")
        assert {kpi["key"]: kpi["instances"] for kpi in kpis["kpis"]} == {
            key: reading.instances for key, reading in numbers.items()
        }
        for kpi in kpis["kpis"]:
            hold_value(kpi["key"], kpi["value"], numbers[kpi["key"]])
        assert {flag["key"]: (flag["true"], flag["instances"]) for flag in kpis["flags"]} == {
            key: (reading.total, reading.instances) for key, reading in flags.items()
        }
        said = Counter(
            flat(current[3])["locale"]
            for each in mine
            if each.status != "revoked" and (current := newest(each)) is not None and current[0] > now - WINDOW
        )
        (locales,) = [each for each in kpis["categories"] if each["key"] == "locale"]
        assert {each["value"]: each["instances"] for each in locales["values"]} == dict(said)
        assert kpis["instances"] == counts(mine, now)


def newest(install: OldInstall) -> tuple[datetime, datetime, str | None, dict[str, Any]] | None:
    """The current snapshot."""
    return max(install.snapshots, key=lambda snapshot: snapshot[0], default=None)


def counts(installs: list[OldInstall], now: datetime) -> dict[str, int]:
    """Instances by their state."""
    found = Counter(install.status for install in installs)
    active = [
        install
        for install in installs
        if install.status == "active" and install.first_seen_at is not None
        if max([install.first_seen_at, *(each[1] for each in install.snapshots)]) > now - WINDOW
    ]
    counted = [
        install
        for install in active
        if install.environment.lower() not in UNCOUNTED
        if (current := newest(install)) is None or current[3].get("sys_ephemeral") is not True
    ]
    return {
        "total": len(installs),
        "active": len(active),
        "pending": found["pending"],
        "revoked": found["revoked"],
        "counted": len(counted),
        "excluded": len(active) - len(counted),
    }


def hold_series(server: ServerProcess, installs: list[OldInstall]) -> None:
    """Every value of every chart but the last, which is now."""
    keys = sorted({key for each in installs for one in each.snapshots for key in flat(one[3])})
    for app in APPS:
        for period in PERIODS:
            chart = asked(server, f"metrics/{app}?period={period}&keys={','.join(keys)}")
            for place, at in enumerate(map(datetime.fromisoformat, chart["timestamps"][:-1])):
                numbers, flags = truth(installs, app, at)
                for key, values in chart["metrics"].items():
                    hold_value(key, values[place], numbers.get(key))
                for key, flag in chart["flags"].items():
                    reading = flags.get(key)
                    assert flag["true"][place] == (None if reading is None else reading.total), (key, at)
                assert set(numbers) <= set(chart["metrics"]), at


def caught_up(dsn: str) -> Callable[[], bool]:
    """Whether the background has placed every instance and rolled up every snapshot."""

    def look() -> bool:
        with admin_cursor(dsn) as cursor:
            return rows(cursor, ROLLED_UP) == rows(cursor, PLACED) == [(True,)]

    return look


@pytest.fixture
def old(database: str) -> list[OldInstall]:
    """The test's database as the previous release left it."""
    return previous_release.make(database, HEAD)


def test_the_figures_of_the_previous_release_s_database_are_what_its_snapshots_make_them(
    old: list[OldInstall], serve: Callable[..., ServerProcess], database: str
) -> None:
    before = held(database)
    server = serve()
    hold_kpis(server, old)
    wait_for(caught_up(database), "everything placed and rolled up")
    hold_kpis(server, old)
    hold_series(server, old)
    hold_nothing_lost(before, held(database))


def test_migrating_by_hand_does_the_same_and_twice_is_harmless(
    old: list[OldInstall], serve: Callable[..., ServerProcess], database: str
) -> None:
    before = held(database)
    migrate(database)
    hold_nothing_lost(before, held(database))
    with admin_cursor(database) as cursor:
        done = rows(cursor, "SELECT version, applied_at FROM schema_migrations ORDER BY version")
    assert [version for version, _ in done] == list(load_migrations())
    assert run_migrate(argparse.Namespace(dsn=database, data_dir=None)) == 0
    hold_nothing_lost(before, held(database))
    hold_kpis(serve(), old)
    with admin_cursor(database) as cursor:
        assert rows(cursor, "SELECT version, applied_at FROM schema_migrations ORDER BY version") == done


def test_lists_of_the_previous_release_s_instances_are_complete(
    old: list[OldInstall], serve: Callable[..., ServerProcess]
) -> None:
    server = serve()
    items: dict[str, Any] = {}
    path: str | None = f"{server.url}/api/v1/admin/instances?limit=7"
    while path:
        page = plain_http.get(path, headers=server.headers).raise_for_status()
        items |= {item["instance_id"]: item for item in page.json()}
        following = page.links.get("next", {}).get("url")
        path = None if following is None else f"{server.url}{following}"
    assert items.keys() == {install.instance_id for install in old}
    for install in old:
        item = items[install.instance_id]
        current = newest(install)
        assert (item["status"], item["app_slug"], item["environment"]) == (
            install.status,
            install.app.lower(),
            install.environment,
        )
        assert item["metrics"] == ({} if current is None else current[3])
        assert item["app_version"] == install.app_version
    stats = server.get("stats").json()
    assert stats["total_instances"] == len(old)
    assert stats["per_app_counts"] == dict(Counter(install.app for install in old).most_common())


@pytest.mark.parametrize("head", [HEAD, 1_000_000])
async def test_a_subscriber_of_the_previous_release_goes_on_where_it_was(
    serve: Callable[..., ServerProcess], database: str, head: int
) -> None:
    old = previous_release.make(database, head)
    server = serve()
    with admin_cursor(database) as cursor:
        ((now,),) = rows(cursor, "SELECT cursor FROM feed_head")
    assert now >= head
    one = next(install for install in old if install.status == "active" and install.staged is None)
    key = SigningKey.generate()
    with admin_cursor(database) as cursor:
        cursor.execute(
            "UPDATE instances SET public_key = %s WHERE instance_id = %s",
            [psycopg2.Binary(bytes(key.verify_key)), one.instance_id],
        )
    async with (
        subscribed(server, f"?since={head}") as subscriber,
        subscribed(server, f"?since={previous_release.HORIZON - 1}") as too_old,
        subscribed(server, f"?since={previous_release.HORIZON}") as from_far,
    ):
        assert (await subscriber.message()) == {"type": "hello", "cursor": head, "heartbeat_s": 15}
        assert [(await too_old.message())["type"] for _ in range(2)] == ["hello", "resync"]
        install = Install(server.url, one.app, instance_id=one.instance_id, key=key)
        assert install.snapshot({"orders": 5}).status_code == 202
        told = await subscriber.until("instance")
        assert told["instance"]["metrics"] == {"orders": 5}
        assert told["cursor"] > now
        await from_far.until("instance", told["cursor"])
        expected = {each.instance_id for each in old}
        assert from_far.instances.keys() == expected
        assert from_far.cursors == sorted(set(from_far.cursors))


def test_what_installs_of_the_previous_release_send_is_stored_and_counts(
    old: list[OldInstall], serve: Callable[..., ServerProcess], database: str
) -> None:
    server = serve()
    one = next(
        each for each in old if each.status == "active" and each.app == "Ledger" and not each.staged and each.snapshots
    )
    key = SigningKey.generate()
    with admin_cursor(database) as cursor:
        cursor.execute(
            "UPDATE instances SET public_key = %s WHERE instance_id = %s",
            [psycopg2.Binary(bytes(key.verify_key)), one.instance_id],
        )
    install = Install(server.url, one.app, instance_id=one.instance_id, key=key)
    again = one.snapshots[-2]
    assert again[0] < datetime.now(UTC)
    sent: list[tuple[datetime, dict[str, Any]]] = [
        (datetime.now(UTC) - timedelta(days=20, minutes=3), {"orders": 1, "new": {"key": 2}}),
        (datetime.now(UTC) - timedelta(hours=5), {"orders": 2}),
        (datetime.now(UTC), {"orders": 3, "beta": True, "locale": "fr"}),
    ]
    for at, metrics in sent:
        assert install.snapshot(metrics, at).status_code == 202
        one.snapshots.append((at, datetime.now(UTC), None, metrics))
    if again[0] > datetime.now(UTC) - WINDOW:
        assert install.snapshot({"orders": -1}, again[0]).status_code == 202  # the first one stays
    Install(server.url, "Newcomer").arrived({"orders": 1})
    wait_for(caught_up(database), "everything placed and rolled up")
    hold_series(server, old)
    numbers, _ = truth(old, "ledger", datetime.now(UTC))
    (orders,) = [each for each in asked(server, "applications/ledger/kpis")["kpis"] if each["key"] == "orders"]
    hold_value("orders", orders["value"], numbers["orders"])


def test_two_servers_that_start_at_once_migrate_once_and_both_serve(
    old: list[OldInstall], serve: Callable[..., ServerProcess], database: str
) -> None:
    before = held(database)
    with ThreadPoolExecutor(2) as pool:
        servers = list(pool.map(lambda _: serve(), range(2)))
    for server in servers:
        hold_kpis(server, old)
        assert "Traceback" not in server.log
    assert sum(server.log.count("applying migration 0005") for server in servers) == 1
    wait_for(caught_up(database), "everything placed and rolled up")
    for server in servers:
        hold_series(server, old)
    after = held(database)
    assert (after.snapshots, after.instances) != ([], [])
    hold_nothing_lost(before, after)


def test_snapshots_from_a_clock_far_ahead_do_not_stop_the_migration(
    old: list[OldInstall], serve: Callable[..., ServerProcess], database: str
) -> None:
    """SHM_MAX_CLOCK_SKEW may have been large."""
    with admin_cursor(database) as cursor:
        cursor.execute(
            "INSERT INTO snapshots (instance_id, snapshot_at, metrics) VALUES (%s, now() + interval '40 days', '{}')",
            [old[3].instance_id],
        )
    before = held(database)
    server = serve()
    hold_nothing_lost(before, held(database))
    assert Install(server.url).arrived({"orders": 1})


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_a_large_database_of_the_previous_release_is_rolled_up_whole(
    serve: Callable[..., ServerProcess], database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    installs, each = 400, 500
    previous_release.make_large(database, installs, each)
    began = time.monotonic()
    migrate(database)
    migrated = time.monotonic()
    server = serve()
    done = caught_up(database)
    while not done():
        assert time.monotonic() - migrated < 1_500
        time.sleep(0.2)
    with capsys.disabled():
        print(
            f"\n{installs * each:,} snapshots: migrated in {migrated - began:.1f} s,"
            f" rolled up in {time.monotonic() - migrated:.1f} s"
        )
    chart = asked(server, "metrics/ledger?period=30d&keys=mail.sent")
    with admin_cursor(database) as cursor:
        for place, at in enumerate(chart["timestamps"][:-1]):
            cursor.execute(
                "SELECT sum((metrics -> 'mail' ->> 'sent')::numeric) FROM ("
                " SELECT DISTINCT ON (instance_id) metrics FROM snapshots"
                " WHERE snapshot_at <= %s AND snapshot_at > %s::timestamptz - interval '30 days'"
                " ORDER BY instance_id, snapshot_at DESC) newest",
                [at, at],
            )
            assert cursor.fetchone() == (chart["metrics"]["mail.sent"][place],)
