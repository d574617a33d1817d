"""KPIs are what the brute-force oracle makes of the raw snapshots, whatever a fleet sends."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.installs import Install
from tests.oracle import truth
from tests.server_process import ServerProcess

_decode = msgspec.json.Decoder(float_hook=Decimal).decode

numbers = st.integers(-(10**18), 10**18) | st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 4))
values = numbers | st.booleans() | st.sampled_from(["postgres", "sqlite", "x" * 65]) | st.none() | st.just([1, 2])
keys = st.sampled_from(["sent", "mem_mb", "hit_rate", "beta", "db"])
metrics_objects = st.dictionaries(keys, values, max_size=5) | st.dictionaries(
    st.just("mail"), st.dictionaries(keys, values, max_size=3), max_size=1
)
snapshots = st.lists(st.tuples(st.integers(0, 40), metrics_objects), max_size=4)
fleets = st.lists(st.tuples(st.sampled_from(["production", "Dev", "ci", ""]), snapshots), min_size=1, max_size=5)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fleet=fleets)
def test_kpis_equal_the_oracle_for_any_fleet(
    server: ServerProcess, database: str, fleet: list[tuple[str, list[tuple[int, Any]]]]
) -> None:
    now = datetime.now(UTC)
    name = f"Fleet {now.timestamp()}"
    for environment, sent in fleet:
        install = Install(server.url, app_name=name, environment=environment)
        install.register()
        assert install.activate().status_code == 200
        for days, metrics in sent:
            status = install.snapshot(metrics, now - timedelta(days=days)).status_code
            assert status == (202 if days < 30 else 400)
    slug = next(app["slug"] for app in server.get("applications?limit=1000").json() if app["name"] == name)
    hold_to_the_oracle(server, database, slug)


def hold_to_the_oracle(server: ServerProcess, database: str, slug: str) -> None:
    """Compares every figure of `kpis`."""
    said = _decode(server.get(f"applications/{slug}/kpis").content)
    expected = truth(database, slug)
    assert said["instances"]["active"] == expected.active
    assert said["instances"]["counted"] == expected.counted
    assert said["instances"]["excluded"] == expected.active - expected.counted
    assert {kpi["key"] for kpi in said["kpis"]} == expected.numbers.keys()
    for kpi in said["kpis"]:
        key, given_values = kpi["key"], expected.numbers[kpi["key"]]
        assert kpi["aggregate"] == ("sum" if key in ("sent", "beta", "db") or key.startswith("mail.") else "avg") or (
            key in ("mail.mem_mb", "mail.hit_rate")
        )
        assert abs(Decimal(kpi["value"]) - expected.kpi(key, kpi["aggregate"])) <= Decimal("1e-9")
        assert kpi["instances"] == len(given_values)
        assert (Decimal(kpi["min"]), Decimal(kpi["max"])) == (min(given_values), max(given_values))
        assert Fraction(Decimal(kpi["p50"])) == expected.percentile(key, Fraction(1, 2))
        assert Fraction(Decimal(kpi["p90"])) == expected.percentile(key, Fraction(9, 10))
    assert {flag["key"]: (flag["true"], flag["instances"]) for flag in said["flags"]} == {
        key: (sum(given_values), len(given_values)) for key, given_values in expected.flags.items()
    }
    assert {
        category["key"]: {entry["value"]: entry["instances"] for entry in category["values"]}
        for category in said["categories"]
    } == expected.categories


def test_a_key_that_the_current_snapshot_lacks_does_not_count(server: ServerProcess) -> None:
    install = Install(server.url).arrived({"a": 1, "b": 2}, ago=timedelta(hours=1))
    install.snapshot({"a": 5})
    kpis = server.get("applications/ledger/kpis").json()["kpis"]
    assert [(kpi["key"], kpi["value"]) for kpi in kpis] == [("a", 5)]


def test_business_metrics_come_before_system_ones(server: ServerProcess) -> None:
    Install(server.url).arrived({"app_x": 1, "zeta": 1, "mem": 1, "alpha": 1})
    kpis = server.get("applications/ledger/kpis").json()["kpis"]
    assert [(kpi["key"], kpi["kind"]) for kpi in kpis] == [
        ("alpha", "business"),
        ("zeta", "business"),
        ("app_x", "system"),
        ("mem", "system"),
    ]


def test_a_category_shows_its_twenty_most_frequent_values_and_the_rest(server: ServerProcess) -> None:
    for number in range(25):
        Install(server.url).arrived({"plan": f"plan{number:02}"})
    Install(server.url).arrived({"plan": "plan24"})
    (category,) = server.get("applications/ledger/kpis").json()["categories"]
    assert category["values"][0] == {"value": "plan24", "instances": 2}
    assert (len(category["values"]), category["other"], category["instances"]) == (20, 5, 26)


def test_kpis_of_the_counted_instances_alone_leave_out_dev_and_ephemeral_ones(server: ServerProcess) -> None:
    Install(server.url).arrived({"n": 1})
    Install(server.url, environment="Testing").arrived({"n": 10})
    Install(server.url).arrived({"n": 100, "sys_ephemeral": True})
    assert server.get("applications/ledger/kpis").json()["kpis"][0]["value"] == 111
    assert server.get("applications/ledger/kpis?counted=true").json()["kpis"][0]["value"] == 1


def test_stats_count_over_all_applications(server: ServerProcess) -> None:
    Install(server.url, app_name="One").arrived({"n": 1, "big": 2**70})
    Install(server.url, app_name="Two", environment="ci").arrived({"n": 2})
    Install(server.url, app_name="Two").register()
    stats = server.get("stats").json()
    assert (stats["total_instances"], stats["active_instances"], stats["pending_instances"]) == (3, 2, 1)
    assert (stats["counted_instances"], stats["excluded_instances"]) == (1, 1)
    assert stats["per_app_counts"] == {"One": 1, "Two": 2}
    assert stats["global_metrics"] == {"n": 3, "big": 2**70}
    assert [stats[f"{period}_active"] for period in ("daily", "weekly", "monthly")] == [2, 2, 2]
    assert stats["new_this_week"] == 2
