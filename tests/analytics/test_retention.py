"""What goes on in the background: weeks come and go, series and KPIs stay, and the intake never waits for any of it."""

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
from shm.db.advisory_locks import Lock
from shm.db.database import Database
from tests.support.clusters import wait_for
from tests.support.databases import admin_cursor, fresh_database, recreate
from tests.support.installs import Install
from tests.support.long_history import fill_with_history
from tests.support.server_process import ServerProcess
from tests.support.shm_command import run_shm

DAY = timedelta(days=1)
WINDOW = timedelta(days=30)
LATEST = timedelta(days=29, hours=23)  # just within SHM_MAX_SNAPSHOT_AGE
LONG_AGO = {"SHM_MAX_SNAPSHOT_AGE": "300d", "SHM_RETENTION": "400d"}  # a server that takes in a past
SHORT = {"SHM_RETENTION": "60d"}  # as short as the defaults allow
WEEKS = (
    "SELECT c.relname FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid WHERE inhparent = 'snapshots'::regclass"
)
ROLLED_UP = "SELECT s.cursor = f.cursor AND NOT s.stale FROM series_head s, feed_head f"
KEEPER = """
    SELECT pid FROM pg_locks
    WHERE
        locktype = 'advisory' AND classid = 0 AND objid = %s AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""

# All weeks since one, in place of the table that a new database begins with.
OLD_WEEKS = """
    DROP TABLE snapshots_first;
    DO $$
    DECLARE week timestamptz;
    BEGIN
        FOR week IN SELECT generate_series(
            date_trunc('week', now() - %s, 'UTC'), date_trunc('week', now(), 'UTC') + %s, interval '7 days'
        )
        LOOP
            EXECUTE format(
                'CREATE TABLE %%I PARTITION OF snapshots FOR VALUES FROM (%%L) TO (%%L)',
                'snapshots_' || to_char(week AT TIME ZONE 'UTC', 'IYYY"w"IW'), week, week + interval '7 days'
            );
        END LOOP;
    END $$;
"""

# What a key read at a moment, from nothing but the raw snapshots.
TRUTH = """
    SELECT sum((metrics ->> %(key)s)::numeric), count(*)
    FROM (
        SELECT DISTINCT ON (instance_id) instance_id, metrics FROM snapshots
        WHERE snapshot_at <= %(at)s AND snapshot_at > %(at)s::timestamptz - %(window)s
        ORDER BY instance_id, snapshot_at DESC
    ) newest
    WHERE metrics ? %(key)s
"""


def ask(database: str, sql: str, *parameters: object) -> list[Any]:
    """The first column of all rows."""
    with admin_cursor(database) as cursor:
        cursor.execute(sql, parameters or None)
        return [row[0] for row in cursor.fetchall()]


def change(database: str, sql: str, *parameters: object) -> None:
    """Changes something behind the server's back."""
    with admin_cursor(database) as cursor:
        cursor.execute("SET timezone = 'UTC'")
        cursor.execute(sql, parameters or None)


def rolled_up(database: str) -> None:
    """Waits until all snapshots are in the series."""
    wait_for(lambda: ask(database, ROLLED_UP) == [True], "everything rolled up")


def chart(server: ServerProcess, period: str, key: str = "orders") -> dict[str, tuple[Decimal, int]]:
    """What a key read, by moment, all but now; only where something was known."""
    text = server.get(f"metrics/ledger?period={period}&keys={key}").content
    said = json.loads(text, parse_float=Decimal, parse_int=Decimal)
    values = zip(said["timestamps"][:-1], said["metrics"][key], said["instances"][key], strict=False)
    return {at: (value, instances) for at, value, instances in values if value is not None}


def truth(database: str, at: list[str], window: timedelta, key: str = "orders") -> dict[str, tuple[Decimal, int]]:
    """The same from the raw snapshots."""
    found: dict[str, tuple[Decimal, int]] = {}
    with admin_cursor(database) as cursor:
        for moment in at:
            cursor.execute(TRUTH, {"key": key, "at": moment, "window": window})
            total, instances = cursor.fetchone() or (None, 0)
            if instances:
                found[moment] = (total, instances)
    return found


