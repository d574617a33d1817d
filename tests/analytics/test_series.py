"""Series: each value equals the KPI at that time, and the last value the current KPI."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from tests.support import plain_http
from tests.support.background_jobs import BackgroundJobs, run_background_jobs
from tests.support.databases import admin_cursor
from tests.support.installs import Install
from tests.support.oracle import assert_matches_oracle, assert_series_match_oracle
from tests.support.parameters import long_after
from tests.support.server_process import ServerProcess
from tests.support.signed_actions import act
from tests.support.time_travel import shift_times

pytestmark = pytest.mark.cluster

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
POINTS = {"24h": 25, "7d": 29, "30d": 31, "3m": 91, "1y": 54}
STEPS = {"24h": HOUR, "7d": 6 * HOUR, "30d": DAY, "3m": DAY, "1y": 7 * DAY}

INSERT_MONTH_SQL = """
    INSERT INTO snapshots (instance_id, snapshot_at, app_version, metrics, app_slug, cursor)
    SELECT %s, now() - minutes * interval '1 minute', '1', '{"n": 1}', 'ledger', (SELECT cursor FROM feed_head)
    FROM generate_series(1, 43000) minutes
"""


@pytest.fixture
def background(database: str) -> Iterator[BackgroundJobs]:
    """The background jobs, which the test runs itself. The fixture starts before the server and holds their lock."""
    with run_background_jobs(database) as jobs:
        yield jobs


@pytest.fixture
def server(background: BackgroundJobs, serve: Callable[..., ServerProcess]) -> ServerProcess:
    """A server without background jobs."""
    return serve()


def past_hour(hours_ago: int = 0) -> datetime:
    """The last full hour, or one before it."""
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - hours_ago * HOUR


def fetch_series(server: ServerProcess, query: str = "", app: str = "ledger") -> Any:
    """`GET metrics/{app}`."""
    return server.get(f"metrics/{app}?{query}").json()


def values_by_time(body: Any, key: str) -> dict[datetime, Any]:
    """The values of a number by timestamp."""
    return dict(zip(map(datetime.fromisoformat, body["timestamps"]), body["metrics"][key], strict=True))


def test_timestamps_are_the_ends_of_steps_and_finally_now(server: ServerProcess, background: BackgroundJobs) -> None:
    Install(server.url).enroll({"n": 1, "beta": True}, ago=3 * HOUR)
    background.run()
    for period, points in POINTS.items():
        body = fetch_series(server, f"period={period}")
        *ends, now = map(datetime.fromisoformat, body["timestamps"])
        assert len(ends) + 1 == points, period
        assert {later - earlier for earlier, later in pairwise(ends)} == {STEPS[period]}
        assert ends[-1] < now <= ends[-1] + STEPS[period]
        assert body["running_since"] == body["timestamps"][-2]
        assert datetime.now(UTC) - now < timedelta(minutes=1)
        for values in (body["metrics"]["n"], body["instances"]["n"], *body["flags"]["beta"].values()):
            assert len(values) == points, period
            assert (values[0], values[-1]) == (None, 1), period


def test_all_begins_with_the_first_snapshot_and_has_a_limit(
    server: ServerProcess, background: BackgroundJobs, database: str
) -> None:
    Install(server.url).enroll({"n": 1}, ago=29 * DAY)
    background.run()
    body = fetch_series(server, "period=all")
    assert body["metrics"]["n"] == [1] * len(body["timestamps"])
    assert len(body["timestamps"]) in (30, 31)
    shift_times(database, 700 * DAY)
    Install(server.url).enroll({"n": 5})
    background.run()
    body = fetch_series(server, "period=all")
    assert 100 < len(body["timestamps"]) <= 400
    assert (body["metrics"]["n"][0], body["metrics"]["n"][50], body["metrics"]["n"][-1]) == (1, None, 5)


def test_a_gap_is_null_and_a_zero_is_zero(server: ServerProcess, background: BackgroundJobs, database: str) -> None:
    install = Install(server.url).enroll({"n": 0, "beta": False})
    shift_times(database, 45 * DAY)
    install.snapshot({"n": 0, "beta": False}, datetime.now(UTC) - 5 * DAY)
    background.run()
    body = fetch_series(server, "period=3m")
    values = body["metrics"]["n"]
    assert set(values[:45]) == {None}
    assert set(values[46:75]) == {0}
    assert set(values[76:84]) == {None}
    assert set(values[-5:]) == {0}
    assert body["instances"]["n"] == body["flags"]["beta"]["instances"]
    assert body["flags"]["beta"]["true"] == values


@pytest.mark.parametrize("offset", long_after(1, [timedelta(microseconds=1), timedelta(), timedelta(microseconds=-1)]))
def test_a_snapshot_counts_from_its_hour_to_its_windows_end(
    server: ServerProcess, background: BackgroundJobs, database: str, offset: timedelta
) -> None:
    """It counts from the first full hour at or after it until the end of the active window."""
    at = past_hour(5)
    Install(server.url).enroll()  # so that the application exists at all times
    silent = Install(server.url)
    silent.register()
    assert silent.snapshot({"n": 1}, at + offset).status_code == 202
    background.run()
    first = at if offset <= timedelta() else at + HOUR
    values = values_by_time(fetch_series(server), "n")
    assert [timestamp for timestamp in values if values[timestamp] is not None] == [
        timestamp for timestamp in values if timestamp >= first
    ]
    shift_times(database, 30 * DAY)  # the active window
    background.run()
    values = values_by_time(fetch_series(server, "keys=n"), "n")
    assert [timestamp for timestamp in values if values[timestamp] is not None] == [
        timestamp for timestamp in values if timestamp < first
    ]


def test_within_an_hour_only_the_newest_snapshot_counts(server: ServerProcess, background: BackgroundJobs) -> None:
    at = past_hour(3)
    install = Install(server.url).enroll({"n": 0})
    for minutes, number in ((50, 3), (10, 1), (30, 2)):
        install.snapshot({"n": number}, at + timedelta(minutes=minutes))
        background.run()
    values = values_by_time(fetch_series(server), "n")
    assert (values[at], values[at + HOUR]) == (None, 3)


def test_a_late_snapshot_corrects_closed_days(server: ServerProcess, background: BackgroundJobs, database: str) -> None:
    install = Install(server.url).enroll({"n": 1}, ago=10 * DAY)
    install.snapshot({"n": 2}, datetime.now(UTC) - 5 * DAY)
    shift_times(database, 3 * DAY)
    background.run()
    assert set(fetch_series(server, "period=30d&keys=n")["metrics"]["n"]) == {None, 1, 2}
    install.snapshot({"m": 7}, datetime.now(UTC) - 10 * DAY)
    install.snapshot({"n": 9}, datetime.now(UTC) - 20 * DAY)
    background.run()
    assert_series_match_oracle(server, database, "ledger")
    assert set(fetch_series(server, "period=30d&keys=n")["metrics"]["n"]) == {None, 1, 2, 9}


@pytest.mark.parametrize("is_rolled_up_before", [True, pytest.param(False, marks=pytest.mark.long)])
def test_series_after_revocation_erasure_and_a_move(
    server: ServerProcess, background: BackgroundJobs, database: str, is_rolled_up_before: bool
) -> None:
    """A revoked install stays in the past, an erased one is in no series, and a moved one is in both applications."""
    last_snapshot_at = datetime.now(UTC) - 3 * HOUR
    installs = {}
    for app in ("revoked", "erased", "moved"):
        Install(server.url, app_name=app).enroll({"n": 1}, ago=6 * DAY)
        installs[app] = Install(server.url, app_name=app).enroll({"n": 10, "mine": 1}, ago=5 * DAY)
        installs[app].snapshot({"n": 20}, last_snapshot_at)
    if is_rolled_up_before:
        background.run()
    url = f"{server.url}/api/v1/admin/instances/{installs['revoked'].instance_id}/revoke"
    plain_http.post(url, headers=server.headers).raise_for_status()
    assert act(installs["erased"], "erase").status_code == 200
    installs["moved"].register(app_name="Kiosk")
    installs["moved"].snapshot({"n": 30}, datetime.now(UTC))
    last_day = (
        {21} if last_snapshot_at.date() < datetime.now(UTC).date() else set()
    )  # a midnight at which this value was current
    shift_times(database, 1 * DAY)
    assert_matches_oracle(server, database)
    background.run()
    assert_matches_oracle(server, database)
    assert_series_match_oracle(server, database, periods=("24h", "30d", "all"))
    for app in installs:
        values = fetch_series(server, "period=30d&keys=n,mine", app)["metrics"]
        assert set(values["n"]) == ({None, 1} if app == "erased" else {None, 1, 11} | last_day)
        assert ("mine" in values) == (app != "erased")
    assert set(fetch_series(server, "period=30d", "kiosk")["metrics"]["n"]) == {None, 30}


def test_an_install_moves_in_charts_with_its_activation_alone(
    server: ServerProcess, database: str, background: BackgroundJobs
) -> None:
    """It belongs to the new application at once, before its next snapshot."""
    Install(server.url, app_name="Stays").enroll({"n": 1})
    moved = Install(server.url, app_name="Stays").enroll({"n": 10})
    background.run()
    moved.register(app_name="Kiosk")
    assert moved.activate().status_code == 200
    for app, value in (("stays", 1), ("kiosk", 10)):
        (kpi,) = server.get(f"applications/{app}/kpis").json()["kpis"]
        assert kpi["value"] == value
    background.run()
    for app, value in (("stays", 1), ("kiosk", 10)):
        assert fetch_series(server, "period=24h", app)["metrics"]["n"][-1] == value
    assert_matches_oracle(server, database)


def test_keys_select_metrics_and_unknown_keys_are_omitted(server: ServerProcess, background: BackgroundJobs) -> None:
    Install(server.url).enroll({"a": 1, "b": 2, "mail": {"sent": 3}, "beta": True, "plan": "free"})
    background.run()
    body = fetch_series(server, "keys=a,mail.sent,beta,plan,unknown,a")
    assert (body["metrics"].keys(), body["flags"].keys()) == ({"a", "mail.sent"}, {"beta"})
    assert fetch_series(server)["metrics"].keys() == {"a", "b", "mail.sent"}


def test_a_hidden_metric_is_in_no_series_even_if_requested(server: ServerProcess) -> None:
    Install(server.url).enroll({"a": 1, "b": 2, "beta": True})
    body = {"overrides": {"a": {"hidden": True}, "beta": {"hidden": True}}}
    url = f"{server.url}/api/v1/admin/applications/ledger"
    plain_http.put(url, headers=server.headers, json=body).raise_for_status()
    for query in ("", "keys=a,b,beta"):
        body = fetch_series(server, query)
        assert (body["metrics"].keys(), body["flags"].keys()) == ({"b"}, set())


def test_an_application_is_also_found_by_its_name(server: ServerProcess) -> None:
    Install(server.url, app_name="Ledger & Söhne").enroll({"a": 1})
    by_name, by_slug = (fetch_series(server, app=app) for app in ("Ledger%20%26%20S%C3%B6hne", "ledger-sohne"))
    assert by_name["app"] == by_slug["app"] == "ledger-sohne"
    assert by_name["metrics"] == by_slug["metrics"]


@pytest.mark.long
def test_a_long_history_is_rolled_up_as_fast_as_a_short_one(
    server: ServerProcess, background: BackgroundJobs, database: str
) -> None:
    """The time to roll up a snapshot does not depend on the number of the install's snapshots."""
    install = Install(server.url).enroll({"n": 1})
    with admin_cursor(database) as cursor:  # one a minute for a month, as a client may send them
        cursor.execute(INSERT_MONTH_SQL, [install.instance_id])
    background.run("roll up")
    install.snapshot({"n": 2}, datetime.now(UTC) - 29.9 * DAY)
    install.snapshot({"n": 3})
    background.run("roll up")  # within the statement timeout
    assert fetch_series(server)["metrics"]["n"][-1] == 3


