"""A hidden metric is hidden in every answer, and overrides are merged by key."""

import csv
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import msgspec
import pytest

from shm.analytics.hidden_metrics import remove_hidden
from tests.support import plain_http
from tests.support.installs import Install
from tests.support.module_server import module_server
from tests.support.server_process import ServerProcess
from tests.support.subscriber import subscribe

SECRET = "payroll.sum"


@pytest.fixture(scope="module")
def server(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose application Ledger hides a number, a string and a list, which Kiosk shows."""
    with module_server(postgres, tmp_path_factory.mktemp("hidden")) as (server, _):
        metrics = {"sent": 1.50, "payroll": {"sum": 700, "shown": 8}, "owner": "Ada", "tags": ["x"]}
        for app_name in ("Ledger", "Kiosk"):
            Install(server.url, app_name=app_name).enroll(metrics)
        put(server, "ledger", {key: {"hidden": True} for key in (SECRET, "owner", "tags")}).raise_for_status()
        yield server


def put(server: ServerProcess, slug: str, overrides: dict[str, Any]) -> httpx.Response:
    """Changes overrides of an application."""
    path = f"{server.url}/api/v1/admin/applications/{slug}"
    return plain_http.put(path, json={"overrides": overrides}, headers=server.headers)


VISIBLE = {"sent": 1.50, "payroll": {"shown": 8}}


def test_lists_details_and_json_lines_lack_hidden_metrics(server: ServerProcess) -> None:
    (item,) = server.get("instances?app=ledger").json()
    assert item["metrics"] == VISIBLE
    assert server.get(f"instances/{item['instance_id']}").json()["metrics"] == VISIBLE
    (line,) = server.get("export?app=ledger&format=jsonl").text.splitlines()
    assert json.loads(line)["metrics"] == VISIBLE
    shown = {each["app_slug"]: each["metrics"] for each in server.get("instances").json()}
    assert shown["ledger"] == VISIBLE
    assert shown["kiosk"]["owner"] == "Ada"


def test_the_history_of_an_instance_is_as_it_was_sent(server: ServerProcess) -> None:
    (item,) = server.get("instances?app=ledger").json()
    (snapshot,) = server.get(f"instances/{item['instance_id']}/snapshots").json()
    assert snapshot["metrics"]["owner"] == "Ada"


def test_csv_has_no_column_for_a_metric_that_every_application_hides(server: ServerProcess) -> None:
    response = server.get("export?app=ledger")
    (row,) = csv.DictReader(io.StringIO(response.text))
    assert {name for name in row if name.startswith("metrics.")} == {"metrics.sent", "metrics.payroll.shown"}
    assert response.headers["X-Metrics-Left-Out"] == "0"
    rows = {row["app_slug"]: row for row in csv.DictReader(io.StringIO(server.get("export").text))}
    assert (rows["kiosk"][f"metrics.{SECRET}"], rows["ledger"][f"metrics.{SECRET}"]) == ("700", "")
    assert (rows["kiosk"]["metrics.owner"], rows["ledger"]["metrics.owner"]) == ("Ada", "")


def test_a_list_sorted_by_a_hidden_metric_has_it_missing(server: ServerProcess) -> None:
    Install(server.url, app_name="Sorted").enroll({"secret": 1})
    Install(server.url, app_name="Sorted").enroll({"secret": 9})
    put(server, "sorted", {"secret": {"hidden": True}}).raise_for_status()
    ids = [item["instance_id"] for item in server.get("instances?app=sorted&sort=metrics.secret").json()]
    assert ids == sorted(ids, reverse=True)


def test_kpis_charts_and_stats_lack_hidden_metrics(server: ServerProcess) -> None:
    kpis = server.get("applications/ledger/kpis").json()
    assert [kpi["key"] for kpi in kpis["kpis"]] == ["payroll.shown", "sent"]
    assert kpis["categories"] == []
    chart = server.get(f"metrics/ledger?keys=sent,{SECRET}").json()
    assert (list(chart["metrics"]), chart["unknown_keys"]) == (["sent"], [SECRET])
    assert server.get("stats").json()["global_metrics"][SECRET] == 700


def test_a_breakdown_by_or_of_a_hidden_metric_has_no_value(server: ServerProcess) -> None:
    by_owner = server.get("applications/ledger/breakdown?by=owner").json()
    assert (by_owner["values"], by_owner["rest"], by_owner["unknown_keys"]) == ([], None, ["owner"])
    by_version = server.get(f"applications/ledger/breakdown?by=version&metric={SECRET}").json()
    assert [(value["metric"], value["answered"]) for value in by_version["values"]] == [(None, 0)]
    assert by_version["unknown_keys"] == [SECRET]
    assert [value["value"] for value in server.get("applications/kiosk/breakdown?by=owner").json()["values"]] == ["Ada"]


async def test_the_feed_sends_no_hidden_metric(server: ServerProcess) -> None:
    async with subscribe(server, "?app=ledger&since=0") as subscriber:
        await subscriber.until("kpis")
        assert [instance["metrics"] for instance in subscriber.instances.values()] == [VISIBLE]


def test_overrides_are_merged_by_key(server: ServerProcess) -> None:
    Install(server.url, app_name="Merged").enroll({"a": 1, "b": 1, "c": [1], "": 1})
    put(server, "merged", {"a": {"label": "Apples"}, "b": {"unit": "EUR"}, "": {"label": "Empty"}})
    answer = put(server, "merged", {"a": {"unit": "kg"}}).json()
    assert answer["overrides"] == {"a": {"unit": "kg"}, "b": {"unit": "EUR"}, "": {"label": "Empty"}}
    answer = put(server, "merged", {"b": None, "": None, "never_set": None, "c": {"hidden": True}}).json()
    assert answer["overrides"] == {"a": {"unit": "kg"}, "c": {"hidden": True}}
    assert answer["unknown_keys"] == []
    assert put(server, "merged", {}).json()["overrides"] == answer["overrides"]


def test_concurrent_changes_of_different_keys_lose_nothing(server: ServerProcess) -> None:
    Install(server.url, app_name="Busy").enroll({"n": 1})
    keys = [f"k{number}" for number in range(24)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda key: put(server, "busy", {key: {"label": key.upper()}}), keys))
        assert {answer.status_code for answer in answers} == {200}
        removed = list(threads.map(lambda key: put(server, "busy", {key: None, f"{key}b": {"unit": key}}), keys))
        assert {answer.status_code for answer in removed} == {200}
    stored = server.get("applications/busy").json()["overrides"]
    assert stored == {f"{key}b": {"unit": key} for key in keys}


def test_an_override_without_values_is_that_of_the_words(server: ServerProcess) -> None:
    """It is stored, so its key keeps its place, and changes no figure."""
    Install(server.url, app_name="Empty").enroll({"cpu_percent": 1, "secret": 1})
    before = server.get("applications/empty/kpis").json()["kpis"]
    for empty in ({}, {"hidden": False}, {"label": None, "kind": None}):
        answer = put(server, "empty", {"cpu_percent": empty}).json()
        assert (answer["overrides"], answer["unknown_keys"]) == ({"cpu_percent": {}}, [])
        assert server.get("applications/empty/kpis").json()["kpis"] == before
    for _ in range(2):
        assert put(server, "empty", {"secret": {"hidden": True}}).json()["overrides"]["secret"] == {"hidden": True}
    assert [kpi["key"] for kpi in server.get("applications/empty/kpis").json()["kpis"]] == ["cpu_percent"]
    assert put(server, "empty", {"secret": {}}).status_code == 200
    assert server.get("applications/empty/kpis").json()["kpis"] == before


@pytest.mark.parametrize(
    "override",
    [[], "", True, {"hidden": None}, {"label": ""}, {"label": "x" * 65}, {"aggregate": "p95"}, {"kind": ""}, {"x": 1}],
)
def test_an_invalid_override_changes_nothing(server: ServerProcess, override: object) -> None:
    before = server.get("applications/ledger").json()
    path = f"{server.url}/api/v1/admin/applications/ledger"
    body = {"overrides": {"sent": {"label": "x"}, "owner": override}, "github_url": "https://example.com"}
    refused = plain_http.put(path, json=body, headers=server.headers)
    assert (refused.status_code, refused.json()["code"]) == (400, "bad_field")
    assert server.get("applications/ledger").json() == before


def test_a_public_metric_is_listed_once_and_the_longest_keys_can_be_set(server: ServerProcess) -> None:
    Install(server.url, app_name="Long").enroll({"n": 1})
    path = f"{server.url}/api/v1/admin/applications/long"
    longest = "k" * 512
    body = {"public_metrics": ["n", longest, "n"], "overrides": {longest: {"label": "x"}}}
    answer = plain_http.put(path, json=body, headers=server.headers).json()
    assert (answer["public_metrics"], answer["unknown_keys"]) == (["n", longest], [longest])
    refused = plain_http.put(path, json={"public_metrics": [longest + "k"]}, headers=server.headers)
    assert (refused.status_code, refused.json()["code"]) == (400, "bad_field")


def test_an_override_of_a_key_that_no_install_sends_is_reported(server: ServerProcess) -> None:
    Install(server.url, app_name="Told").enroll({"mail": {"sent": 3, "lists": [1]}})
    overrides = {key: {"label": "x"} for key in ("mail.sent", "mail.lists", "mail", "mail.snet")}
    assert put(server, "told", overrides).json()["unknown_keys"] == ["mail", "mail.snet"]
    assert server.get("applications/told").json()["unknown_keys"] == ["mail", "mail.snet"]
    assert put(server, "told", {"mail": None, "mail.snet": None}).json()["unknown_keys"] == []


def test_an_application_has_at_most_500_overrides(server: ServerProcess) -> None:
    Install(server.url, app_name="Many").enroll()
    assert put(server, "many", {f"k{number}": {} for number in range(500)}).status_code == 200
    refused = put(server, "many", {"one_more": {}})
    assert (refused.status_code, refused.json()["code"]) == (400, "too_many_overrides")
    assert put(server, "many", {"one_more": {}, "k0": None}).status_code == 200
    assert put(server, "nobody", {"a": {}}).json()["code"] == "no_such_application"


@pytest.mark.parametrize(
    ("metrics", "hidden", "visible"),
    [
        (b'{"a": 1.50, "b": {"c": 1e5}}', {"a"}, b'{"b":{"c": 1e5}}'),
        (b'{"a": {"b": {"c": 1, "d": 2}}}', {"a.b.c"}, b'{"a":{"b":{"d":2}}}'),
        (b'{"a.b": 1, "a": {"b": 2, "c": 3}}', {"a.b"}, b'{"a":{"c":3}}'),
        (b'{"": 1, "x": {"": 2}}', {"", "x."}, b'{"x":{}}'),
        (b'{"a": {"b": 1}}', {"a"}, b'{"a":{"b": 1}}'),
        (b'{"constructor": 1, "version": 2}', {"version"}, b'{"constructor":1}'),
    ],
)
def test_hidden_keys_are_removed_and_all_other_digits_stay(metrics: bytes, hidden: set[str], visible: bytes) -> None:
    assert bytes(remove_hidden(msgspec.Raw(metrics), hidden)) == visible