def kpis(server: ServerProcess) -> Any:
    """All but the moments that they are of."""
    said = server.get("applications/ledger/kpis").json()
    del said["as_of"], said["spread_as_of"]
    return said


def timestamps(server: ServerProcess, period: str) -> list[str]:
    """The moments of a chart but now."""
    said: list[str] = server.get(f"metrics/ledger?period={period}&keys=orders").json()["timestamps"]
    return said[:-1]


def reported_long_ago(server: ServerProcess, database: str) -> list[Install]:
    """Six installs whose snapshots go back 200 days, in weeks of their own, rolled up."""
    now = datetime.now(UTC)
    installs = [Install(server.url).enroll({"orders": 1}, ago=200 * DAY) for _ in range(6)]
    for number, install in enumerate(installs):
        for days in (150, 120, 95, 70, 64, 40, 20, 3, 0):
            at = now - timedelta(days=days, hours=number, minutes=7)
            assert install.snapshot({"orders": days + number, "beta": days > 50}, at).status_code == 202
    change(database, "UPDATE applications SET created_at = now() - interval '200 days'")
    rolled_up(database)
    assert chart(server, "all") == truth(database, timestamps(server, "all"), WINDOW)
    return installs


@pytest.fixture(scope="module")
def past(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[Install]]]:
    """A database with its installs, as a server left it."""
    with fresh_database(postgres) as dsn:
        change(dsn, OLD_WEEKS, timedelta(days=210), timedelta(days=7))
        server = ServerProcess(tmp_path_factory.mktemp("past") / "data", {"SHM_DB_DSN": dsn, **LONG_AGO})
        server.start()
        try:
            installs = reported_long_ago(server, dsn)
        finally:
            server.terminate()
        yield dsn, installs


@pytest.fixture
def installs(past: tuple[str, list[Install]], postgres: str, database: str) -> list[Install]:
    """The installs of `past`, whose database is copied in place of the test's; no server runs on it."""
    dsn, installs = past
    recreate(postgres, database, dsn)
    return [replace(install) for install in installs]


def keeper(database: str) -> list[int]:
    """The backends that hold the background's lock: one at most."""
    found = ask(database, KEEPER, Lock.BACKGROUND)
    assert len(found) <= 1
    return found


def test_weeks_are_made_four_weeks_ahead_without_a_gap(serve: Callable[..., ServerProcess], database: str) -> None:
    change(database, OLD_WEEKS, timedelta(days=100), timedelta(days=-70))  # nobody was here for ten weeks
    serve()
    for days in range(-100, 29):
        change(
            database,
            "BEGIN; INSERT INTO snapshots (instance_id, snapshot_at, metrics, app_slug, app_version, cursor)"
            " VALUES (gen_random_uuid(), now() + %s, '{}', 'a', '1', 1); ROLLBACK",
            timedelta(days=days),
        )
    assert len(ask(database, WEEKS)) <= 20
    indexes = "SELECT count(*) FROM pg_indexes WHERE tablename = ANY(%s) GROUP BY tablename"
    assert set(ask(database, indexes, ask(database, WEEKS))) == {2}


def test_servers_that_start_at_once_make_each_week_once(serve: Callable[..., ServerProcess], database: str) -> None:
    change(database, OLD_WEEKS, timedelta(days=100), timedelta(days=-70))
    with ThreadPoolExecutor(2) as pool:
        servers = list(pool.map(lambda _: serve(), range(2)))
    for server in servers:
        assert Install(server.url).enroll({"orders": 1})
        assert "Traceback" not in server.log


async def test_making_weeks_waits_for_nobody_who_reads_or_writes(database: str) -> None:
    change(database, OLD_WEEKS, timedelta(days=10), timedelta(days=0))
    settings = Settings()
    with closing(psycopg2.connect(database)) as reader, reader.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM snapshots; LOCK TABLE snapshots IN ROW EXCLUSIVE MODE")
        async with Database.connect(settings, database, size=1) as own:
            await partitions.create_missing(own, settings)
    assert len(ask(database, WEEKS)) >= 5


