"""Retention: partitions are created and dropped, series and KPIs remain, and the intake never waits."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from shm.core.settings import Settings
from shm.db import partitions
from shm.db.database import Database
from tests.support.background_jobs import expired_pending_install, wait_until_rolled_up
from tests.support.clusters import wait_for
from tests.support.databases import admin_cursor, execute, fresh_database, recreate, select_column, waiting_statements
from tests.support.installs import Install
from tests.support.long_history import fill_with_history
from tests.support.module_server import running_server
from tests.support.old_partitions import CREATE_OLD_PARTITIONS_SQL
from tests.support.server_process import ServerProcess
from tests.support.shm_command import run_shm

pytestmark = pytest.mark.cluster

DAY = timedelta(days=1)
WINDOW = timedelta(days=30)
MAX_LATENESS = timedelta(days=29, hours=23)  # just within SHM_MAX_SNAPSHOT_AGE
LONG_RETENTION = {"SHM_MAX_SNAPSHOT_AGE": "300d", "SHM_RETENTION": "400d"}  # a server that accepts old snapshots
MIN_RETENTION = timedelta(days=60)  # with the default SHM_MAX_SNAPSHOT_AGE and SHM_ACTIVE_WINDOW
SHORT_RETENTION = {"SHM_RETENTION": "60d"}
DROP_DELAY = timedelta(days=9)  # a week is dropped as a whole, a day late
DROP_TIMEOUT_S = 180  # a drop that has to wait for a lock is tried again after half a minute
PARTITIONS_SQL = (
    "SELECT c.relname FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid WHERE inhparent = 'snapshots'::regclass"
)

# The value of a key at a time, computed from the raw snapshots only.
EXPECTED_SQL = """
    SELECT sum((metrics ->> %(key)s)::numeric), count(*)
    FROM (
        SELECT DISTINCT ON (instance_id) instance_id, metrics FROM snapshots
        WHERE snapshot_at <= %(at)s AND snapshot_at > %(at)s::timestamptz - %(window)s
        ORDER BY instance_id, snapshot_at DESC
    ) newest
    WHERE metrics ? %(key)s
"""


def fetch_chart(server: ServerProcess, period: str, key: str = "orders") -> dict[str, tuple[Decimal, int]]:
    """The samples of a key by timestamp, without the current one and without nulls."""
    text = server.get(f"metrics/ledger?period={period}&keys={key}").content
    body = json.loads(text, parse_float=Decimal, parse_int=Decimal)
    values = zip(body["timestamps"][:-1], body["metrics"][key], body["instances"][key], strict=False)
    return {at: (value, instances) for at, value, instances in values if value is not None}


def expected_chart(
    database: str, at: list[str], window: timedelta, key: str = "orders"
) -> dict[str, tuple[Decimal, int]]:
    """The same from the raw snapshots."""
    result: dict[str, tuple[Decimal, int]] = {}
    with admin_cursor(database) as cursor:
        for timestamp in at:
            cursor.execute(EXPECTED_SQL, {"key": key, "at": timestamp, "window": window})
            total, instances = cursor.fetchone() or (None, 0)
            if instances:
                result[timestamp] = (total, instances)
    return result


def fetch_kpis(server: ServerProcess) -> Any:
    """The KPIs without their times."""
    body = server.get("applications/ledger/kpis").json()
    del body["as_of"], body["spread_as_of"]
    return body


def chart_timestamps(server: ServerProcess, period: str) -> list[str]:
    """The timestamps of a chart without the current one."""
    body: list[str] = server.get(f"metrics/ledger?period={period}&keys=orders").json()["timestamps"]
    return body[:-1]


def report_history(server: ServerProcess, database: str) -> list[Install]:
    """Six installs with snapshots over 200 days, in weekly partitions, rolled up."""
    now = datetime.now(UTC)
    installs = [Install(server.url).enroll({"orders": 1}, ago=200 * DAY) for _ in range(6)]
    for number, install in enumerate(installs):
        for days in (150, 120, 95, 70, 64, 40, 20, 3, 0):
            at = now - timedelta(days=days, hours=number, minutes=7)
            assert install.snapshot({"orders": days + number, "beta": days > 50}, at).status_code == 202
    execute(database, "UPDATE applications SET created_at = now() - interval '200 days'")
    wait_until_rolled_up(database)
    assert fetch_chart(server, "all") == expected_chart(database, chart_timestamps(server, "all"), WINDOW)
    return installs


def wait_until_dropped(database: str, retention: timedelta) -> None:
    """Waits until the weeks past `retention` are dropped. Only the catalog is read, which blocks no drop."""
    until = retention + DROP_DELAY
    expired = f"{PARTITIONS_SQL} AND relname <= 'snapshots_' || to_char(now() - %s, 'IYYY\"w\"IW')"
    wait_for(lambda: select_column(database, expired, until) == [], "the drop of old partitions", DROP_TIMEOUT_S)
    assert select_column(database, "SELECT min(snapshot_at) > now() - %s FROM snapshots", until) == [True]


@pytest.fixture(scope="module")
def past_database(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[Install]]]:
    """A database with its installs; its server has stopped."""
    with fresh_database(postgres) as dsn:
        execute(dsn, CREATE_OLD_PARTITIONS_SQL, timedelta(days=210), timedelta(days=7))
        with running_server(tmp_path_factory.mktemp("past"), dsn, **LONG_RETENTION) as server:
            installs = report_history(server, dsn)
        yield dsn, installs


@pytest.fixture
def installs(past_database: tuple[str, list[Install]], postgres: str, database: str) -> list[Install]:
    """The installs of `past_database`, whose database is copied in place of the test's; no server runs on it."""
    dsn, installs = past_database
    recreate(postgres, database, dsn)
    return [replace(install) for install in installs]


