"""The endpoints for versions, lifecycle and breakdown, and charts of medians."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from shm.core.releases import version_rank
from tests.support import plain_http
from tests.support.background_jobs import wait_until_rolled_up
from tests.support.databases import admin_cursor
from tests.support.installs import Install
from tests.support.server_process import ServerProcess

pytestmark = pytest.mark.cluster


def report_versions(server: ServerProcess, *versions: tuple[str, float], environment: str = "production") -> Install:
    """An install that reported each of these versions so many days ago."""
    install = Install(server.url, app_version=versions[0][0], environment=environment)
    install.register()
    install.activate()
    now = datetime.now(UTC)
    for version, days in versions:
        assert install.snapshot({"n": 1}, now - timedelta(days=days), app_version=version).status_code == 202
    return install


@pytest.fixture
def unlimited(serve: Callable[..., ServerProcess]) -> ServerProcess:
    """A server without rate limits."""
    return serve(SHM_RATELIMIT_ENABLED="false")


def test_versions_have_counts_adoption_and_outdated_installs(unlimited: ServerProcess, database: str) -> None:
    server = unlimited
    report_versions(server, ("1.9", 20), ("1.10", 10), ("1.10", 0))
    report_versions(server, ("1.9", 20), ("1.10", 8), ("1.10", 0))
    report_versions(server, ("1.9", 20), ("1.10", 4), ("1.10", 0))
    report_versions(server, ("1.9", 20), ("1.9", 0))
    report_versions(server, ("1.11.0rc1", 1), environment="dev")
    wait_until_rolled_up(database)
    body = server.get("applications/ledger/versions?period=30d").json()
    assert (body["latest"], body["on_latest"]) == ("1.10", 3)
    assert body["behind"] == [{"version": "1.9", "instances": 1, "releases_behind": 1}]
    assert list(body["versions"]) == ["1.9", "1.10", "1.11.0rc1"]
    assert [values[-1] for values in body["versions"].values()] == [1, 3, 1]
    assert body["total"][-1] == 5
    assert {len(values) for values in (*body["versions"].values(), body["other"])} == {len(body["timestamps"])}
    at = {timestamp[:10]: index for index, timestamp in enumerate(body["timestamps"])}
    day = (datetime.now(UTC) - timedelta(days=6)).date().isoformat()
    assert [values[at[day]] for values in body["versions"].values()] == [2, 2, None]
    adoption = {entry["version"]: entry for entry in body["taken_up"]}
    assert (adoption["1.10"]["installs"], adoption["1.10"]["moved"]) == (3, 3)
    assert adoption["1.10"]["median_days"] == pytest.approx(2, abs=0.01)
    assert (adoption["1.9"]["moved"], adoption["1.9"]["median_days"]) == (0, None)


def test_spellings_of_a_release_count_as_one_in_lists_and_charts(server: ServerProcess, database: str) -> None:
    fleet = {
        "unknown": 1,
        "v1.4.2": 1,
        "1.4.2": 2,
        "1.4.2+b7": 1,
        "1.4.2-1": 1,
        "1.5.0-rc1": 1,
        "1.10": 1,
        "7f3e9c2": 1,
    }
    for version, installs in fleet.items():
        for _ in range(installs):
            report_versions(server, (version, 1))
    moved = report_versions(server, ("v1.4.2", 3), ("1.4.2", 2), ("1.10.0", 1))
    wait_until_rolled_up(database)
    body = server.get("applications/ledger/versions?period=7d").json()
    now = {version: values[-1] for version, values in body["versions"].items()}
    assert [*now.items()] == [
        ("7f3e9c2", 1),
        ("unknown", 1),
        ("1.4.2", 4),
        ("1.4.2-1", 1),
        ("1.5.0-rc1", 1),
        ("1.10", 2),
    ]
    assert (body["latest"], body["on_latest"], body["total"][-1]) == ("1.10", 2, 10)
    behind = [(entry["version"], entry["instances"], entry["releases_behind"]) for entry in body["behind"]]
    assert behind == [("7f3e9c2", 1, 4), ("unknown", 1, 4), ("1.4.2", 4, 3), ("1.4.2-1", 1, 2), ("1.5.0-rc1", 1, 1)]
    adoption = {entry["version"]: (entry["installs"], entry["moved"]) for entry in body["taken_up"]}
    assert (adoption["1.4.2"], adoption["1.10"]) == ((5, 0), (2, 1))
    items = server.get("instances?sort=app_version").json()
    listed = [item["app_version"] for item in items]
    assert listed == [
        *("7f3e9c2", "unknown", "1.4.2", "1.4.2", "1.4.2+b7", "v1.4.2", "1.4.2-1", "1.5.0-rc1", "1.10", "1.10.0"),
    ]
    assert [item["version_rank"] for item in items] == sorted(map(version_rank, listed))
    last = server.get(f"instances/{moved.instance_id}").json()
    assert (last["app_version"], last["version_rank"]) == ("1.10.0", version_rank("1.10"))
    moved.register(app_version="2.0")
    moved.activate()
    assert server.get(f"instances/{moved.instance_id}").json()["version_rank"] == version_rank("2.0")


def test_lifecycle_counts_new_active_lost_and_returned_instances(unlimited: ServerProcess, database: str) -> None:
    installs = [Install(unlimited.url).enroll({"n": 1}) for _ in range(4)]
    silent, returned, revoked, _ = (install.instance_id for install in installs)
    with admin_cursor(database) as cursor:  # simulates the passing of 40 days
        cursor.execute(
            "UPDATE instances SET first_seen_at = first_seen_at - interval '70 days', last_seen_at ="
            " last_seen_at - interval '40 days', refresh_at = '-infinity' WHERE instance_id = ANY(%s::uuid[])",
            [[silent, returned]],
        )
        cursor.execute(
            "UPDATE instances SET first_seen_at = first_seen_at - interval '3 days' WHERE instance_id = %s", [revoked]
        )
    assert installs[1].snapshot({"n": 2}).status_code == 202
    response = plain_http.post(f"{unlimited.url}/api/v1/admin/instances/{revoked}/revoke", headers=unlimited.headers)
    assert response.status_code == 200
    body = unlimited.get("applications/ledger/lifecycle?period=3m").json()
    days = {day["day"]: day for day in body["days"]}

    def day(ago: int) -> dict[str, int]:
        return dict(days[(datetime.now(UTC) - timedelta(days=ago)).date().isoformat()])

    assert (day(70)["new"], day(70)["active"]) == (2, 2)
    assert (day(10)["lost"], day(10)["active"], day(9)["active"]) == (2, 0, 0)
    assert (day(3)["new"], day(3)["active"]) == (1, 1)
    assert {name: day(0)[name] for name in ("new", "active", "lost", "returned", "revoked")} == {
        "new": 1,
        "active": 2,
        "lost": 0,
        "returned": 1,
        "revoked": 1,
    }
    assert day(0)["active"] == unlimited.get("stats").json()["active_instances"]
    cohort = body["cohorts"][0]
    assert (cohort["size"], cohort["active"][0], cohort["active"][-1]) == (2, 2, 0)


def test_a_breakdown_counts_each_value_and_aggregates_a_metric(server: ServerProcess) -> None:
    for version, number in (("1.0", 3), ("1.0", 5), ("2.0", 10)):
        Install(server.url, app_version=version).enroll(
            {"n": number, "db": "x" if number > 4 else "y", "mem_mb": number}
        )
    Install(server.url, app_version="2.0", environment="ci").enroll({"n": "text", "db": "x"})
    body = server.get("applications/ledger/breakdown?by=version&metric=n&spread=true").json()
    assert (body["by"], body["metric"], body["aggregate"], body["rest"]) == ("version", "n", "sum", None)
    assert body["values"] == [
        {"value": "1.0", "instances": 2, "metric": 8, "answered": 2, "min": 3, "p50": 4, "p90": 4.8, "max": 5},
        {"value": "2.0", "instances": 2, "metric": 10, "answered": 1, "min": 10, "p50": 10, "p90": 10, "max": 10},
    ]
    by_key = server.get("applications/ledger/breakdown?by=db&metric=mem_mb&counted=true").json()
    assert [(entry["value"], entry["instances"], entry["metric"], entry["p50"]) for entry in by_key["values"]] == [
        ("x", 2, 7.5, None),
        ("y", 1, 3, None),
    ]
    assert server.get("applications/ledger/breakdown?by=nothing").json()["values"] == []


def test_a_breakdown_with_a_median_combines_the_rest(server: ServerProcess) -> None:
    for number in range(53):
        Install(server.url, app_version=f"1.{number:02}").enroll({"n": number})
    response = plain_http.put(
        f"{server.url}/api/v1/admin/applications/ledger",
        json={"overrides": {"n": {"aggregate": "median"}}},
        headers=server.headers,
    )
    assert response.status_code == 200, response.text
    body = server.get("applications/ledger/breakdown?by=version&metric=n").json()
    assert len(body["values"]) == 50
    assert (body["rest"]["instances"], body["rest"]["metric"]) == (3, 51)


@pytest.mark.parametrize("path", ["versions", "lifecycle", "breakdown?by=version", "kpis"])
def test_charts_of_an_unknown_application_are_not_found(shared_server: ServerProcess, path: str) -> None:
    response = plain_http.get(
        f"{shared_server.url}/api/v1/admin/applications/nobody/{path}", headers=shared_server.headers
    )
    assert (response.status_code, response.json()["code"]) == (404, "no_such_application")


def test_a_chart_of_a_median_has_the_median_at_each_time(unlimited: ServerProcess, database: str) -> None:
    now = datetime.now(UTC)
    for number in (1, 2, 30):
        install = Install(unlimited.url)
        install.register()
        install.activate()
        install.snapshot({"n": number}, now - timedelta(days=5))
        install.snapshot({"n": number * 10}, now - timedelta(days=2))
    response = plain_http.put(
        f"{unlimited.url}/api/v1/admin/applications/ledger",
        json={"overrides": {"n": {"aggregate": "median"}}},
        headers=unlimited.headers,
    )
    assert response.status_code == 200, response.text
    wait_until_rolled_up(database)
    body = unlimited.get("metrics/ledger?period=7d").json()
    values = body["metrics"]["n"]
    assert values[-1] == 20
    assert next(value for value in values if value is not None) == 2
    assert set(values) == {None, 2, 20}
    timestamps = [timestamp for timestamp, value in zip(body["timestamps"], values, strict=True) if value == 20]
    assert datetime.fromisoformat(timestamps[0]) - (now - timedelta(days=2)) < timedelta(hours=6)


def test_figures_of_the_past_equal_the_series_at_that_time(unlimited: ServerProcess, database: str) -> None:
    """`at` ends the period at the beginning of a day. Days that are closed and days that are not give the same."""
    server = unlimited
    report_versions(server, ("1.9", 20.3), ("1.10", 10.2), ("1.10", 0))
    report_versions(server, ("1.9", 15.4), ("2.0-rc1", 3.1))
    wait_until_rolled_up(database)
    whole = server.get("metrics/ledger?period=30d&keys=n").json()
    versions = server.get("applications/ledger/versions?period=30d").json()
    values = dict(zip(whole["timestamps"], whole["metrics"]["n"], strict=True))
    totals = dict(zip(versions["timestamps"], versions["total"], strict=True))
    expected = {
        0: ("1.10", 1, 2),
        5: ("1.10", 1, 2),
        12: ("1.9", 2, 2),
        18: ("1.9", 1, 1),
    }  # latest, installs on it, all
    for days, (latest, on_latest, total) in expected.items():
        day = (datetime.now(UTC) - timedelta(days=days)).date()
        midnight = f"{day}T00:00:00Z"
        chart = server.get(f"metrics/ledger?period=30d&keys=n&at={day}").json()
        assert (chart["timestamps"][-1], chart["metrics"]["n"][-1]) == (midnight, values[midnight])
        for at, value in zip(chart["timestamps"], chart["metrics"]["n"], strict=True):
            assert values.get(at, value) == value
        past = server.get(f"applications/ledger/versions?period=30d&at={day}").json()
        assert (past["timestamps"][-1], past["total"][-1]) == (midnight, total) == (midnight, totals[midnight])
        assert (past["latest"], past["on_latest"]) == (latest, on_latest)
        assert sum(each["instances"] for each in past["behind"]) <= total - on_latest
    for query, wanted in (
        ("period=30d&at=2999-01-01", "until today"),
        ("period=30d&at=0001-01-01", "from 2000-01-01"),
        ("period=7d&at=2026-01-01", "a period with steps of a day or more"),
        ("period=30d&at=yesterday", "at"),
    ):
        for path in ("metrics/ledger", "applications/ledger/versions"):
            response = plain_http.get(f"{server.url}/api/v1/admin/{path}?{query}", headers=server.headers)
            assert (response.status_code, response.json()["code"]) == (400, "bad_parameter")
            assert wanted in response.json()["detail"]
