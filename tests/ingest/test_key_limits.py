"""The limits of aggregated keys and values: newcomers beyond them are stored but in no figure, and displace nobody."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support import plain_http
from tests.support.background_jobs import run_background_jobs
from tests.support.databases import admin_cursor, execute, select_column
from tests.support.installs import Install
from tests.support.oracle import assert_matches_oracle
from tests.support.server_process import ServerProcess
from tests.support.time_travel import shift_times

pytestmark = pytest.mark.cluster

Serve = Callable[..., ServerProcess]


def kpis_of(server: ServerProcess, app: str = "ledger") -> dict[str, Any]:
    """The KPIs of an application, numbers by key."""
    body: dict[str, Any] = server.get(f"applications/{app}/kpis").json()
    return body | {"kpis": {kpi["key"]: kpi["value"] for kpi in body["kpis"]}}


def junk(count: int, prefix: str = "junk") -> dict[str, int]:
    """Metrics with invented keys."""
    return {f"{prefix}{number}": number for number in range(count)}


def test_keys_beyond_the_limit_are_stored_but_in_no_figure(serve: Serve, database: str) -> None:
    with run_background_jobs(database, SHM_MAX_KEYS="5") as jobs:
        server = serve(SHM_MAX_KEYS="5")
        honest = Install(server.url).enroll({"orders": 7, "users": {"active": 2}})
        assert kpis_of(server)["keys"] == {"count": 2, "limit": 5, "refused_at": None}
        stranger = Install(server.url).enroll(junk(30))
        late = Install(server.url).enroll({"orders": 1, "refunds": 4})
        shown = kpis_of(server)
        assert shown["kpis"] == {"orders": 8, "users.active": 2, "junk0": 0, "junk1": 1, "junk10": 10}
        assert shown["keys"]["count"] == 5
        assert shown["keys"]["refused_at"] is not None
        described = {key["key"]: key["aggregated"] for key in server.get("metric-keys?keys=orders,refunds").json()}
        assert described == {"orders": True, "refunds": False}
        assert server.get(f"instances/{stranger.instance_id}").json()["metrics"] == junk(30)
        assert server.get(f"instances/{late.instance_id}").json()["metrics"] == {"orders": 1, "refunds": 4}
        jobs.run()
        keys = server.get("metrics/ledger?keys=orders,refunds,junk0,junk7").json()["metrics"]
        assert {key: values[-1] for key, values in keys.items() if values[-1] is not None} == {"orders": 8, "junk0": 0}
        assert honest.snapshot({"orders": 9, "users": {"active": 3}}).status_code == 202
        assert kpis_of(server)["kpis"]["orders"] == 10
        assert jobs.differences() == {}


def test_keys_with_a_setting_and_earlier_keys_are_always_aggregated(serve: Serve) -> None:
    server = serve(SHM_MAX_KEYS="3")
    first = Install(server.url).enroll({"orders": 7})
    Install(server.url).enroll(junk(20))
    change = {"overrides": {"refunds": {"unit": "EUR"}}, "public_metrics": ["revenue"]}
    put = plain_http.put(f"{server.url}/api/v1/admin/applications/ledger", headers=server.headers, json=change)
    assert put.status_code == 200, put.text
    sent = {"orders": 8, "refunds": 2, "revenue": 5, "fees": 1, "sys_ephemeral": True}
    assert first.snapshot(sent).status_code == 202
    shown = kpis_of(server)
    assert {key: shown["kpis"].get(key) for key in ("orders", "refunds", "revenue", "fees")} == {
        "orders": 8,
        "refunds": 2,
        "revenue": 5,
        "fees": None,
    }
    assert shown["instances"]["excluded"] == 1


def test_values_beyond_the_limit_are_in_no_category(serve: Serve, database: str) -> None:
    with run_background_jobs(database) as jobs:
        server = serve(SHM_MAX_VALUES="3")
        for number in range(6):
            Install(server.url).enroll({"plan": f"plan {number}", "orders": 1})
        Install(server.url).enroll({"plan": "plan 0", "orders": 1})
        shown = kpis_of(server)
        (category,) = shown["categories"]
        assert {value["value"]: value["instances"] for value in category["values"]} == {
            "plan 0": 2,
            "plan 1": 1,
            "plan 2": 1,
        }
        assert (category["instances"], shown["kpis"]["orders"]) == (4, 7)
        assert shown["keys"]["refused_at"] is not None
        assert jobs.differences() == {}


def test_an_install_that_moves_brings_no_keys_beyond_the_limit(serve: Serve, database: str) -> None:
    with run_background_jobs(database) as jobs:
        server = serve(SHM_MAX_KEYS="4")
        Install(server.url).enroll({"orders": 1, "users": 1})
        mover = Install(server.url, app_name="Other").enroll(junk(4))
        other = Install(server.url, app_name="Other").enroll({"more": 1})
        mover.app_name = "Ledger"
        mover.register()
        mover.activate()
        assert set(kpis_of(server)["kpis"]) == {"orders", "users", "junk0", "junk1"}
        assert jobs.differences() == {}
        mover.app_name = "Other"  # back again
        mover.register()
        mover.activate()
        assert set(kpis_of(server, "other")["kpis"]) == set(junk(4))
        assert other.snapshot({"junk1": 3}).status_code == 202
        assert kpis_of(server, "other")["kpis"]["junk1"] == 4
        assert jobs.differences() == {}


def test_an_unused_key_gives_its_place_to_a_new_one_after_a_day(serve: Serve, database: str) -> None:
    with run_background_jobs(database, SHM_MAX_KEYS="4") as jobs:
        server = serve(SHM_MAX_KEYS="4")
        honest = Install(server.url).enroll({"orders": 1, "plan": "pro"})
        stranger = Install(server.url).enroll(junk(9))
        revoke = f"{server.url}/api/v1/admin/instances/{stranger.instance_id}/revoke"
        plain_http.post(revoke, headers=server.headers).raise_for_status()
        jobs.run("delete unused keys", "delete unused values of strings")
        assert kpis_of(server)["keys"]["count"] == 4  # a place is kept for a day, so a day has a limit too
        with admin_cursor(database) as cursor:
            cursor.execute("UPDATE aggregated_keys SET added_at = added_at - interval '25 hours'")
            cursor.execute("UPDATE aggregated_values SET added_at = added_at - interval '25 hours'")
        for job in jobs.jobs:
            job.due_at = 0.0
        jobs.run("delete unused keys", "delete unused values of strings")
        assert kpis_of(server)["keys"]["count"] == 2
        assert honest.snapshot({"orders": 2, "plan": "pro", "refunds": 1}).status_code == 202
        assert kpis_of(server)["kpis"] == {"orders": 2, "refunds": 1}
        assert jobs.differences() == {}


@pytest.mark.parametrize("ages", [[40], [20] * 6], ids=["begun", "steady"])
def test_a_key_of_earlier_days_keeps_its_place_while_nobody_sends_it(
    serve: Serve, database: str, ages: list[int]
) -> None:
    """Such as one that installs send once a week. A newcomer's key gives its place to others after a day."""
    with run_background_jobs(database, SHM_MAX_KEYS="4") as jobs:
        server = serve(SHM_MAX_KEYS="4")
        honest = Install(server.url).enroll({"orders": 1, "backups": 5})
        for days in ages:
            assert honest.snapshot({"orders": 1, "backups": 5}).status_code == 202
            shift_times(database, timedelta(days=days))
            for job in jobs.jobs:
                job.due_at = 0.0
            jobs.run()
        assert honest.snapshot({"orders": 2}).status_code == 202
        jobs.run()
        stranger = Install(server.url).enroll(junk(9))
        execute(database, "UPDATE aggregated_keys SET added_at = added_at - interval '25 hours'")
        for job in jobs.jobs:
            job.due_at = 0.0
        assert stranger.snapshot({"more": 1}).status_code == 202
        jobs.run()
        assert stranger.snapshot(junk(9, "more")).status_code == 202
        assert honest.snapshot({"orders": 3, "backups": 6}).status_code == 202
        assert kpis_of(server)["kpis"] == {"orders": 3, "backups": 6, "more0": 0, "more1": 1}
        assert jobs.differences() == {}


