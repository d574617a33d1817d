"""Lists of instances by any sort, and of their snapshots: a page follows the one before, whatever happens between."""

import json
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import plain_http
from tests.support.bulk_fleet import insert_fleet
from tests.support.databases import fresh_database
from tests.support.installs import Install
from tests.support.server_process import ServerProcess

VALUES: list[Any] = [
    *(0, 1, 1, -1, 2, 10, 2**70, 2**70 + 1, 1.5, -0.25, 1e-9, True, False, "", "a", "b", "B", "é", "𝄞", "1"),
    *("x" * 64, "x" * 65, None, [1], "a\u202e"),
]
VERSIONS = ["é", "1.4.2", "1.9", "1.10", "v1.10", "2.0-rc1", "2.0", "2.0-1"]  # in their order
TIMES = ["last_seen_at", "first_seen_at", "snapshot_at"]
FIELDS = [
    *("instance_id", "app_name", "app_slug", "app_version", "environment", "status", "deployment_mode", "os_arch"),
    *("counted", *TIMES),
]
SORTS = [*FIELDS, "metrics.v", "metrics.mail.sent", "metrics.nobody", None]
KIBIBYTE = "x" * 1_000


@dataclass(frozen=True)
class Fleet:
    """A server, and its instances as its list tells them."""

    server: ServerProcess
    items: list[dict[str, Any]]


