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


def described(server: ServerProcess, query: str = "") -> dict[str, dict[str, Any]]:
    """By key."""
    return {each["key"]: each for each in server.get(f"metric-keys{query}").json()}


def override(server: ServerProcess, slug: str, overrides: dict[str, Any]) -> None:
    """The vendor overrides metrics of an application."""
    path = f"{server.url}/api/v1/admin/applications/{slug}"
    plain_http.put(path, json={"overrides": overrides}, headers=server.headers).raise_for_status()


def test_each_key_has_a_label_kind_aggregate_unit_and_format(server: ServerProcess) -> None:
    Install(server.url).enroll(METRICS)
    asked = described(server, f"?app=ledger&keys={','.join(METRICS)},never_sent")
    found = {
        key: [one[name] for name in ("label", "kind", "aggregate", "unit", "format")] for key, one in asked.items()
    }
    assert found == {
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


def test_without_keys_the_answered_and_the_overridden_ones(server: ServerProcess) -> None:
    Install(server.url).enroll(METRICS)
    override(server, "ledger", {"tags": {"hidden": True}, "sent": {"label": "Letters", "aggregate": "max"}})
    found = described(server, "?app=Ledger")
    assert found.keys() == METRICS.keys() - {"x"}
    assert {key for key, one in found.items() if one["hidden"]} == {"tags"}
    assert (found["sent"]["label"], found["sent"]["aggregate"]) == ("Letters", "max")


def test_the_type_that_most_instances_send_gives_the_format(server: ServerProcess) -> None:
    for value in (1, "one", "two"):
        Install(server.url).enroll({"n": value})
    assert described(server, "?app=ledger")["n"]["format"] == "text"


def test_over_all_applications_they_must_agree(server: ServerProcess) -> None:
    for app in ("One", "Two"):
        Install(server.url, app_name=app).enroll({"a": 1, "b": 1, "only_shown": []})
    override(server, "one", {"a": {"label": "Apples", "aggregate": "max"}, "b": {"label": "Beans"}})
    assert described(server)["b"]["label"] == "B"
    override(server, "two", {"b": {"label": "Beans", "hidden": True}, "only_shown": {"hidden": True}})
    found = described(server, "?keys=a,b,only_shown")
    assert (found["a"]["label"], found["a"]["aggregate"]) == ("A", None)
    assert (found["b"]["label"], found["b"]["hidden"]) == ("Beans", False)
    assert found["only_shown"]["hidden"]


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("?app=nobody", 404, "no_such_application"),
        ("?key=a", 400, "unknown_parameter"),
        ("?keys=" + ",".join(map(str, range(501))), 400, "bad_parameter"),
    ],
)
def test_what_cannot_be_described_is_refused(shared_server: ServerProcess, query: str, status: int, code: str) -> None:
    response = plain_http.get(f"{shared_server.url}/api/v1/admin/metric-keys{query}", headers=shared_server.headers)
    assert (response.status_code, response.json()["code"]) == (status, code)