def test_figures_within_the_limits_match_the_oracle_while_strangers_flood(serve: Serve, database: str) -> None:
    server = serve(SHM_MAX_KEYS="50", SHM_MAX_VALUES="10")
    honest = [Install(server.url, app_name="Ledger").enroll({"orders": n, "plan": f"p{n}"}) for n in range(5)]
    for number in range(3):
        Install(server.url, app_name="Flood").enroll(junk(256, f"k{number}_"))
    for install in honest:
        assert install.snapshot({"orders": 3, "plan": "p1", "nested": {"a": True}}).status_code == 202
    assert_matches_oracle(server, database, "ledger")


@pytest.mark.long
def test_a_flood_of_keys_grows_the_database_little(serve: Serve, database: str) -> None:
    """25,600 invented keys in a backlog add a thousand rows for keys, not one for each."""
    with run_background_jobs(database) as jobs:
        server = serve()
        install = Install(server.url).enroll({"orders": 1})
        now = datetime.now(UTC)
        members = [
            {"timestamp": (now - timedelta(hours=n)).isoformat(), "metrics": junk(256, f"key{n}_")}
            for n in range(1, 41)
        ]
        body = json.dumps({"instance_id": install.instance_id, "snapshots": members}).encode()
        started_at = time.monotonic()
        assert install.post("/v1/snapshots", body, install.signed(body)).status_code == 202
        assert time.monotonic() - started_at < 10
        jobs.run("roll up")
        with admin_cursor(database) as cursor:
            cursor.execute(
                "SELECT (SELECT count(*) FROM aggregated_keys), (SELECT count(DISTINCT key) FROM series_hours)"
            )
            assert cursor.fetchone() == (1_000, 1_001)  # and the versions, whose key is empty
        assert jobs.differences() == {}


