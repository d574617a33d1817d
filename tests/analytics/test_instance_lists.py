"""Pages of instances in any order, and of their snapshots, also with changes between two pages."""

import json
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shm.analytics.instance_fields import TIME_COLUMNS
from shm.analytics.sorting import SORT_COLUMNS
from shm.db.conditions import NO_CONDITIONS
from shm.db.statements import PARAMETER, statements
from tests.support import plain_http
from tests.support.brute_force_sort import brute_force_sort
from tests.support.bulk_fleet import insert_fleet, insert_metrics
from tests.support.databases import admin_cursor, execute
from tests.support.installs import Install
from tests.support.module_server import module_server
from tests.support.parameters import long_after
from tests.support.server_process import ServerProcess

pytestmark = pytest.mark.cluster

VALUES: list[Any] = [
    *(0, 1, 1, -1, 2, 10, 2**70, 2**70 + 1, 1.5, -0.25, 1e-9, True, False, "", "a", "b", "B", "é", "𝄞", "1"),
    *("x" * 64, "x" * 65, None, [1], "a\u202e"),
]
VERSIONS = ["é", "1.4.2", "1.9", "1.10", "v1.10", "2.0-rc1", "2.0", "2.0-1"]  # in their order
SORTS = [*SORT_COLUMNS, "metrics.v", "metrics.mail.sent", "metrics.nobody", None]
KIBIBYTE = "x" * 1_000
LARGE_FLEET = 8_000


@dataclass(frozen=True)
class Fleet:
    """A server, and the instances in its list."""

    server: ServerProcess
    items: list[dict[str, Any]]