def test_an_unseen_approved_install_is_active_once_seen(server: ServerProcess, database: str) -> None:
    """An install that was approved before it was seen is active, and its application exists, once it is seen."""
    install = Install(server.url)
    install.register()
    url = f"{server.url}/api/v1/admin/instances/{install.instance_id}/approve"
    plain_http.post(url, headers=server.headers).raise_for_status()
    stats = server.get("stats").json()
    assert (stats["active_instances"], stats["daily_active"], stats["new_this_week"]) == (0, 0, 0)
    assert install.snapshot({"n": 1}).status_code == 202
    stats = server.get("stats").json()
    assert (stats["active_instances"], stats["daily_active"], stats["new_this_week"]) == (1, 1, 1)
    assert_matches_oracle(server, database, "ledger")


def test_two_servers_that_write_at_once_keep_all_values_exact(
    serve: Callable[..., ServerProcess], background: BackgroundJobs, database: str
) -> None:
    servers = [serve(), serve()]
    now = datetime.now(UTC)
    installs = [Install(servers[0].url).enroll({"n": -1}, ago=DAY) for _ in range(6)]

    def send(number: int) -> None:
        install = replace(installs[number % 6], url=servers[number % 2].url)
        metrics = {"n": number, "beta": number % 3 == 0, "plan": f"plan{number % 4}", "sys_ephemeral": number % 5 == 0}
        at = now - timedelta(minutes=(number * 37) % 600)
        assert install.snapshot(metrics, at).status_code == 202
        if number % 10 == 0:
            replace(install, environment="ci" if number % 20 else "production").register()
        if number % 25 == 0:
            activations.submit(install.activate)

    with ThreadPoolExecutor(8) as senders, ThreadPoolExecutor(2) as activations:
        list(senders.map(send, range(100)))
    for server in servers:
        assert_matches_oracle(server, database)
    background.run()
    for server in servers:
        assert_series_match_oracle(server, database, periods=["24h", "all"])
    assert background.differences() == {}
