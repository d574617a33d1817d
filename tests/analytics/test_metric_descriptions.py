"""Descriptions of metric keys: `GET metric-keys`."""

from typing import Any

import pytest

from tests.support import plain_http
from tests.support.installs import Install
from tests.support.server_process import ServerProcess

METRICS = {
    "sent": 3,
    "disk_pct": 40,
    "wait_ms": 5,
    "heapMB": 9,
    "beta": True,
    "plan": "free",
    "tags": [1],
    "x": "y" * 65,
}


def fetch_descriptions(server: ServerProcess, query: str = "") -> dict[str, dict[str, Any]]:
    """The descriptions by key."""
    return {description["key"]: description for description in server.get(f"metric-keys{query}").json()}


def set_overrides(server: ServerProcess, slug: str, overrides: dict[str, Any]) -> None:
    """Sets the overrides of an application."""
    path = f"{server.url}/api/v1/admin/applications/{slug}"
    plain_http.put(path, json={"overrides": overrides}, headers=server.headers).raise_for_status()


def test_each_key_has_a_label_kind_aggregate_unit_and_format(server: ServerProcess) -> None:
    Install(server.url).enroll(METRICS)
    descriptions = fetch_descriptions(server, f"?app=ledger&keys={','.join(METRICS)},never_sent")
    values = {
        key: [description[name] for name in ("label", "kind", "aggregate", "unit", "format")]
        for key, description in descriptions.items()
    }
    assert values == {
        "sent": ["Sent", "business", "sum", None, "number"],
        "disk_pct": ["Disk pct", "business", "avg", "%", "percent"],
        "wait_ms": ["Wait ms", "business", "sum", "ms", "duration"],
        "heapMB": ["Heap MB", "system", "avg", "MB", "bytes"],
        "beta": ["Beta", "business", None, None, "boolean"],
        "plan": ["Plan", "business", None, None, "text"],
        "tags": ["Tags", "business", None, None, "json"],
        "x": ["X", "business", None, None, "json"],
        "never_sent": ["Never sent", "business", None, None, "json"],
    }


def test_without_keys_reported_and_overridden_ones_are_described(server: ServerProcess) -> None:
    Install(server.url).enroll(METRICS)
    set_overrides(server, "ledger", {"tags": {"hidden": True}, "sent": {"label": "Letters", "aggregate": "max"}})
    descriptions = fetch_descriptions(server, "?app=Ledger")
    assert descriptions.keys() == METRICS.keys() - {"x"}
    assert {key for key, description in descriptions.items() if description["hidden"]} == {"tags"}
    assert (descriptions["sent"]["label"], descriptions["sent"]["aggregate"]) == ("Letters", "max")


def test_the_most_frequent_type_determines_the_format(server: ServerProcess) -> None:
    for value in (1, "one", "two"):
        Install(server.url).enroll({"n": value})
    assert fetch_descriptions(server, "?app=ledger")["n"]["format"] == "text"


def test_descriptions_over_applications_need_equal_overrides(server: ServerProcess) -> None:
    for app in ("One", "Two"):
        Install(server.url, app_name=app).enroll({"a": 1, "b": 1, "only_shown": []})
    set_overrides(server, "one", {"a": {"label": "Apples", "aggregate": "max"}, "b": {"label": "Beans"}})
    assert fetch_descriptions(server)["b"]["label"] == "B"
    set_overrides(server, "two", {"b": {"label": "Beans", "hidden": True}, "only_shown": {"hidden": True}})
    descriptions = fetch_descriptions(server, "?keys=a,b,only_shown")
    assert (descriptions["a"]["label"], descriptions["a"]["aggregate"]) == ("A", None)
    assert (descriptions["b"]["label"], descriptions["b"]["hidden"]) == ("Beans", False)
    assert descriptions["only_shown"]["hidden"]


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("?app=nobody", 404, "no_such_application"),
        ("?key=a", 400, "unknown_parameter"),
        ("?keys=" + ",".join(map(str, range(501))), 400, "bad_parameter"),
    ],
)
def test_an_invalid_request_for_descriptions_is_refused(
    shared_server: ServerProcess, query: str, status: int, code: str
) -> None:
    response = plain_http.get(f"{shared_server.url}/api/v1/admin/metric-keys{query}", headers=shared_server.headers)
    assert (response.status_code, response.json()["code"]) == (status, code)