def versions_of(server: ServerProcess, app: str = "ledger") -> tuple[dict[str, int], int | None, int | None]:
    """The last values of the versions of an application, of `other` and of `total`."""
    body = server.get(f"applications/{app}/versions?period=24h").json()
    counts = {version: values[-1] for version, values in body["versions"].items() if values[-1]}
    return counts, body["other"][-1], body["total"][-1]


def test_versions_beyond_the_limit_are_counted_together(serve: Serve, database: str) -> None:
    """Of a backlog of invented versions, and of many installs with one each."""
    with run_background_jobs(database, SHM_MAX_VERSIONS="3") as jobs:
        server = serve(SHM_MAX_VERSIONS="3")
        honest = Install(server.url).enroll({"orders": 1})
        stranger = Install(server.url).enroll({"orders": 1})
        now = datetime.now(UTC)
        for hours in range(30, 0, -1):
            at = now - timedelta(hours=hours)
            assert stranger.snapshot({"orders": 1}, at, app_version=f"0.0.{hours}").status_code == 202
        strangers = [Install(server.url, app_version=f"9.{number}").enroll({"orders": 1}) for number in range(4)]
        assert versions_of(server) == ({"1.4.2": 2}, 4, 6)
        assert kpis_of(server)["kpis"]["orders"] == 6
        assert kpis_of(server)["keys"]["refused_at"] is not None
        assert server.get(f"instances/{strangers[0].instance_id}").json()["app_version"] == "9.0"
        assert server.get("stats").json()["active_instances"] == 6
        jobs.run()
        tables = {
            "tallies": "SELECT count(DISTINCT value) FROM tallies WHERE metric_type = 'version'",
            "series_hours": "SELECT count(DISTINCT value) FROM series_hours WHERE metric_type = 'version'",
            "versions_seen": "SELECT count(DISTINCT app_version) FROM versions_seen",
        }
        assert all(select_column(database, sql)[0] <= 3 for sql in tables.values())
        body = server.get("applications/ledger/versions?period=24h").json()
        assert body["total"][-2:] == [1, 6] or body["total"][-2:] == [6, 6]  # a full hour may have passed
        assert jobs.differences() == {}
        assert honest.snapshot({"orders": 2}, app_version="1.5").status_code == 202
        assert versions_of(server) == ({"1.4.2": 1}, 5, 6)
        honest.app_version = "1.4.2"
        honest.register()
        assert honest.activate().status_code == 200
        assert versions_of(server) == ({"1.4.2": 2}, 4, 6)
        assert jobs.differences() == {}
        for install in (*strangers, stranger):
            request = json.dumps(
                {"action": "erase", "instance_id": install.instance_id, "timestamp": datetime.now(UTC).isoformat()}
            ).encode()
            assert install.post("/v1/erase", request, install.signed(request)).status_code == 200
        jobs.run()
        assert versions_of(server) == ({"1.4.2": 1}, None, 1)
        assert jobs.differences() == {}