def test_partitions_are_created_four_weeks_ahead_without_a_gap(
    serve: Callable[..., ServerProcess], database: str
) -> None:
    execute(
        database, CREATE_OLD_PARTITIONS_SQL, timedelta(days=100), timedelta(days=-70)
    )  # no server ran for ten weeks
    serve()
    with admin_cursor(database) as cursor:
        for days in range(-100, 29):
            cursor.execute(
                "BEGIN; INSERT INTO snapshots (instance_id, snapshot_at, metrics, app_slug, app_version, cursor)"
                " VALUES (gen_random_uuid(), now() + %s, '{}', 'a', '1', 1); ROLLBACK",
                [timedelta(days=days)],
            )
    assert len(select_column(database, PARTITIONS_SQL)) <= 20
    indexes = "SELECT count(*) FROM pg_indexes WHERE tablename = ANY(%s) GROUP BY tablename"
    assert set(select_column(database, indexes, select_column(database, PARTITIONS_SQL))) == {2}


def test_no_week_has_statistics_of_whole_objects(serve: Callable[..., ServerProcess], database: str) -> None:
    """They would take nine tenths of the time of an ANALYZE."""
    serve()
    weeks = select_column(database, PARTITIONS_SQL)
    analyzed = (
        "SELECT DISTINCT attrelid::regclass::text FROM pg_attribute"
        " WHERE attrelid = ANY(%s::regclass[]) AND attname IN ('metrics', 'leaves')"
        " AND attstattarget IS DISTINCT FROM 0"
    )
    assert len(weeks) > 1
    assert select_column(database, analyzed, weeks) == []


def test_servers_that_start_together_create_each_partition_once(
    serve: Callable[..., ServerProcess], database: str
) -> None:
    execute(database, CREATE_OLD_PARTITIONS_SQL, timedelta(days=100), timedelta(days=-70))
    with ThreadPoolExecutor(2) as pool:
        servers = list(pool.map(lambda _: serve(), range(2)))
    for server in servers:
        assert Install(server.url).enroll({"orders": 1})
        assert "Traceback" not in server.log


async def test_creating_partitions_does_not_wait_for_readers_or_writers(database: str) -> None:
    execute(database, CREATE_OLD_PARTITIONS_SQL, timedelta(days=10), timedelta(days=0))
    settings = Settings()
    with closing(psycopg2.connect(database)) as reader, reader.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM snapshots; LOCK TABLE snapshots IN ROW EXCLUSIVE MODE")
        async with Database.connect(settings, database, size=1) as own:
            await partitions.create_missing(own, settings)
    assert len(select_column(database, PARTITIONS_SQL)) >= 5


