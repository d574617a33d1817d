"""KPIs of small fleets with known values. `test_oracle.py` compares random fleets with the oracle."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, get_args

import pytest

from shm.analytics.applications import AppConfig
from shm.analytics.filtered_kpis import MAX_SORTED_INSTANCES, keys_to_sort
from shm.analytics.kpis import KpiRow, KpiRows
from shm.core.aggregates import Aggregate
from shm.db.advisory_locks import Lock
from tests.support import plain_http
from tests.support.databases import admin_cursor
from tests.support.installs import Install
from tests.support.module_server import module_server
from tests.support.server_process import ServerProcess

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def shared(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server for tests of one application's figures: each has an application of its own."""
    with module_server(postgres, tmp_path_factory.mktemp("kpis")) as (server, _):
        yield server


def test_a_key_that_the_current_snapshot_lacks_does_not_count(shared: ServerProcess) -> None:
    install = Install(shared.url, app_name="Lacking").enroll({"a": 1, "b": 2}, ago=timedelta(hours=1))
    install.snapshot({"a": 5})
    kpis = shared.get("applications/lacking/kpis").json()["kpis"]
    assert [(kpi["key"], kpi["value"]) for kpi in kpis] == [("a", 5)]


def test_business_metrics_come_before_system_ones(shared: ServerProcess) -> None:
    Install(shared.url, app_name="Ordered").enroll({"app_x": 1, "zeta": 1, "mem": 1, "alpha": 1})
    kpis = shared.get("applications/ordered/kpis").json()["kpis"]
    assert [(kpi["key"], kpi["kind"]) for kpi in kpis] == [
        ("alpha", "business"),
        ("zeta", "business"),
        ("app_x", "system"),
        ("mem", "system"),
    ]


def test_a_category_shows_its_twenty_most_frequent_values_and_the_rest(shared: ServerProcess) -> None:
    for number in range(25):
        Install(shared.url, app_name="Plans").enroll({"plan": f"plan{number:02}"})
    Install(shared.url, app_name="Plans").enroll({"plan": "plan24"})
    (category,) = shared.get("applications/plans/kpis").json()["categories"]
    assert category["values"][0] == {"value": "plan24", "instances": 2}
    assert (len(category["values"]), category["other"], category["instances"]) == (20, 5, 26)


def test_category_values_before_the_next_refresh(serve: Callable[..., ServerProcess], database: str) -> None:
    """A longer active window returns instances to the KPIs at once, and to the tallies with the next refresh."""
    server = serve(SHM_ACTIVE_WINDOW="1d")
    Install(server.url).enroll({"plan": "pro"}, ago=timedelta(days=3))
    assert server.get("applications/ledger/kpis").json()["categories"] == []
    server.terminate()
    with admin_cursor(database) as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [Lock.BACKGROUND])  # no background job runs, so no refresh
        restarted = serve(SHM_ACTIVE_WINDOW="30d")
        (category,) = restarted.get("applications/ledger/kpis").json()["categories"]
    assert category["values"] == [{"value": "pro", "instances": 1}]


def test_counted_kpis_leave_out_dev_and_ephemeral_instances(shared: ServerProcess) -> None:
    Install(shared.url, app_name="Counted").enroll({"n": 1})
    Install(shared.url, app_name="Counted", environment="Testing").enroll({"n": 10})
    Install(shared.url, app_name="Counted").enroll({"n": 100, "sys_ephemeral": True})
    assert shared.get("applications/counted/kpis").json()["kpis"][0]["value"] == 111
    assert shared.get("applications/counted/kpis?counted=true").json()["kpis"][0]["value"] == 1


def test_the_past_has_no_kpis_over_a_filter(shared: ServerProcess) -> None:
    Install(shared.url, app_name="Past").enroll({"n": 1})
    for query in ("at=2024-01-01&counted=true", "at=2024-01-01&where=env%3Dci", "at=2999-01-01"):
        path = f"{shared.url}/api/v1/admin/applications/past/kpis?{query}"
        refusal = plain_http.get(path, headers=shared.headers)
        assert (refusal.status_code, refusal.json()["code"]) == (400, "bad_parameter")
        assert refusal.json()["detail"].startswith("at is")