def test_weeks_older_than_their_retention_go_and_charts_and_kpis_stay(
    installs: list[Install], serve: Callable[..., ServerProcess], database: str
) -> None:
    server = serve(**LONG_AGO)
    before = {period: chart(server, period) for period in ("24h", "7d", "30d", "3m", "1y", "all")}
    cards, weeks = kpis(server), set(ask(database, WEEKS))
    server.terminate()
    server = serve(**SHORT)
    wait_for(
        lambda: ask(database, "SELECT min(snapshot_at) > now() - interval '69 days' FROM snapshots") == [True],
        "the end of old weeks",
    )
    assert len(weeks - set(ask(database, WEEKS))) > 15
    assert ask(database, "SELECT count(*) FROM snapshots WHERE snapshot_at > now() - interval '60 days'") == [24]
    for period, readings in before.items():
        after = chart(server, period)
        assert readings, period
        shared = readings.keys() & set(timestamps(server, period))
        assert len(shared) > len(readings) * 0.9
        assert {at: after.get(at) for at in shared} == {at: readings[at] for at in shared}
    assert kpis(server) == cards
    wait_for(
        lambda: ask(database, "SELECT count(*) FROM series_hours WHERE at < now() - interval '60 days'") == [0],
        "the end of old hours",
    )
    assert chart(server, "7d").items() >= {at: before["7d"][at] for at in timestamps(server, "7d")[1:-1]}.items()


def test_late_snapshots_correct_the_past_after_dropped_weeks(
    installs: list[Install], serve: Callable[..., ServerProcess], database: str
) -> None:
    """After weeks have gone late snapshots still come in and mend the past."""
    server = serve(**SHORT)
    wait_for(
        lambda: ask(database, "SELECT min(snapshot_at) > now() - interval '69 days' FROM snapshots") == [True],
        "the end of old weeks",
    )
    for number, install in enumerate(installs):
        install.url = server.url
        late = datetime.now(UTC) - LATEST
        assert install.snapshot({"orders": 1_000 + number}, late).status_code == 202
        assert install.snapshot({"orders": 5}, late - 2 * DAY).status_code == 400
    rolled_up(database)
    assert chart(server, "30d") == truth(database, timestamps(server, "30d"), WINDOW)


def test_older_snapshots_than_any_week_are_taken_once_they_may_come(
    installs: list[Install], serve: Callable[..., ServerProcess], database: str
) -> None:
    server = serve(**SHORT)
    wait_for(
        lambda: ask(database, "SELECT min(snapshot_at) > now() - interval '69 days' FROM snapshots") == [True],
        "the end of old weeks",
    )
    before = chart(server, "1y")
    server.terminate()
    server = serve(**LONG_AGO)
    for install in installs:
        install.url = server.url
        assert install.snapshot({"orders": 77}, datetime.now(UTC) - 180 * DAY).status_code == 202
    rolled_up(database)
    after = chart(server, "1y")
    assert {at: after.get(at) for at in before} == before  # where what came before is gone, it stays as it was


def test_a_retention_that_is_too_short_stops_the_start(tmp_path: Path) -> None:
    """A retention that could not mend the past stops the start with a sentence."""
    done = run_shm("serve", "--data-dir", str(tmp_path / "data"), SHM_RETENTION="59d")
    assert done.returncode == 1
    assert "SHM_RETENTION is shorter than SHM_MAX_SNAPSHOT_AGE plus SHM_ACTIVE_WINDOW" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


