"""Series: at each moment what the KPIs would have read then, and at last what they read now."""

import json
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
from tests.support.server_process import ServerProcess
from tests.support.time_travel import shift_times

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
POINTS = {"24h": 25, "7d": 29, "30d": 31, "3m": 91, "1y": 54}
STEPS = {"24h": HOUR, "7d": 6 * HOUR, "30d": DAY, "3m": DAY, "1y": 7 * DAY}

MONTH = """
    INSERT INTO snapshots (instance_id, snapshot_at, app_version, metrics, app_slug, cursor)
    SELECT %s, now() - minutes * interval '1 minute', '1', '{"n": 1}', 'ledger', (SELECT cursor FROM feed_head)
    FROM generate_series(1, 43000) minutes
"""


@pytest.fixture
def behind(database: str) -> Iterator[BackgroundJobs]:
    """The background, which is the test's to do; asked for before the server."""
    with run_background_jobs(database) as mine:
        yield mine


@pytest.fixture
def server(behind: BackgroundJobs, serve: Callable[..., ServerProcess]) -> ServerProcess:
    """A server that rolls nothing up by itself."""
    return serve()


def full_hour(back: int = 0) -> datetime:
    """The last one that is over, or so many before it."""
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - back * HOUR


def series(server: ServerProcess, query: str = "", app: str = "ledger") -> Any:
    """`GET metrics/{app}`."""
    return server.get(f"metrics/{app}?{query}").json()


def by_moment(said: Any, key: str) -> dict[datetime, Any]:
    """A number's values."""
    return dict(zip(map(datetime.fromisoformat, said["timestamps"]), said["metrics"][key], strict=True))


def test_a_period_has_its_moments_at_ends_of_its_steps_and_at_last_now(
    server: ServerProcess, behind: BackgroundJobs
) -> None:
    Install(server.url).enroll({"n": 1, "beta": True}, ago=3 * HOUR)
    behind.run()
    for period, points in POINTS.items():
        said = series(server, f"period={period}")
        *ends, now = map(datetime.fromisoformat, said["timestamps"])
        assert len(ends) + 1 == points, period
        assert {later - earlier for earlier, later in pairwise(ends)} == {STEPS[period]}
        assert ends[-1] < now <= ends[-1] + STEPS[period]
        assert said["running_since"] == said["timestamps"][-2]
        assert datetime.now(UTC) - now < timedelta(minutes=1)
        for values in (said["metrics"]["n"], said["instances"]["n"], *said["flags"]["beta"].values()):
            assert len(values) == points, period
            assert (values[0], values[-1]) == (None, 1), period


def test_all_begins_with_the_first_snapshot_and_has_at_most_400_moments(
    server: ServerProcess, behind: BackgroundJobs, database: str
) -> None:
    Install(server.url).enroll({"n": 1}, ago=29 * DAY)
    behind.run()
    said = series(server, "period=all")
    assert said["metrics"]["n"] == [1] * len(said["timestamps"])
    assert len(said["timestamps"]) in (30, 31)
    shift_times(database, 700 * DAY)
    Install(server.url).enroll({"n": 5})
    behind.run()
    said = series(server, "period=all")
    assert 100 < len(said["timestamps"]) <= 400
    assert (said["metrics"]["n"][0], said["metrics"]["n"][50], said["metrics"]["n"][-1]) == (1, None, 5)


def test_a_gap_is_null_and_a_zero_is_zero(server: ServerProcess, behind: BackgroundJobs, database: str) -> None:
    install = Install(server.url).enroll({"n": 0, "beta": False})
    shift_times(database, 45 * DAY)
    install.snapshot({"n": 0, "beta": False}, datetime.now(UTC) - 5 * DAY)
    behind.run()
    said = series(server, "period=3m")
    values = said["metrics"]["n"]
    assert set(values[:45]) == {None}
    assert set(values[46:75]) == {0}
    assert set(values[76:84]) == {None}
    assert set(values[-5:]) == {0}
    assert said["instances"]["n"] == said["flags"]["beta"]["instances"]
    assert said["flags"]["beta"]["true"] == values


@pytest.mark.parametrize("late", [timedelta(microseconds=-1), timedelta(), timedelta(microseconds=1)])
def test_a_snapshot_counts_from_its_hour_to_its_windows_end(
    server: ServerProcess, behind: BackgroundJobs, database: str, late: timedelta
) -> None:
    """A snapshot counts from the full hour that it is not after until its window is over."""
    at = full_hour(5)
    Install(server.url).enroll()  # the application goes on
    silent = Install(server.url)
    silent.register()
    assert silent.snapshot({"n": 1}, at + late).status_code == 202
    behind.run()
    first = at if late <= timedelta() else at + HOUR
    values = by_moment(series(server), "n")
    assert [moment for moment in values if values[moment] is not None] == [each for each in values if each >= first]
    shift_times(database, 30 * DAY)  # the window; so it ends as it began
    behind.run()
    values = by_moment(series(server, "keys=n"), "n")
    assert [moment for moment in values if values[moment] is not None] == [each for each in values if each < first]


def test_within_an_hour_only_the_newest_snapshot_counts(server: ServerProcess, behind: BackgroundJobs) -> None:
    at = full_hour(3)
    install = Install(server.url).enroll({"n": 0})
    for minutes, number in ((50, 3), (10, 1), (30, 2)):
        install.snapshot({"n": number}, at + timedelta(minutes=minutes))
        behind.run()
    values = by_moment(series(server), "n")
    assert (values[at], values[at + HOUR]) == (None, 3)