def test_charts_and_kpis_survive_the_drop_of_old_partitions(
    installs: list[Install], serve: Callable[..., ServerProcess], database: str
) -> None:
    server = serve(**LONG_RETENTION)
    before = {period: fetch_chart(server, period) for period in ("24h", "7d", "30d", "3m", "1y", "all")}
    kpis_before, partitions_before = fetch_kpis(server), set(select_column(database, PARTITIONS_SQL))
    server.terminate()
    server = serve(**SHORT_RETENTION)
    wait_until_dropped(database, MIN_RETENTION)
    assert len(partitions_before - set(select_column(database, PARTITIONS_SQL))) > 15
    assert select_column(database, "SELECT count(*) FROM snapshots WHERE snapshot_at > now() - interval '60 days'") == [
        24
    ]
    for period, samples in before.items():
        after = fetch_chart(server, period)
        assert samples, period
        shared = samples.keys() & set(chart_timestamps(server, period))
        assert len(shared) > len(samples) * 0.9
        assert {at: after.get(at) for at in shared} == {at: samples[at] for at in shared}
    assert fetch_kpis(server) == kpis_before
    wait_for(
        lambda: (
            select_column(database, "SELECT count(*) FROM series_hours WHERE at < now() - interval '60 days'") == [0]
        ),
        "the deletion of old hours",
    )
    assert (
        fetch_chart(server, "7d").items()
        >= {at: before["7d"][at] for at in chart_timestamps(server, "7d")[1:-1]}.items()
    )


def test_late_snapshots_correct_the_series_after_a_drop(
    installs: list[Install], serve: Callable[..., ServerProcess], database: str
) -> None:
    server = serve(**SHORT_RETENTION)
    wait_until_dropped(database, MIN_RETENTION)
    for number, install in enumerate(installs):
        install.url = server.url
        late_at = datetime.now(UTC) - MAX_LATENESS
        assert install.snapshot({"orders": 1_000 + number}, late_at).status_code == 202
        assert install.snapshot({"orders": 5}, late_at - 2 * DAY).status_code == 400
    wait_until_rolled_up(database)
    assert fetch_chart(server, "30d") == expected_chart(database, chart_timestamps(server, "30d"), WINDOW)


def test_snapshots_older_than_any_partition_are_stored(
    installs: list[Install], serve: Callable[..., ServerProcess], database: str
) -> None:
    server = serve(**SHORT_RETENTION)
    wait_until_dropped(database, MIN_RETENTION)
    before = fetch_chart(server, "1y")
    server.terminate()
    server = serve(**LONG_RETENTION)
    for install in installs:
        install.url = server.url
        assert install.snapshot({"orders": 77}, datetime.now(UTC) - 180 * DAY).status_code == 202
    wait_until_rolled_up(database)
    after = fetch_chart(server, "1y")
    assert {at: after.get(at) for at in before} == before  # values whose older snapshots are dropped stay unchanged


def test_a_too_short_retention_prevents_the_start(tmp_path: Path) -> None:
    """Late snapshots could not correct the series then. The error is one sentence."""
    result = run_shm("serve", "--data-dir", str(tmp_path / "data"), SHM_RETENTION="59d")
    assert result.returncode == 1
    assert "SHM_RETENTION is shorter than SHM_MAX_SNAPSHOT_AGE plus SHM_ACTIVE_WINDOW" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.long
def test_a_partition_in_use_is_dropped_later_and_blocks_nothing(
    installs: list[Install], serve: Callable[..., ServerProcess], database: str
) -> None:
    """A partition that is being read is dropped later."""
    with closing(psycopg2.connect(database)) as reader, reader.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM snapshots")
        server = serve(**SHORT_RETENTION)
        with expired_pending_install(server, database) as purged:
            wait_for(lambda: "could not drop expired partitions" in server.log, "a log line about the partitions")
            wait_for(purged, "the purge")
        installs[0].url = server.url
        assert installs[0].snapshot({"orders": 1}).status_code == 202
    wait_until_dropped(database, MIN_RETENTION)
    assert "Traceback" not in server.log


@contextmanager
def blocked_rollup(database: str) -> Iterator[None]:
    """No step of the rollup can end within the context."""
    with admin_cursor(database) as cursor:
        cursor.execute("BEGIN; SELECT FROM series_head FOR UPDATE")
        yield