def test_percentiles_over_a_filter_have_a_limit() -> None:
    """Beyond it only those that a KPI's value needs: the keys of a large selection."""
    numbers = [KpiRow("numbers", key, 9, Decimal(9), *[None] * 8) for key in ("sent", "max_load")]
    rows = KpiRows(AppConfig("app", "App", datetime.now(UTC), {}), numbers)
    assert keys_to_sort(rows, MAX_SORTED_INSTANCES) == ["max_load", "sent"]
    assert keys_to_sort(rows, MAX_SORTED_INSTANCES + 1) == ["max_load"]


def test_stats_count_over_all_applications(server: ServerProcess) -> None:
    Install(server.url, app_name="One").enroll({"n": 1, "big": 2**70})
    Install(server.url, app_name="Two", environment="ci").enroll({"n": 2})
    Install(server.url, app_name="Two").register()
    stats = server.get("stats").json()
    assert (stats["total_instances"], stats["active_instances"], stats["unproven_instances"]) == (2, 2, 1)
    assert (stats["counted_instances"], stats["excluded_instances"]) == (1, 1)
    assert stats["per_app_counts"] == {"One": 1, "Two": 1}
    assert stats["global_metrics"] == {"n": 3, "big": 2**70}
    assert [stats[f"{period}_active"] for period in ("daily", "weekly", "monthly")] == [2, 2, 2]
    assert stats["new_this_week"] == 2


def test_installs_that_only_activate_are_told_apart(server: ServerProcess) -> None:
    silent = Install(server.url)
    silent.register()
    assert silent.activate().status_code == 200
    Install(server.url).enroll({"n": 1})
    Install(server.url).register()

    def unreported() -> list[int]:
        (application,) = server.get("applications").json()
        kpis = server.get("applications/ledger/kpis").json()
        stats = server.get("stats").json()
        assert application["instances"] == kpis["instances"]
        assert (stats["active_instances"], kpis["instances"]["active"]) == (2, 2)
        return [kpis["instances"]["unreported"], stats["unreported_instances"]]

    assert unreported() == [1, 1]
    assert silent.snapshot({"n": 2}).status_code == 202
    assert unreported() == [0, 0]


def test_stats_omit_metrics_without_a_common_aggregate(server: ServerProcess) -> None:
    for app, factor in (("One", 1), ("Two", 10)):
        Install(server.url, app_name=app).enroll(dict.fromkeys(("same", "differs", "hidden", "median"), factor))
    overrides = {"same": {"aggregate": "avg"}, "median": {"aggregate": "median"}}
    set_overrides(server, "one", overrides | {"differs": {"aggregate": "avg"}, "hidden": {"hidden": True}})
    set_overrides(server, "two", overrides)
    assert server.get("stats").json()["global_metrics"] == {"same": 5.5, "hidden": 10}


@pytest.mark.parametrize(
    ("aggregate", "value"), [("sum", 106), ("avg", 26.5), ("min", 1), ("max", 100), ("median", 2.5)]
)
def test_one_aggregate_in_kpis_charts_and_breakdowns(shared: ServerProcess, aggregate: Aggregate, value: float) -> None:
    for number in (1, 2, 3, 100):
        Install(shared.url, app_name=aggregate).enroll({"n": number})
    set_overrides(shared, aggregate, {"n": {"aggregate": aggregate}})
    (kpi,) = shared.get(f"applications/{aggregate}/kpis").json()["kpis"]
    chart = shared.get(f"metrics/{aggregate}").json()["metrics"]["n"]
    breakdown = shared.get(f"applications/{aggregate}/breakdown?by=version&metric=n").json()
    assert (kpi["aggregate"], kpi["value"]) == (breakdown["aggregate"], breakdown["values"][0]["metric"])
    assert (kpi["aggregate"], kpi["value"], chart[-1]) == (aggregate, value, value)


def test_each_aggregate_has_its_value_in_the_tests() -> None:
    (parameters,) = (mark.args for mark in test_one_aggregate_in_kpis_charts_and_breakdowns.pytestmark)  # type: ignore[attr-defined]
    assert {aggregate for aggregate, _ in parameters[1]} == set(get_args(Aggregate))


def set_overrides(server: ServerProcess, slug: str, overrides: dict[str, Any]) -> None:
    """Sets the overrides of an application."""
    path = f"{server.url}/api/v1/admin/applications/{slug}"
    plain_http.put(path, json={"overrides": overrides}, headers=server.headers).raise_for_status()