def test_another_server_takes_over_the_background_jobs(serve: Callable[..., ServerProcess], database: str) -> None:
    """One of two servers sees to the background and when it is killed the other goes on."""
    first = serve()
    wait_for(lambda: keeper(database) != [], "who sees to the background")
    (holder,) = keeper(database)
    second = serve()
    Install(second.url).enroll({"orders": 1})
    rolled_up(database)
    assert keeper(database) == [holder]
    first.kill()
    install = Install(second.url).enroll({"orders": 2})
    rolled_up(database)
    assert keeper(database) not in ([holder], [])
    first.start()
    assert install.snapshot({"orders": 3}).status_code == 202
    rolled_up(database)
    assert len(keeper(database)) == 1


def test_whoever_loses_the_lock_s_connection_goes_on_with_another(
    serve: Callable[..., ServerProcess], database: str
) -> None:
    server = serve()
    for number in range(2):
        wait_for(lambda: keeper(database) != [], "who sees to the background")
        (holder,) = keeper(database)
        change(database, "SELECT pg_terminate_backend(%s)", holder)
        Install(server.url).enroll({"orders": number})
        wait_for(lambda: holder not in keeper(database) != [], "the lock, held again")  # noqa: B023
        rolled_up(database)
    assert "Traceback" not in server.log


@contextmanager
def a_pending_one_of_long_ago(server: ServerProcess, database: str) -> Iterator[Callable[[], bool]]:
    """Whether the purge, which comes after other duties, has been."""
    install = Install(server.url)
    assert install.register().status_code == 201
    change(
        database,
        "UPDATE instances SET registered_at = now() - interval '3 days' WHERE instance_id = %s",
        install.instance_id,
    )
    yield lambda: ask(database, "SELECT count(*) FROM instances WHERE instance_id = %s", install.instance_id) == [0]


def test_a_duty_that_is_too_slow_does_not_keep_the_others_from_theirs(
    serve: Callable[..., ServerProcess], database: str
) -> None:
    server = serve(SHM_STATEMENT_TIMEOUT="1s")
    with admin_cursor(database) as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [Lock.ROLLUP])  # no step of the rollup comes to its end
        with a_pending_one_of_long_ago(server, database) as purged:
            Install(server.url).enroll({"orders": 1})
            wait_for(lambda: "could not roll up" in server.log, "a word about the rollup")
            wait_for(purged, "the purge")
        cursor.execute("SELECT pg_advisory_unlock(%s)", [Lock.ROLLUP])
    rolled_up(database)
    assert "Traceback" not in server.log


def test_a_week_in_use_is_dropped_later_and_blocks_nothing(
    installs: list[Install], serve: Callable[..., ServerProcess], database: str
) -> None:
    """A week that somebody reads is dropped later and nothing else waits for it."""
    with closing(psycopg2.connect(database)) as reader, reader.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM snapshots")
        server = serve(**SHORT)
        with a_pending_one_of_long_ago(server, database) as purged:
            wait_for(lambda: "could not drop weeks" in server.log, "a word about the weeks")
            wait_for(purged, "the purge")
        installs[0].url = server.url
        assert installs[0].snapshot({"orders": 1}).status_code == 202
    wait_for(
        lambda: ask(database, "SELECT min(snapshot_at) > now() - interval '69 days' FROM snapshots") == [True],
        "the end of old weeks",
    )
    assert "Traceback" not in server.log


def test_the_intake_acknowledges_everything_while_much_is_rolled_up(
    serve: Callable[..., ServerProcess], database: str
) -> None:
    fill_with_history(database, 50, 300)
    server = serve()
    senders = [Install(server.url).enroll({"orders": 0}) for _ in range(8)]
    assert ask(database, ROLLED_UP) == [False]

    def send(install: Install) -> list[int]:
        now = datetime.now(UTC)
        return [install.snapshot({"orders": n}, now - timedelta(minutes=n)).status_code for n in range(25)]

    with ThreadPoolExecutor(len(senders)) as pool:
        answers = [status for statuses in pool.map(send, senders) for status in statuses]
    assert answers == [202] * 200
    rolled_up(database)
    for period in ("7d", "3m"):
        assert chart(server, period) == truth(database, timestamps(server, period), WINDOW)