def test_the_intake_acknowledges_everything_during_a_long_rollup(
    serve: Callable[..., ServerProcess], database: str
) -> None:
    fill_with_history(database, 30, 150)
    with blocked_rollup(database):
        server = serve()
        senders = [Install(server.url).enroll({"orders": 0}) for _ in range(8)]

    def send(install: Install) -> list[int]:
        now = datetime.now(UTC)
        return [install.snapshot({"orders": n}, now - timedelta(minutes=n)).status_code for n in range(25)]

    with ThreadPoolExecutor(len(senders)) as pool:
        statuses = [status for statuses in pool.map(send, senders) for status in statuses]
    assert statuses == [202] * 200
    wait_until_rolled_up(database)
    for period in ("7d", "3m"):
        assert fetch_chart(server, period) == expected_chart(database, chart_timestamps(server, period), WINDOW)


@pytest.mark.long
def test_a_server_stops_cleanly_during_a_rollup(serve: Callable[..., ServerProcess], database: str) -> None:
    """The next server continues the rollup."""
    fill_with_history(database, 30, 150)
    with blocked_rollup(database):
        server = serve()
        wait_for(lambda: bool(waiting_statements(database)), "a step of the rollup")
        assert server.terminate() == 0
        server.start()
        wait_for(lambda: bool(waiting_statements(database)), "a step of the rollup")
        server.kill()
    server.start()
    wait_for(lambda: select_column(database, "SELECT cursor > 0 FROM series_head") == [True], "the end of a step")
    assert server.terminate() == 0
    server.start()
    wait_until_rolled_up(database)
    assert "Traceback" not in server.log
    assert fetch_chart(server, "3m") == expected_chart(database, chart_timestamps(server, "3m"), WINDOW)


@pytest.mark.long
@pytest.mark.parametrize("days", [7, 60])
def test_another_active_window_recomputes_the_series(
    installs: list[Install], serve: Callable[..., ServerProcess], database: str, days: int
) -> None:
    """Days whose snapshots are dropped stay unchanged."""
    server = serve(**LONG_RETENTION)
    before = fetch_chart(server, "1y")
    window = timedelta(days=days)
    server.terminate()
    server = serve(**LONG_RETENTION, SHM_ACTIVE_WINDOW=f"{days}d")
    wait_until_rolled_up(database)
    after = fetch_chart(server, "1y")
    assert after != before
    for period in ("7d", "3m", "1y"):
        assert fetch_chart(server, period) == expected_chart(database, chart_timestamps(server, period), window)
    server.terminate()
    retention_settings = {"SHM_RETENTION": "100d"}
    server = serve(**retention_settings, SHM_ACTIVE_WINDOW=f"{days}d")
    wait_until_dropped(database, timedelta(days=100))
    server.terminate()
    server = serve(**retention_settings)
    wait_until_rolled_up(database)
    final_chart = fetch_chart(server, "1y")
    for at, sample in expected_chart(database, chart_timestamps(server, "1y"), WINDOW).items():
        if datetime.fromisoformat(at) > datetime.now(UTC) - timedelta(days=69):
            assert final_chart[at] == sample
    for at, sample in after.items():
        if datetime.fromisoformat(at) < datetime.now(UTC) - timedelta(days=110):
            assert final_chart[at] == sample


def test_hours_that_charts_need_are_kept_with_a_short_retention(
    serve: Callable[..., ServerProcess], database: str
) -> None:
    short_settings = {"SHM_MAX_SNAPSHOT_AGE": "1d", "SHM_ACTIVE_WINDOW": "1d"}
    server = serve(SHM_MAX_SNAPSHOT_AGE="20d", SHM_ACTIVE_WINDOW="1d")
    install = Install(server.url).enroll({"orders": 1}, ago=8 * DAY)
    for days in range(1, 7):
        assert install.snapshot({"orders": days}, datetime.now(UTC) - days * DAY).status_code == 202
    wait_until_rolled_up(database)
    before = fetch_chart(server, "7d")
    server.terminate()
    execute(
        database, "INSERT INTO series_hours VALUES ('ledger', 'number', 'old', '', now() - interval '20 days', 1, 1)"
    )
    server = serve(**short_settings, SHM_RETENTION="2d")
    wait_for(
        lambda: select_column(database, "SELECT count(*) FROM series_hours WHERE key = 'old'") == [0],
        "the deletion of old hours",
    )
    after = fetch_chart(server, "7d")
    assert {at: after[at] for at in chart_timestamps(server, "7d") if at in before} == {
        at: before[at] for at in chart_timestamps(server, "7d") if at in before
    }