@pytest.fixture(scope="module")
def fleet(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Instances of two applications in each status, with a metric that has values of every type."""
    rng = random.Random(7)
    with module_server(postgres, tmp_path_factory.mktemp("lists")) as (server, _):
        for number, value in enumerate([*VALUES, ...]):
            install = Install(
                server.url,
                app_name=rng.choice(["Ledger", "Café Board"]),
                app_version=rng.choice([*VERSIONS, ""]),
                environment=rng.choice(["production", "ci", ""]),
            )
            metrics = {} if value is ... else {"v": value, "mail": {"sent": number % 3}}
            install.enroll(metrics, ago=timedelta(minutes=number % 5))
            if number % 6 == 0:
                address = f"{server.url}/api/v1/admin/instances/{install.instance_id}/revoke"
                plain_http.post(address, headers=server.headers).raise_for_status()
        for _ in range(3):
            Install(server.url).register()
        yield Fleet(server, decode_json(server.get("instances?limit=1000")))


filter_sets = st.fixed_dictionaries(
    {},
    optional={
        "app": st.sampled_from(["ledger", "Ledger", "cafe-board", "Café Board", "nobody"]),
        "status": st.sampled_from(["pending", "active", "revoked"]),
        "version": st.sampled_from(VERSIONS),
        "environment": st.sampled_from(["production", "ci"]),
        "q": st.sampled_from(["a", "1.", "%", "CI"]),
    },
)


@pytest.mark.parametrize(
    "max_examples", [pytest.param(12, id="short"), pytest.param(1_000, id="long", marks=pytest.mark.long)]
)
def test_all_pages_of_a_list_equal_a_brute_force_sort(fleet: Fleet, max_examples: int) -> None:
    @settings(max_examples=max_examples)
    @given(
        sort=st.sampled_from(SORTS),
        order=st.sampled_from(["asc", "desc", None]),
        limit=st.integers(1, 40),
        filters=filter_sets,
    )
    def check(sort: str | None, order: str | None, limit: int, filters: dict[str, str]) -> None:
        parameters = {"sort": sort, "order": order, "limit": limit, **filters}
        listed = pages(fleet.server, "instances", parameters, limit)
        received = [item["instance_id"] for page in listed for item in page]
        matching = [item for item in fleet.items if matches_filters(item, filters)]
        by = sort or "last_seen_at"
        descending = (order or ("desc" if by in TIME_COLUMNS or by.startswith("metrics.") else "asc")) == "desc"
        assert received == [
            item["instance_id"] for item in brute_force_sort(matching, by, VERSIONS, descending=descending)
        ]

    check()


def matches_filters(item: dict[str, Any], filters: dict[str, str]) -> bool:
    """Whether an item matches the filters."""
    part = filters.get("q", "").lower()
    searched = [item[name].lower() for name in ("instance_id", "app_version", "environment", "deployment_mode")]
    return (
        filters.get("app", item["app_slug"]) in (item["app_slug"], item["app_name"])
        and all(
            filters.get(name, item[field]).removeprefix("v") == item[field].removeprefix("v")
            for name, field in (("status", "status"), ("version", "app_version"), ("environment", "environment"))
        )
        and any(part in text for text in searched)
    )


def decode_json(response: httpx.Response) -> Any:
    """The JSON body, with all digits of its numbers."""
    return json.loads(response.content, parse_float=Decimal)


def pages(
    server: ServerProcess, path: str, parameters: dict[str, Any], limit: int, relation: str = "next"
) -> Iterator[list[dict[str, Any]]]:
    """Follows the Link headers and yields every page."""
    params: dict[str, Any] | None = {name: value for name, value in parameters.items() if value is not None}
    address: str | None = f"{server.url}/api/v1/admin/{path}"
    while address is not None:
        response = plain_http.get(address, params=params, headers=server.headers).raise_for_status()
        page = decode_json(response)
        assert len(page) <= limit
        yield page
        next_link = response.links.get(relation, {}).get("url")
        address, params = (None, None) if next_link is None else (str(response.url.join(next_link)), None)
        assert page or address is None


@pytest.mark.parametrize(
    "max_examples", [pytest.param(12, id="short"), pytest.param(1_000, id="long", marks=pytest.mark.long)]
)
def test_pages_backwards_and_around_equal_the_whole_list(fleet: Fleet, max_examples: int) -> None:
    everything = {"limit": 1000}

    @settings(max_examples=max_examples)
    @given(
        sort=st.sampled_from(SORTS),
        order=st.sampled_from(["asc", "desc", None]),
        limit=st.integers(1, 40),
        number=st.integers(0, 100),
        filters=filter_sets,
    )
    def check(sort: str | None, order: str | None, limit: int, number: int, filters: dict[str, str]) -> None:
        parameters = {"sort": sort, "order": order, **filters}
        (whole,) = pages(fleet.server, "instances", parameters | everything, 1000)
        ids = [item["instance_id"] for item in whole]
        listed = pages(fleet.server, "instances", parameters | {"limit": limit, "before": "end"}, limit, "prev")
        backwards = [[item["instance_id"] for item in page] for page in listed]
        assert [instance_id for page in reversed(backwards) for instance_id in page] == ids
        anchor = fleet.items[number % len(fleet.items)]["instance_id"]
        address = f"{fleet.server.url}/api/v1/admin/instances"
        params = {name: value for name, value in (parameters | {"limit": limit, "around": anchor}).items() if value}
        response = plain_http.get(address, params=params, headers=fleet.server.headers).raise_for_status()
        page = [item["instance_id"] for item in response.json()]
        first = int(response.headers["X-Rows-Before"])
        assert page == ids[first : first + len(page)]
        if anchor in ids:
            assert len(page) >= min(limit, len(ids) - first)
            assert page.index(anchor) == min(limit // 2, ids.index(anchor))
        assert ("prev" in response.links) is (bool(page) and first > 0)
        assert ("next" in response.links) is (first + len(page) < len(ids) and bool(page))
        for relation, expected in (("prev", ids[:first][-limit:]), ("next", ids[first + len(page) :][:limit])):
            if relation in response.links:
                link = str(response.url.join(response.links[relation]["url"]))
                neighbours = plain_http.get(link, headers=fleet.server.headers).raise_for_status().json()
                assert [item["instance_id"] for item in neighbours] == expected

    check()


@pytest.fixture(scope="module")
def large_fleet(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Enough instances for samples of their pages. Most values of `v` are numbers, few of `w`."""
    rng = random.Random(11)
    few_numbers = [value for value in VALUES if type(value) in (int, float)]
    others = [value for value in VALUES if type(value) not in (int, float) and value != "x" * 65]
    numbers = [*few_numbers, 1e300, -1e300, 5e-324, 0.0, -0.0, *range(-300, 300)]
    metrics = [
        {"v": rng.choice(numbers if rng.random() < 0.9 else others)} | ({"w": rng.choice(others)} if odd else {})
        for odd in [False, True] * (LARGE_FLEET // 2)
    ]
    metrics[: len(few_numbers)] = [{"w": number} for number in few_numbers]
    with module_server(postgres, tmp_path_factory.mktemp("large_lists")) as (server, database):
        insert_metrics(database, metrics)
        listed = pages(server, "instances", {"limit": 1000}, 1000)
        yield Fleet(server, [item for page in listed for item in page])


@pytest.mark.parametrize("metric", ["v", "w"])
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_of_a_large_fleet_equal_a_brute_force_sort(large_fleet: Fleet, metric: str, order: str) -> None:
    """A sample of the instances bounds the page that the whole fleet is searched for."""
    limit, sort = 7, f"metrics.{metric}"
    ids = [item["instance_id"] for item in brute_force_sort(large_fleet.items, sort, descending=order == "desc")]
    assert len(ids) == LARGE_FLEET
    parameters = {"sort": sort, "order": order, "limit": limit}

    def first_ids(relation: str, **place: object) -> list[str]:
        listed = pages(large_fleet.server, "instances", parameters | place, limit, relation)
        return [
            item["instance_id"] for page in islice(listed, 3) for item in (page if relation == "next" else page[::-1])
        ]

    assert first_ids("next") == ids[: 3 * limit]
    assert first_ids("next", offset=40)[:limit] == ids[40 : 40 + limit]
    assert first_ids("prev", before="end") == ids[: -3 * limit - 1 : -1]
    for position in range(limit, LARGE_FLEET - 4 * limit, LARGE_FLEET // 6):
        begin = position - limit // 2
        following = first_ids("next", around=ids[position])
        assert following == ids[begin : begin + 3 * limit]
        assert first_ids("prev", around=ids[position])[limit:] == ids[begin - 1 :: -1][: 2 * limit]


EXPLAIN_BOUND = "EXPLAIN (ANALYZE, FORMAT JSON) " + statements()["lists.select_descending_bound"].sql
PAGE = {"limit": 7, "offset": 0, "column": "metrics.n", "metric": "n", "direction": -1, "hiding_apps": []}


@pytest.mark.parametrize(("slug", "is_sampled"), [("small", False), ("large", True), (None, True)])
def test_a_small_application_in_a_large_fleet_is_not_sampled(database: str, slug: str | None, is_sampled: bool) -> None:
    insert_metrics(database, [{"n": number} for number in range(LARGE_FLEET)])
    execute(database, SPLIT_FLEET)
    parameters = dict.fromkeys(PARAMETER.findall(EXPLAIN_BOUND)) | PAGE | {"conditions": NO_CONDITIONS, "slug": slug}
    with admin_cursor(database) as cursor:
        sampled = 0
        for _ in range(30):  # many samples have no page
            cursor.execute(EXPLAIN_BOUND, parameters | {"has_others": True})
            (((plan,),),) = cursor.fetchall()
            sampled += sum(rows_sampled(plan["Plan"]))
    assert (sampled > 0) is is_sampled


SPLIT_FLEET = """
    UPDATE instances SET app_slug = CASE WHEN cursor % 100 = 0 THEN 'small' ELSE 'large' END;
    INSERT INTO tallies
    SELECT app_slug, 'status', 'active', '0', 0, count(*), 0, count(*) FROM instances GROUP BY app_slug;
    ANALYZE instances;
"""


def rows_sampled(plan: dict[str, Any]) -> Iterator[int]:
    """The number of rows that each scan of a sample read."""
    if plan["Node Type"] == "Sample Scan":
        yield round(plan["Actual Rows"]) + plan.get("Rows Removed by Filter", 0)
    for part in plan.get("Plans", []):
        yield from rows_sampled(part)


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("around=00000000-0000-4000-8000-000000000000", 404, "no_such_instance"),
        ("around=x", 400, "bad_parameter"),
        ("before=x", 400, "bad_after"),
        ("before=end&after=x", 400, "bad_parameter"),
        ("before=end&offset=1", 400, "bad_parameter"),
    ],
)
def test_an_unknown_place_is_refused(shared_server: ServerProcess, query: str, status: int, code: str) -> None:
    response = plain_http.get(f"{shared_server.url}/api/v1/admin/instances?{query}", headers=shared_server.headers)
    assert (response.status_code, response.json()["code"]) == (status, code)


@pytest.mark.parametrize("order", long_after(1, ["asc", "desc"]))
def test_changes_between_pages_repeat_and_hide_nothing_else(server: ServerProcess, order: str) -> None:
    """Instances that do not change between two pages appear exactly once."""
    installs = [Install(server.url).enroll({"n": number // 2}, ago=timedelta(hours=1)) for number in range(12)]
    others = {install.instance_id for install in installs[1:-1]}
    received: list[str] = []
    for page in pages(server, "instances", {"sort": "metrics.n", "order": order, "limit": 3}, 3):
        received += [item["instance_id"] for item in page]
        installs[0].snapshot({"n": len(received)})
        installs[-1].snapshot({"n": -len(received)})
        Install(server.url).enroll({"n": len(received) % 5})
    assert {instance_id: received.count(instance_id) for instance_id in others} == dict.fromkeys(others, 1)


def test_a_page_token_of_another_sort_is_refused(fleet: Fleet) -> None:
    response = fleet.server.get("instances?sort=metrics.v&limit=1")
    next_link = str(response.url.join(response.links["next"]["url"]))
    for other in (next_link.replace("metrics.v", "metrics.w"), next_link + "&order=asc", next_link[:-4]):
        response = plain_http.get(other, headers=fleet.server.headers)
        assert (response.status_code, response.json()["code"]) == (400, "bad_after")


@pytest.mark.parametrize("query", ["sort=foo", "sort=status%0A", "sort=", "order=up", "order="])
def test_an_unknown_sort_is_refused(shared_server: ServerProcess, query: str) -> None:
    response = plain_http.get(f"{shared_server.url}/api/v1/admin/instances?{query}", headers=shared_server.headers)
    assert (response.status_code, response.json()["code"]) == (400, "bad_parameter")


@pytest.mark.parametrize("sort", [None, "metrics.n"])
def test_a_page_of_large_instances_ends_before_its_limit(
    server: ServerProcess, database: str, sort: str | None
) -> None:
    """The next page continues after it."""
    insert_fleet(database, 150, texts=60)
    result_pages = list(pages(server, "instances", {"sort": sort, "limit": 1000}, 1000))
    assert len(result_pages) > 1
    assert len({item["instance_id"] for page in result_pages for item in page}) == sum(map(len, result_pages)) == 150
    assert all(len(json.dumps(page)) < 6 * 2**20 for page in result_pages)


@pytest.mark.long
def test_the_intake_continues_while_lists_are_sorted(serve: Callable[..., ServerProcess], database: str) -> None:
    insert_fleet(database, 30_000)
    server = serve(SHM_DB_POOL="3")
    stop = threading.Event()
    statuses: list[int] = []

    def request_lists() -> None:
        with plain_http.Client(headers=server.headers, timeout=60) as client:
            while not stop.is_set():
                statuses.append(client.get(f"{server.url}/api/v1/admin/instances?sort=metrics.n").status_code)

    threads = [threading.Thread(target=request_lists) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            Install(server.url).enroll({"n": 1})
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert set(statuses) == {200}


def test_snapshots_of_an_instance_come_newest_first_as_sent(server: ServerProcess) -> None:
    install = Install(server.url).enroll({"n": 0}, ago=timedelta(hours=9))
    for hours in range(1, 9):
        body = install.snapshot_body({"n": "N"}, datetime.now(UTC) - timedelta(hours=hours), app_version=f"2.{hours}")
        body = body.replace(b'"N"', b"%d.50" % hours)
        assert install.post("/v1/snapshot", body, install.signed(body)).status_code == 202
    path = f"instances/{install.instance_id}/snapshots"
    received = [sent for page in pages(server, path, {"limit": 2}, 2) for sent in page]
    assert [str(sent["metrics"]["n"]) for sent in received] == [*(f"{hours}.50" for hours in range(1, 9)), "0"]
    assert [sent["app_version"] for sent in received] == [*(f"2.{hours}" for hours in range(1, 9)), "1.4.2"]
    assert [*received[0]] == ["snapshot_at", "received_at", "app_version", "sequence", "metrics"]
    assert received == decode_json(server.get(path))


def test_a_page_of_large_snapshots_ends_before_its_limit(server: ServerProcess) -> None:
    """The next page continues after it."""
    metrics = {f"t{number}": KIBIBYTE for number in range(60)}
    install = Install(server.url).enroll(metrics)
    for minutes in range(1, 80):
        assert install.snapshot(metrics, datetime.now(UTC) - timedelta(minutes=minutes)).status_code == 202
    result_pages = list(pages(server, f"instances/{install.instance_id}/snapshots", {"limit": 1000}, 1000))
    assert len(result_pages) > 1
    assert sum(map(len, result_pages)) == 80


def test_snapshots_of_unknown_and_of_pending_instances(server: ServerProcess) -> None:
    install = Install(server.url)
    address = f"{server.url}/api/v1/admin/instances/{install.instance_id}/snapshots"
    assert plain_http.get(address, headers=server.headers).json()["code"] == "no_such_instance"
    install.register()
    assert plain_http.get(address, headers=server.headers).json() == []
    for after in ("x", "", "2026-11-24", "0001-01-01T00:00:00%2B23:59"):
        response = plain_http.get(f"{address}?after={after}", headers=server.headers)
        assert (response.status_code, response.json()["code"]) == (400, "bad_after")
