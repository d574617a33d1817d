"""The sums by which `shm check` compares charts find each KPI of which a value differs, and no other."""

import random
import secrets
from datetime import UTC, datetime, timedelta

import psycopg2
import pytest

from shm.core.settings import Settings
from shm.db.advisory_locks import Lock
from shm.db.statements import statements
from tests.support import plain_http
from tests.support.background_jobs import wait_until_rolled_up
from tests.support.databases import admin_cursor
from tests.support.installs import Install
from tests.support.server_process import ServerProcess

pytestmark = pytest.mark.cluster

ACTIVE_WINDOW = Settings().active_window
ROUNDS = 40

KPI = ", ".join(f"repair_row ->> '{name}'" for name in ("app_slug", "metric_type", "key", "value"))
DIFFERENT_KPIS = f"SELECT DISTINCT {KPI} FROM ({statements()['check_charts.series'].sql}) each"  # noqa: S608

# Of a random row of {table}. Some leave its KPI's sum over all times as it is.
DAMAGES = (
    "UPDATE {table} SET total = total + 0.001 WHERE ctid = {row}",
    "UPDATE {table} SET instances = instances - 1000000000 WHERE ctid = {row}",
    "UPDATE {table} SET at = at + interval '0.5 s' WHERE ctid = {row}",
    "UPDATE {table} SET at = at + interval '1 year' WHERE ctid = {row}",
    "UPDATE {table} SET value = value || 'x' WHERE ctid = {row}",
    "DELETE FROM {table} WHERE ctid = {row}",
    """
    UPDATE {table} s SET total = s.total + n.sign, instances = s.instances - n.sign
    FROM (
        SELECT ctid, (-1) ^ row_number() OVER (ORDER BY at) AS sign FROM {table}
        WHERE (app_slug, metric_type, key, value) =
            (SELECT app_slug, metric_type, key, value FROM {table} WHERE ctid = {row})
        ORDER BY at LIMIT 2
    ) n
    WHERE s.ctid = n.ctid
    """,
    "INSERT INTO {table} SELECT 'ghost', metric_type, key, value, at, 1, 1 FROM {table} WHERE ctid = {row}",
    "INSERT INTO {table} SELECT app_slug, metric_type, 'zero', '', at, 0, 0 FROM {table} WHERE ctid = {row}",
)


def random_head(rng: random.Random) -> dict[str, datetime | str]:
    """A history of which raw snapshots, hours and days may have been deleted."""
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)

    def choose(latest: timedelta) -> datetime | str:
        return midnight - latest - timedelta(days=rng.randrange(20)) if rng.random() < 0.5 else "-infinity"

    return {
        "raw_since": choose(ACTIVE_WINDOW - timedelta(days=1)),
        "frozen_until": choose(timedelta(0)),
        "hours_since": choose(timedelta(0)),
    }


def damage(cursor: psycopg2.extensions.cursor, rng: random.Random) -> None:
    """Changes a random row of a random table of the charts."""
    table = rng.choice(["series_hours", "series_days"])
    cursor.execute(f"SELECT ctid FROM {table} ORDER BY app_slug, metric_type, key, value, at")  # noqa: S608
    rows = [ctid for (ctid,) in cursor.fetchall()]
    cursor.execute(rng.choice(DAMAGES).format(table=table, row=f"'{rng.choice(rows)}'::tid"))


def compare(cursor: psycopg2.extensions.cursor) -> tuple[int, list[tuple[str, ...]]]:
    """The number of KPIs whose sums differ, and the KPIs of which a value differs."""
    seeds = {name: secrets.randbits(63) for name in ("hour_seed", "day_seed")}
    parameters = {"active_window": ACTIVE_WINDOW, **seeds}
    cursor.execute(statements()["check_charts.count_suspects"].sql, parameters)
    ((suspects,),) = cursor.fetchall()
    cursor.execute(DIFFERENT_KPIS, parameters)
    return suspects, cursor.fetchall()


def report_history(server: ServerProcess, rng: random.Random) -> None:
    """Installs of two applications that reported in the last 29 days, one of them revoked."""
    now = datetime.now(UTC)
    installs = [Install(server.url, app_name=("Ledger", "Kiosk")[n % 2], app_version=f"1.{n}") for n in range(5)]
    for install in installs:
        install.enroll({"sent": 1})
        for _ in range(8):
            values = {"sent": rng.randrange(1000), "rate": rng.random(), "beta": rng.random() < 0.5}
            assert install.snapshot(values, now - timedelta(days=29) * rng.random()).status_code == 202
    address = f"{server.url}/api/v1/admin/instances/{installs[0].instance_id}/revoke"
    plain_http.post(address, headers=server.headers).raise_for_status()


def test_sums_find_the_kpis_of_which_a_value_differs(server: ServerProcess, database: str) -> None:
    """With up to two damages at random, and where old snapshots, hours or days were deleted."""
    seed = secrets.randbits(32)
    print(f"the seed is {seed}")
    rng = random.Random(seed)
    report_history(server, rng)
    wait_until_rolled_up(database)
    found = []
    with admin_cursor(database) as cursor:
        cursor.execute(statements()["check.set_plans"].sql)
        for number in range(ROUNDS):
            cursor.execute(f"BEGIN; SELECT pg_advisory_xact_lock({Lock.ROLLUP})")
            if number % 2:
                cursor.execute(
                    "UPDATE series_head SET raw_since = %(raw_since)s, frozen_until = %(frozen_until)s, "
                    "hours_since = %(hours_since)s",
                    random_head(rng),
                )
            for _ in range(rng.randrange(3) if number else 0):
                damage(cursor, rng)
            suspects, different = compare(cursor)
            assert suspects == len(different), (number, different)
            found.append(suspects)
            cursor.execute("ROLLBACK")
    assert found[0] == 0
    assert max(found) > 1


def test_errors_of_a_day_and_of_its_hours_do_not_cancel_each_other_out(server: ServerProcess, database: str) -> None:
    """An hour's weight is independent of the weight of the day that ends with it."""
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    start, end = midnight - timedelta(days=3), midnight - timedelta(days=2)
    with admin_cursor(database) as cursor:
        for _ in range(10):
            cursor.execute("BEGIN")
            cursor.execute("UPDATE series_head SET closed_until = %s", [midnight])
            cursor.execute(
                "INSERT INTO series_hours VALUES ('shop', 'number', 'n', '', %(start)s, 1, 1), "
                "('shop', 'number', 'n', '', %(end)s, -1, -1)",
                {"start": start, "end": end},
            )
            cursor.execute("INSERT INTO series_days VALUES ('shop', 'number', 'n', '', %s, -1, -1)", [start])
            assert compare(cursor) == (1, [("shop", "number", "n", "")])
            cursor.execute("ROLLBACK")
