"""Scripts written for the original server: its parameters keep its leniency, and all other parameters are strict."""

from collections.abc import Iterator

import httpx
import pytest

from tests.support import plain_http
from tests.support.installs import Install
from tests.support.module_server import module_server
from tests.support.server_process import ServerProcess

COUNT = 5


@pytest.fixture(scope="module")
def server(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with five installs."""
    with module_server(postgres, tmp_path_factory.mktemp("original")) as (server, _):
        for number in range(COUNT):
            Install(server.url).enroll({"n": number, "version": number, "": number + 1})
        yield server


def get(server: ServerProcess, path: str) -> httpx.Response:
    """A request below the admin API."""
    return plain_http.get(f"{server.url}/api/v1/admin/{path}", headers=server.headers)


@pytest.mark.parametrize("sort", ["", "&sort=metrics.n", "&sort=metrics.n&order=asc"])
def test_offset_skips_rows_and_the_link_continues(server: ServerProcess, sort: str) -> None:
    whole = [item["instance_id"] for item in get(server, f"instances?{sort}").json()]
    page = get(server, f"instances?limit=2&offset=1{sort}")
    assert [item["instance_id"] for item in page.json()] == whole[1:3]
    link = page.links["next"]["url"]
    assert "offset" not in link
    following = plain_http.get(page.url.join(link), headers=server.headers)
    assert [item["instance_id"] for item in following.json()] == whole[3:5]
    assert get(server, f"instances?offset={COUNT}{sort}").json() == []


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("limit=0", COUNT),
        ("limit=-3", COUNT),
        ("limit=x", COUNT),
        ("limit=5000", COUNT),
        ("limit=99999999999999999999", COUNT),
        ("limit=2&limit=3", 2),
        ("offset=x", COUNT),
        ("offset=-1", COUNT),
        ("offset=1&offset=4", COUNT - 1),
    ],
)
def test_a_limit_or_offset_out_of_range_is_no_error(server: ServerProcess, query: str, count: int) -> None:
    assert len(get(server, f"instances?{query}").json()) == count


def test_an_empty_application_is_none(server: ServerProcess) -> None:
    """A script that leaves a variable empty gets all instances, as from the original."""
    everything = get(server, "instances?limit=1000").json()
    assert get(server, "instances?app=&q=&limit=1000").json() == everything
    assert get(server, "instances?app=ledger&app=other&limit=1000").json() == everything
    assert get(server, "instances?app=other").json() == []


def test_an_unknown_period_is_the_default(server: ServerProcess) -> None:
    for query in ("period=2d", "period=", "period=x&period=7d"):
        assert get(server, f"metrics/ledger?{query}").json()["period"] == "24h"
    assert get(server, "applications/ledger/versions?period=2d").status_code == 400


@pytest.mark.parametrize(
    "path", ["stats", "applications", "applications/ledger", "instances", "metrics/ledger", "instances/{id}"]
)
def test_a_slash_at_the_end_changes_nothing(server: ServerProcess, path: str) -> None:
    path = path.format(id=get(server, "instances").json()[0]["instance_id"])
    with_slash, without = get(server, f"{path}/"), get(server, path)
    assert with_slash.status_code == 200
    assert list(with_slash.json()) == list(without.json())


@pytest.mark.parametrize(
    "path",
    [
        "stats?x=1",
        "instances?state=active",
        "metrics/ledger?key=n",
        "metric-keys?key=n",
        "applications/ledger?x=1",
        "applications/ledger/kpis?count=true",
        "applications?offset=1",
        "tokens?offset=1",
        "export?limit=1",
        "../healthcheck?x=1",
        "../ready?x=1",
        "../../openapi.json?x=1",
    ],
)
def test_an_unknown_parameter_is_refused_on_every_path(server: ServerProcess, path: str) -> None:
    response = get(server, path)
    assert (response.status_code, response.json()["code"]) == (400, "unknown_parameter")


def test_repeated_keys_are_united_and_unknown_ones_are_reported(server: ServerProcess) -> None:
    chart = get(server, "metrics/ledger?keys=n&keys=version,misspelt&keys=").json()
    assert chart["metrics"].keys() == {"n", "version", ""}
    assert chart["unknown_keys"] == ["misspelt"]
    described = get(server, "metric-keys?keys=n&keys=version").json()
    assert {description["key"] for description in described} == {"n", "version"}