@pytest.fixture(scope="module")
def fleet(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two applications, each status, and a metric that is of every sort."""
    chance = random.Random(7)
    with fresh_database(postgres) as dsn:
        server = ServerProcess(tmp_path_factory.mktemp("lists") / "data", {"SHM_DB_DSN": dsn})
        server.start()
        try:
            for number, value in enumerate([*VALUES, ...]):
                install = Install(
                    server.url,
                    app_name=chance.choice(["Ledger", "Café Board"]),
                    app_version=chance.choice(VERSIONS),
                    environment=chance.choice(["production", "ci"]),
                )
                metrics = {} if value is ... else {"v": value, "mail": {"sent": number % 3}}
                install.enroll(metrics, ago=timedelta(minutes=number % 5))
                if number % 6 == 0:
                    address = f"{server.url}/api/v1/admin/instances/{install.instance_id}/revoke"
                    plain_http.post(address, headers=server.headers).raise_for_status()
            for _ in range(3):
                Install(server.url).register()
            yield Fleet(server, decoded(server.get("instances?limit=1000")))
        finally:
            server.terminate()


filters = st.fixed_dictionaries(
    {},
    optional={
        "app": st.sampled_from(["ledger", "Ledger", "cafe-board", "Café Board", "nobody"]),
        "status": st.sampled_from(["pending", "active", "revoked"]),
        "version": st.sampled_from(VERSIONS),
        "environment": st.sampled_from(["production", "ci"]),
        "q": st.sampled_from(["a", "1.", "%", "CI"]),
    },
)


@settings(max_examples=150, deadline=None)
@given(
    sort=st.sampled_from(SORTS), order=st.sampled_from(["asc", "desc", None]), limit=st.integers(1, 40), wanted=filters
)
def test_the_pages_of_any_list_are_together_what_brute_force_sorts(
    fleet: Fleet, sort: str | None, order: str | None, limit: int, wanted: dict[str, str]
) -> None:
    asked = {"sort": sort, "order": order, "limit": limit, **wanted}
    told = [item["instance_id"] for page in pages(fleet.server, "instances", asked, limit) for item in page]
    kept = [item for item in fleet.items if is_wanted(item, wanted)]
    by = sort or "last_seen_at"
    descending = (order or ("desc" if by in TIMES or by.startswith("metrics.") else "asc")) == "desc"
    assert told == [item["instance_id"] for item in brute_force(kept, by, descending=descending)]


def brute_force(items: list[dict[str, Any]], by: str, *, descending: bool) -> list[dict[str, Any]]:
    """Numbers, then booleans, then texts, then what is missing; in each the values in order; equals by their ID."""
    groups: list[list[tuple[Any, str, dict[str, Any]]]] = [[], [], [], []]
    for item in items:
        value = leaf(item["metrics"], by) if by.startswith("metrics.") else item[by]
        if by == "app_version":
            value = f"{VERSIONS.index(value):02}"
        rank = 3
        if isinstance(value, bool):
            rank = 1
        elif isinstance(value, int | Decimal) or (by in TIMES and value is not None):
            rank = 0
        elif isinstance(value, str) and (len(value) <= 64 or not by.startswith("metrics.")):
            rank = 2
        groups[rank].append((value if rank < 3 else 0, item["instance_id"], item))
    return [row[2] for group in groups for row in sorted(group, key=lambda row: row[:2], reverse=descending)]


def leaf(metrics: Any, by: str) -> Any:
    """The metric of a sort."""
    for name in by.split(".")[1:]:
        metrics = metrics.get(name) if isinstance(metrics, dict) else None
    return metrics


def is_wanted(item: dict[str, Any], wanted: dict[str, str]) -> bool:
    """Whether an item is what the filters say."""
    part = wanted.get("q", "").lower()
    searched = [item[name].lower() for name in ("instance_id", "app_version", "environment", "deployment_mode")]
    return (
        wanted.get("app", item["app_slug"]) in (item["app_slug"], item["app_name"])
        and all(
            wanted.get(name, item[field]).removeprefix("v") == item[field].removeprefix("v")
            for name, field in (("status", "status"), ("version", "app_version"), ("environment", "environment"))
        )
        and any(part in text for text in searched)
    )


def decoded(response: httpx.Response) -> Any:
    """JSON, numbers with all their digits."""
    return json.loads(response.content, parse_float=Decimal)


def pages(server: ServerProcess, path: str, asked: dict[str, Any], limit: int) -> Iterator[list[dict[str, Any]]]:
    """Every page that the Link headers lead to."""
    params: dict[str, Any] | None = {name: value for name, value in asked.items() if value is not None}
    address: str | None = f"{server.url}/api/v1/admin/{path}"
    while address is not None:
        response = plain_http.get(address, params=params, headers=server.headers, timeout=30).raise_for_status()
        page = decoded(response)
        assert len(page) <= limit
        yield page
        following = response.links.get("next", {}).get("url")
        address, params = (None, None) if following is None else (server.url + following, None)
        assert page or address is None


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_changes_between_pages_repeat_and_hide_nothing_else(server: ServerProcess, order: str) -> None:
    """What changes between two pages neither repeats nor hides what does not."""
    installs = [Install(server.url).enroll({"n": number // 2}, ago=timedelta(hours=1)) for number in range(12)]
    others = {install.instance_id for install in installs[1:-1]}
    told: list[str] = []
    for page in pages(server, "instances", {"sort": "metrics.n", "order": order, "limit": 3}, 3):
        told += [item["instance_id"] for item in page]
        installs[0].snapshot({"n": len(told)})
        installs[-1].snapshot({"n": -len(told)})
        Install(server.url).enroll({"n": len(told) % 5})
    assert {instance_id: told.count(instance_id) for instance_id in others} == dict.fromkeys(others, 1)


def test_a_mark_of_another_sort_is_refused(fleet: Fleet) -> None:
    response = fleet.server.get("instances?sort=metrics.v&limit=1")
    following = fleet.server.url + response.links["next"]["url"]
    for other in (following.replace("metrics.v", "metrics.w"), following + "&order=asc", following[:-4]):
        refused = plain_http.get(other, headers=fleet.server.headers)
        assert (refused.status_code, refused.json()["code"]) == (400, "bad_after")


@pytest.mark.parametrize("query", ["sort=foo", "sort=status%0A", "sort=metrics.", "sort=", "order=up", "order="])
def test_a_sort_that_there_is_not_is_refused(shared_server: ServerProcess, query: str) -> None:
    response = plain_http.get(f"{shared_server.url}/api/v1/admin/instances?{query}", headers=shared_server.headers)
    assert (response.status_code, response.json()["code"]) == (400, "bad_parameter")


@pytest.mark.parametrize("sort", [None, "metrics.n"])
def test_a_page_of_large_instances_ends_before_its_limit(
    server: ServerProcess, database: str, sort: str | None
) -> None:
    """A page of large instances ends before its limit and the next goes on."""
    insert_fleet(database, 150, texts=60)
    found = list(pages(server, "instances", {"sort": sort, "limit": 1000}, 1000))
    assert len(found) > 1
    assert len({item["instance_id"] for page in found for item in page}) == sum(map(len, found)) == 150
    assert all(len(json.dumps(page)) < 6 * 2**20 for page in found)


def test_the_intake_goes_on_while_lists_are_sorted(serve: Callable[..., ServerProcess], database: str) -> None:
    insert_fleet(database, 30_000)
    server = serve(SHM_DB_POOL="3")
    ended = threading.Event()
    answers: list[int] = []

    def ask() -> None:
        with plain_http.Client(headers=server.headers, timeout=60) as client:
            while not ended.is_set():
                answers.append(client.get(f"{server.url}/api/v1/admin/instances?sort=metrics.n").status_code)

    askers = [threading.Thread(target=ask) for _ in range(8)]
    for asker in askers:
        asker.start()
    try:
        for _ in range(10):
            Install(server.url).enroll({"n": 1})
    finally:
        ended.set()
        for asker in askers:
            asker.join()
    assert set(answers) == {200}


def test_snapshots_of_an_instance_come_newest_first_as_sent(server: ServerProcess) -> None:
    """The snapshots of an instance are told newest first as they were sent."""
    install = Install(server.url).enroll({"n": 0}, ago=timedelta(hours=9))
    for hours in range(1, 9):
        body = install.snapshot_body({"n": "N"}, datetime.now(UTC) - timedelta(hours=hours), app_version=f"2.{hours}")
        body = body.replace(b'"N"', b"%d.50" % hours)
        assert install.post("/v1/snapshot", body, install.signed(body)).status_code == 202
    path = f"instances/{install.instance_id}/snapshots"
    told = [sent for page in pages(server, path, {"limit": 2}, 2) for sent in page]
    assert [str(sent["metrics"]["n"]) for sent in told] == [*(f"{hours}.50" for hours in range(1, 9)), "0"]
    assert [sent["app_version"] for sent in told] == [*(f"2.{hours}" for hours in range(1, 9)), "1.4.2"]
    assert [*told[0]] == ["snapshot_at", "received_at", "app_version", "metrics"]
    assert told == decoded(server.get(path))


def test_a_page_of_large_snapshots_ends_before_its_limit(server: ServerProcess) -> None:
    """A page of large snapshots ends before its limit and the next goes on."""
    metrics = {f"t{number}": KIBIBYTE for number in range(60)}
    install = Install(server.url).enroll(metrics)
    for minutes in range(1, 80):
        assert install.snapshot(metrics, datetime.now(UTC) - timedelta(minutes=minutes)).status_code == 202
    found = list(pages(server, f"instances/{install.instance_id}/snapshots", {"limit": 1000}, 1000))
    assert len(found) > 1
    assert sum(map(len, found)) == 80


def test_snapshots_of_nobody_are_not_found_and_a_pending_instance_has_none(server: ServerProcess) -> None:
    install = Install(server.url)
    address = f"{server.url}/api/v1/admin/instances/{install.instance_id}/snapshots"
    assert plain_http.get(address, headers=server.headers).json()["code"] == "no_such_instance"
    install.register()
    assert plain_http.get(address, headers=server.headers).json() == []
    for after in ("x", "", "2026-11-24", "0001-01-01T00:00:00%2B23:59"):
        response = plain_http.get(f"{address}?after={after}", headers=server.headers)
        assert (response.status_code, response.json()["code"]) == (400, "bad_after")