def test_a_late_snapshot_mends_days_that_are_closed(
    server: ServerProcess, behind: BackgroundJobs, database: str
) -> None:
    install = Install(server.url).enroll({"n": 1}, ago=10 * DAY)
    install.snapshot({"n": 2}, datetime.now(UTC) - 5 * DAY)
    shift_times(database, 3 * DAY)
    behind.run()
    assert set(series(server, "period=30d&keys=n")["metrics"]["n"]) == {None, 1, 2}
    install.snapshot({"m": 7}, datetime.now(UTC) - 10 * DAY)
    install.snapshot({"n": 9}, datetime.now(UTC) - 20 * DAY)
    behind.run()
    assert_series_match_oracle(server, database, "ledger")
    assert set(series(server, "period=30d&keys=n")["metrics"]["n"]) == {None, 1, 2, 9}


@pytest.mark.parametrize("rolled_up_before", [True, False])
@pytest.mark.parametrize("end", ["revoked", "erased", "moved"])
def test_series_after_revocation_erasure_and_a_move(
    server: ServerProcess, behind: BackgroundJobs, database: str, end: str, rolled_up_before: bool
) -> None:
    """Whoever is revoked stays in the past whoever is erased is in none and whoever moves is in both."""
    Install(server.url).enroll({"n": 1}, ago=6 * DAY)
    install = Install(server.url).enroll({"n": 10, "mine": 1}, ago=5 * DAY)
    last_at = datetime.now(UTC) - 3 * HOUR
    install.snapshot({"n": 20}, last_at)
    if rolled_up_before:
        behind.run()
    if end == "revoked":
        url = f"{server.url}/api/v1/admin/instances/{install.instance_id}/revoke"
        plain_http.post(url, headers=server.headers).raise_for_status()
    elif end == "erased":
        said = {"action": "erase", "instance_id": install.instance_id, "timestamp": datetime.now(UTC).isoformat()}
        raw = json.dumps(said).encode()
        assert install.post("/v1/erase", raw, install.signed(raw)).status_code == 200
    else:
        install.register(app_name="Kiosk")
        install.snapshot({"n": 30}, datetime.now(UTC))
    last_day = {21} if last_at.date() < datetime.now(UTC).date() else set()  # a midnight at which it stood
    shift_times(database, 1 * DAY)
    assert_matches_oracle(server, database)
    behind.run()
    assert_matches_oracle(server, database)
    assert_series_match_oracle(server, database)
    values = series(server, "period=30d&keys=n,mine")["metrics"]
    assert set(values["n"]) == ({None, 1} if end == "erased" else {None, 1, 11} | last_day)
    assert ("mine" in values) == (end != "erased")
    if end == "moved":
        assert set(series(server, "period=30d", "kiosk")["metrics"]["n"]) == {None, 30}


def test_keys_choose_metrics_and_one_that_nobody_knows_is_left_out(
    server: ServerProcess, behind: BackgroundJobs
) -> None:
    Install(server.url).enroll({"a": 1, "b": 2, "mail": {"sent": 3}, "beta": True, "plan": "free"})
    behind.run()
    said = series(server, "keys=a,mail.sent,beta,plan,unknown,a")
    assert (said["metrics"].keys(), said["flags"].keys()) == ({"a", "mail.sent"}, {"beta"})
    assert series(server)["metrics"].keys() == {"a", "b", "mail.sent"}


def test_a_hidden_metric_is_in_no_series_not_even_asked_for_by_name(server: ServerProcess) -> None:
    Install(server.url).enroll({"a": 1, "b": 2, "beta": True})
    body = {"overrides": {"a": {"hidden": True}, "beta": {"hidden": True}}}
    url = f"{server.url}/api/v1/admin/applications/ledger"
    plain_http.put(url, headers=server.headers, json=body).raise_for_status()
    for query in ("", "keys=a,b,beta"):
        said = series(server, query)
        assert (said["metrics"].keys(), said["flags"].keys()) == ({"b"}, set())


def test_an_application_is_found_by_its_name_too(server: ServerProcess) -> None:
    Install(server.url, app_name="Ledger & Söhne").enroll({"a": 1})
    by_name, by_slug = (series(server, app=app) for app in ("Ledger%20%26%20S%C3%B6hne", "ledger-sohne"))
    assert by_name["app"] == by_slug["app"] == "ledger-sohne"
    assert by_name["metrics"] == by_slug["metrics"]


def test_a_long_history_is_rolled_up_as_fast_as_a_short_one(
    server: ServerProcess, behind: BackgroundJobs, database: str
) -> None:
    """A snapshot among very many of one install is rolled up as fast as any."""
    install = Install(server.url).enroll({"n": 1})
    with admin_cursor(database) as cursor:  # one a minute for a month, as a client may send them, rolled up before
        cursor.execute(MONTH, [install.instance_id])
    behind.run("roll up")
    install.snapshot({"n": 2}, datetime.now(UTC) - 29.9 * DAY)
    install.snapshot({"n": 3})
    behind.run("roll up")  # within what a statement may take
    assert series(server)["metrics"]["n"][-1] == 3


def test_an_unseen_approved_install_is_active_once_seen(server: ServerProcess, database: str) -> None:
    """An install approved unseen is active and has its application once it is seen."""
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


def test_servers_that_write_at_once_keep_every_figure_true(
    serve: Callable[..., ServerProcess], behind: BackgroundJobs, database: str
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
            behind_also.submit(install.activate)

    with ThreadPoolExecutor(8) as senders, ThreadPoolExecutor(2) as behind_also:
        list(senders.map(send, range(200)))
    for server in servers:
        assert_matches_oracle(server, database)
    behind.run()
    for server in servers:
        assert_series_match_oracle(server, database, periods=["24h", "all"])
    assert behind.differences() == {}