def test_an_unused_version_gives_its_place_to_a_new_one_after_a_day(serve: Serve, database: str) -> None:
    with run_background_jobs(database, SHM_MAX_VERSIONS="2") as jobs:
        server = serve(SHM_MAX_VERSIONS="2")
        install = Install(server.url).enroll({"orders": 1})
        for version in ("1.5", "1.6", "1.7"):
            assert install.snapshot({"orders": 1}, app_version=version).status_code == 202
        assert versions_of(server) == ({}, 1, 1)
        jobs.run()
        assert select_column(database, "SELECT app_version FROM aggregated_versions ORDER BY 1") == ["1.4.2", "1.5"]
        execute(database, "UPDATE aggregated_versions SET added_at = added_at - interval '25 hours'")
        jobs.run("delete unused versions")
        assert select_column(database, "SELECT app_version FROM aggregated_versions") == []
        assert versions_of(server) == ({}, 1, 1)
        assert install.snapshot({"orders": 1}).status_code == 202  # the next report of the same version
        assert versions_of(server) == ({"1.7": 1}, None, 1)
        assert jobs.differences() == {}


def test_an_install_that_moves_brings_no_version_beyond_the_limit(serve: Serve, database: str) -> None:
    with run_background_jobs(database, SHM_MAX_VERSIONS="1") as jobs:
        server = serve(SHM_MAX_VERSIONS="1")
        Install(server.url).enroll({"orders": 1})
        mover = Install(server.url, app_name="Other", app_version="7").enroll({"orders": 1})
        mover.app_name = "Ledger"
        mover.register()
        mover.activate()
        assert versions_of(server) == ({"1.4.2": 1}, 1, 2)
        assert jobs.differences() == {}
        third = Install(server.url, app_name="Third", app_version="8").enroll({"orders": 1})
        merge = f"{server.url}/api/v1/admin/applications/third/merge"
        plain_http.post(merge, headers=server.headers, json={"into": "ledger"}).raise_for_status()
        jobs.run()
        assert versions_of(server) == ({"1.4.2": 1}, 2, 3)
        assert server.get(f"instances/{third.instance_id}").json()["app_version"] == "8"
        assert jobs.differences() == {}


def test_values_over_all_keys_have_a_limit(serve: Serve, database: str) -> None:
    with run_background_jobs(database, SHM_MAX_ALL_VALUES="5") as jobs:
        server = serve(SHM_MAX_ALL_VALUES="5")
        Install(server.url).enroll({"plan": "pro", "region": "eu"})
        Install(server.url).enroll({f"text{number}": "x" for number in range(9)})
        Install(server.url).enroll({"plan": "pro", "region": "us"})
        assert select_column(database, "SELECT count(*) FROM aggregated_values") == [5]
        shown = {each["key"]: each["values"] for each in kpis_of(server)["categories"]}
        assert shown["plan"] == [{"value": "pro", "instances": 2}]
        assert shown["region"] == [{"value": "eu", "instances": 1}]
        assert len(shown) == 5
        assert jobs.differences() == {}
        execute(database, "UPDATE aggregated_values SET added_at = added_at - interval '25 hours'")
        jobs.run("delete unused values of strings")  # all are in use
        assert select_column(database, "SELECT count(*) FROM aggregated_values") == [5]