def test_a_server_stops_cleanly_during_a_rollup(serve: Callable[..., ServerProcess], database: str) -> None:
    """A server that ends while it rolls up ends in order and the next one goes on."""
    fill_with_history(database, 50, 300)
    server = serve()
    cursor = 0
    for kill in (False, True, False):
        wait_for(lambda: ask(database, "SELECT cursor FROM series_head")[0] > cursor, "a step of the rollup")  # noqa: B023
        if kill:
            server.kill()
        else:
            assert server.terminate() == 0
        (cursor,) = ask(database, "SELECT cursor FROM series_head")
        server.start()
    rolled_up(database)
    assert "Traceback" not in server.log
    assert chart(server, "3m") == truth(database, timestamps(server, "3m"), WINDOW)


@pytest.mark.parametrize("days", [7, 60])
def test_another_active_window_recomputes_the_series(
    installs: list[Install], serve: Callable[..., ServerProcess], database: str, days: int
) -> None:
    """Another active window makes the series anew but for days whose snapshots are gone."""
    server = serve(**LONG_AGO)
    before = chart(server, "1y")
    window = timedelta(days=days)
    server.terminate()
    server = serve(**LONG_AGO, SHM_ACTIVE_WINDOW=f"{days}d")
    rolled_up(database)
    after = chart(server, "1y")
    assert after != before
    for period in ("7d", "3m", "1y"):
        assert chart(server, period) == truth(database, timestamps(server, period), window)
    server.terminate()
    retained = {"SHM_RETENTION": "100d"}
    server = serve(**retained, SHM_ACTIVE_WINDOW=f"{days}d")
    wait_for(
        lambda: ask(database, "SELECT min(snapshot_at) > now() - interval '109 days' FROM snapshots") == [True],
        "the end of old weeks",
    )
    server.terminate()
    server = serve(**retained)
    rolled_up(database)
    last = chart(server, "1y")
    for at, reading in truth(database, timestamps(server, "1y"), WINDOW).items():
        if datetime.fromisoformat(at) > datetime.now(UTC) - timedelta(days=69):
            assert last[at] == reading
    for at, reading in after.items():
        if datetime.fromisoformat(at) < datetime.now(UTC) - timedelta(days=110):
            assert last[at] == reading


def test_hours_that_a_chart_needs_stay_however_short_the_retention_is(
    serve: Callable[..., ServerProcess], database: str
) -> None:
    brief = {"SHM_MAX_SNAPSHOT_AGE": "1d", "SHM_ACTIVE_WINDOW": "1d"}
    server = serve(SHM_MAX_SNAPSHOT_AGE="20d", SHM_ACTIVE_WINDOW="1d")
    install = Install(server.url).enroll({"orders": 1}, ago=8 * DAY)
    for days in range(1, 7):
        assert install.snapshot({"orders": days}, datetime.now(UTC) - days * DAY).status_code == 202
    rolled_up(database)
    before = chart(server, "7d")
    server.terminate()
    change(
        database, "INSERT INTO series_hours VALUES ('ledger', 'number', 'old', '', now() - interval '20 days', 1, 1)"
    )
    server = serve(**brief, SHM_RETENTION="2d")
    wait_for(
        lambda: ask(database, "SELECT count(*) FROM series_hours WHERE key = 'old'") == [0], "the end of old hours"
    )
    after = chart(server, "7d")
    assert {at: after[at] for at in timestamps(server, "7d") if at in before} == {
        at: before[at] for at in timestamps(server, "7d") if at in before
    }


def test_spreads_that_nobody_asks_for_are_forgotten(serve: Callable[..., ServerProcess], database: str) -> None:
    for key, ago in (("old", timedelta(days=2)), ("new", timedelta(hours=1))):
        change(database, "INSERT INTO distributions VALUES ('ledger', FALSE, %s, 1, 1, 1, 1, 1, now() - %s)", key, ago)
    serve()
    wait_for(lambda: ask(database, "SELECT key FROM distributions") == ["new"], "the end of the old one")
