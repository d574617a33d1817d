"""Versions, lifecycle and breakdown: an application's past, and what it is made of."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from shm.core.releases import version_rank
from tests.support import plain_http
from tests.support.clusters import wait_for
from tests.support.databases import admin_cursor
from tests.support.installs import Install
from tests.support.server_process import ServerProcess

ROLLED = "SELECT (SELECT cursor FROM series_head) >= (SELECT cursor FROM feed_head)"


def rolled_up(database: str) -> bool:
    """Whether all that is stored is in the series."""
    with admin_cursor(database) as cursor:
        cursor.execute(ROLLED)
        return bool((cursor.fetchone() or (False,))[0])


def sent(server: ServerProcess, *versions: tuple[str, float], environment: str = "production") -> Install:
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
    """A server that takes as many snapshots of an install as come."""
    return serve(SHM_RATELIMIT_ENABLED="false")


def test_versions_have_counts_adoption_and_outdated_installs(unlimited: ServerProcess, database: str) -> None:
    """Versions tell how many run which how fast they move and who is behind."""
    server = unlimited
    sent(server, ("1.9", 20), ("1.10", 10), ("1.10", 0))
    sent(server, ("1.9", 20), ("1.10", 8), ("1.10", 0))
    sent(server, ("1.9", 20), ("1.10", 4), ("1.10", 0))
    sent(server, ("1.9", 20), ("1.9", 0))
    sent(server, ("1.11.0rc1", 1), environment="dev")
    wait_for(lambda: rolled_up(database), "it is not rolled up")
    said = server.get("applications/ledger/versions?period=30d").json()
    assert (said["latest"], said["on_latest"]) == ("1.10", 3)
    assert said["behind"] == [{"version": "1.9", "instances": 1, "releases_behind": 1}]
    assert list(said["versions"]) == ["1.9", "1.10", "1.11.0rc1"]
    assert [values[-1] for values in said["versions"].values()] == [1, 3, 1]
    assert said["total"][-1] == 5
    assert {len(values) for values in (*said["versions"].values(), said["other"])} == {len(said["timestamps"])}
    at = {moment[:10]: place for place, moment in enumerate(said["timestamps"])}
    day = (datetime.now(UTC) - timedelta(days=6)).date().isoformat()
    assert [values[at[day]] for values in said["versions"].values()] == [2, 2, None]
    taken = {each["version"]: each for each in said["taken_up"]}
    assert (taken["1.10"]["installs"], taken["1.10"]["moved"]) == (3, 3)
    assert taken["1.10"]["median_days"] == pytest.approx(2, abs=0.01)
    assert (taken["1.9"]["moved"], taken["1.9"]["median_days"]) == (0, None)


def test_spellings_of_a_release_are_one_and_lists_and_charts_agree(server: ServerProcess, database: str) -> None:
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
            sent(server, (version, 1))
    moved = sent(server, ("v1.4.2", 3), ("1.4.2", 2), ("1.10.0", 1))
    wait_for(lambda: rolled_up(database), "it is not rolled up")
    said = server.get("applications/ledger/versions?period=7d").json()
    now = {version: values[-1] for version, values in said["versions"].items()}
    assert [*now.items()] == [
        ("7f3e9c2", 1),
        ("unknown", 1),
        ("1.4.2", 4),
        ("1.4.2-1", 1),
        ("1.5.0-rc1", 1),
        ("1.10", 2),
    ]
    assert (said["latest"], said["on_latest"], said["total"][-1]) == ("1.10", 2, 10)
    behind = [(each["version"], each["instances"], each["releases_behind"]) for each in said["behind"]]
    assert behind == [("7f3e9c2", 1, 4), ("unknown", 1, 4), ("1.4.2", 4, 3), ("1.4.2-1", 1, 2), ("1.5.0-rc1", 1, 1)]
    taken = {each["version"]: (each["installs"], each["moved"]) for each in said["taken_up"]}
    assert (taken["1.4.2"], taken["1.10"]) == ((5, 0), (2, 1))
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


def test_lifecycle_tells_who_is_new_active_lost_and_back(unlimited: ServerProcess, database: str) -> None:
    installs = [Install(unlimited.url).enroll({"n": 1}) for _ in range(4)]
    silent, back, revoked, _ = (install.instance_id for install in installs)
    with admin_cursor(database) as cursor:  # as if time had passed: nobody can wait for 40 days
        cursor.execute(
            "UPDATE instances SET first_seen_at = first_seen_at - interval '70 days', last_seen_at ="
            " last_seen_at - interval '40 days', refresh_at = '-infinity' WHERE instance_id = ANY(%s::uuid[])",
            [[silent, back]],
        )
        cursor.execute(
            "UPDATE instances SET first_seen_at = first_seen_at - interval '3 days' WHERE instance_id = %s", [revoked]
        )
    assert installs[1].snapshot({"n": 2}).status_code == 202
    decided = plain_http.post(f"{unlimited.url}/api/v1/admin/instances/{revoked}/revoke", headers=unlimited.headers)
    assert decided.status_code == 200
    said = unlimited.get("applications/ledger/lifecycle?period=3m").json()
    days = {day["day"]: day for day in said["days"]}

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
    cohort = said["cohorts"][0]
    assert (cohort["size"], cohort["active"][0], cohort["active"][-1]) == (2, 2, 0)


def test_a_breakdown_tells_instances_for_each_value_and_a_metric_over_them(server: ServerProcess) -> None:
    for version, sent_ in (("1.0", 3), ("1.0", 5), ("2.0", 10)):
        Install(server.url, app_version=version).enroll({"n": sent_, "db": "x" if sent_ > 4 else "y", "mem_mb": sent_})
    Install(server.url, app_version="2.0", environment="ci").enroll({"n": "text", "db": "x"})
    said = server.get("applications/ledger/breakdown?by=version&metric=n").json()
    assert (said["by"], said["metric"], said["aggregate"], said["rest"]) == ("version", "n", "sum", None)
    assert said["values"] == [
        {"value": "1.0", "instances": 2, "metric": 8, "answered": 2},
        {"value": "2.0", "instances": 2, "metric": 10, "answered": 1},
    ]
    by_key = server.get("applications/ledger/breakdown?by=db&metric=mem_mb&counted=true").json()
    assert [(each["value"], each["instances"], each["metric"]) for each in by_key["values"]] == [
        ("x", 2, 7.5),
        ("y", 1, 3),
    ]
    assert server.get("applications/ledger/breakdown?by=nothing").json()["values"] == []


def test_a_breakdown_by_a_median_and_its_rest(server: ServerProcess) -> None:
    for number in range(53):
        Install(server.url, app_version=f"1.{number:02}").enroll({"n": number})
    changed = plain_http.put(
        f"{server.url}/api/v1/admin/applications/ledger",
        json={"overrides": {"n": {"aggregate": "median"}}},
        headers=server.headers,
    )
    assert changed.status_code == 200, changed.text
    said = server.get("applications/ledger/breakdown?by=version&metric=n").json()
    assert len(said["values"]) == 50
    assert (said["rest"]["instances"], said["rest"]["metric"]) == (3, 51)


@pytest.mark.parametrize("what", ["versions", "lifecycle", "breakdown?by=version", "kpis"])
def test_charts_of_an_unknown_application_are_not_found(shared_server: ServerProcess, what: str) -> None:
    response = plain_http.get(
        f"{shared_server.url}/api/v1/admin/applications/nobody/{what}", headers=shared_server.headers
    )
    assert (response.status_code, response.json()["code"]) == (404, "no_such_application")


def test_a_chart_of_a_median_tells_the_median_of_each_moment(unlimited: ServerProcess, database: str) -> None:
    now = datetime.now(UTC)
    for number in (1, 2, 30):
        install = Install(unlimited.url)
        install.register()
        install.activate()
        install.snapshot({"n": number}, now - timedelta(days=5))
        install.snapshot({"n": number * 10}, now - timedelta(days=2))
    changed = plain_http.put(
        f"{unlimited.url}/api/v1/admin/applications/ledger",
        json={"overrides": {"n": {"aggregate": "median"}}},
        headers=unlimited.headers,
    )
    assert changed.status_code == 200, changed.text
    wait_for(lambda: rolled_up(database), "it is not rolled up")
    said = unlimited.get("metrics/ledger?period=7d").json()
    values = said["metrics"]["n"]
    assert values[-1] == 20
    assert next(value for value in values if value is not None) == 2
    assert set(values) == {None, 2, 20}
    known = [moment for moment, value in zip(said["timestamps"], values, strict=True) if value == 20]
    assert datetime.fromisoformat(known[0]) - (now - timedelta(days=2)) < timedelta(hours=6)
