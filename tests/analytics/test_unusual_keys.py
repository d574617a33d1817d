"""Metrics called like columns, fields of answers or nothing at all are metrics like all others."""

import asyncio
import csv
import io
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from shm_client import Client
from shm_client.figures import MetricSeries
from shm_client.model import MetricKey
from tests.support.installs import Install
from tests.support.module_server import module_server
from tests.support.parameters import long_after
from tests.support.server_process import ServerProcess

CONTROL = "a\u0001\tb"  # Tornado's methods replace control characters of a query
NUMBERS = (
    CONTROL,
    "",
    "version",
    '"a,"b""',
    "environment",
    "total",
    "instances",
    "constructor",
    "__proto__",
    "metrics.n",
    "head",
    "rest",
    '"a>b"',
    "a,b",
)
TEXTS = ("os_arch", "deployment_mode", "by", "strings")
VALUES = (5, 1, 9)


@pytest.fixture(scope="module")
def server(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with three installs whose unusual metrics have the numbers above."""
    with module_server(postgres, tmp_path_factory.mktemp("unusual")) as (server, _):
        for value in VALUES:
            metrics = {**dict.fromkeys(NUMBERS, value), **dict.fromkeys(TEXTS, f"text {value}")}
            Install(server.url).enroll(metrics)
        yield server


@pytest.mark.parametrize("key", long_after(4, NUMBERS))
def test_a_number_is_a_kpi_a_series_a_column_and_an_order(server: ServerProcess, key: str) -> None:
    quoted = quote(key, safe="")
    doubled = quoted.replace("%22", "%22%22")
    listed = f"%22{doubled}%22" if "," in key else quoted
    kpis = {kpi["key"]: kpi for kpi in server.get("applications/ledger/kpis").json()["kpis"]}
    assert (kpis[key]["value"], kpis[key]["instances"], kpis[key]["max"]) == (15, 3, 9)
    for query in (f"?keys={listed}", f"?keys=x,{listed},,{listed}", ""):
        assert server.get(f"metrics/ledger{query}").json()["metrics"][key][-1] == 15
    assert server.get(f"metrics/ledger?keys={listed}").json()["unknown_keys"] == []
    (described,) = server.get(f"metric-keys?app=ledger&keys={listed}").json()
    assert (described["key"], described["aggregate"]) == (key, "sum")
    assert server.get("stats").json()["global_metrics"][key] == 15
    for order, values in (("asc", sorted(VALUES)), ("desc", sorted(VALUES, reverse=True))):
        items: list[int] = []
        after = ""
        while True:
            page = server.get(f"instances?sort=metrics.{quoted}&order={order}&limit=2{after}")
            items += [item["metrics"][key] for item in page.json()]
            if "next" not in page.links:
                break
            after = "&" + page.links["next"]["url"].rpartition("&")[2]
        assert items == values
    for condition, instances in (("%3E4", 2), ("=5", 1), ("%3E9", 0)):
        counted = server.get(f"instances/count?where=metrics.%22{doubled}%22{condition}").json()
        assert counted == {"instances": instances}
    rows = list(csv.DictReader(io.StringIO(server.get("export?app=ledger").text)))
    assert sorted(int(row[f"metrics.{key}"]) for row in rows) == sorted(VALUES)
    by_environment = server.get(f"applications/ledger/breakdown?by=environment&metric={quoted}").json()
    assert [(group["value"], group["metric"]) for group in by_environment["values"]] == [("production", 15)]
    assert by_environment["unknown_keys"] == []


@pytest.mark.parametrize("key", TEXTS)
def test_a_text_is_a_category_and_has_a_breakdown(server: ServerProcess, key: str) -> None:
    categories = {each["key"]: each for each in server.get("applications/ledger/kpis").json()["categories"]}
    assert [value["value"] for value in categories[key]["values"]] == ["text 1", "text 5", "text 9"]
    groups = server.get(f"applications/ledger/breakdown?by=metrics.{key}").json()["values"]
    assert {group["value"]: group["instances"] for group in groups} == {f"text {value}": 1 for value in VALUES}


def test_a_column_and_the_metric_of_its_name_are_told_apart(server: ServerProcess) -> None:
    by_column = server.get("applications/ledger/breakdown?by=os_arch").json()["values"]
    assert [group["value"] for group in by_column] == ["linux/amd64"]
    by_text = server.get("applications/ledger/breakdown?by=metrics.os_arch&metric=version").json()["values"]
    assert [group["metric"] for group in by_text] == [1, 5, 9]


def test_a_flag_without_a_name_has_a_series_and_a_breakdown(server: ServerProcess) -> None:
    Install(server.url, app_name="Flags").enroll({"": True, "version": False})
    chart = server.get("metrics/flags?keys=,version").json()
    assert {key: flag["true"][-1] for key, flag in chart["flags"].items()} == {"": 1, "version": 0}
    for by in ("", "metrics."):
        (group,) = server.get(f"applications/flags/breakdown?by={by}").json()["values"]
        assert (group["value"], group["instances"]) == ("true", 1)


def test_the_client_requests_any_key(server: ServerProcess) -> None:
    async def read() -> tuple[MetricSeries, list[MetricKey]]:
        async with Client(server.url, server.admin_token) as client:
            return await client.series("ledger", "24h", NUMBERS), await client.metric_keys("ledger", NUMBERS)

    series, described = asyncio.run(read())
    assert (set(series.metrics), series.unknown_keys) == (set(NUMBERS), [])
    assert {each.key for each in described} == set(NUMBERS)


async def test_the_client_requests_keys_with_an_open_quote_beside_others(server: ServerProcess) -> None:
    """In one list, the server would read the first three keys as one."""
    keys = ['"a', "b", 'c"', "d,e", '"f"', ""]
    Install(server.url, app_name="Quotes").enroll(dict.fromkeys(keys, 1))
    async with Client(server.url, server.admin_token) as client:
        described = await client.metric_keys("quotes", keys)
        series = await client.series("quotes", "24h", keys)
        alone = await client.series("quotes", "24h", ['"a'])
    assert sorted(each.key for each in described) == sorted(keys)
    assert (sorted(series.metrics), list(alone.metrics)) == (sorted(keys), ['"a'])
