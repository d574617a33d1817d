"""The first rows of sorted lists are kept between requests, and every page is that of a scan."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shm.analytics import first_rows, list_orders
from shm.analytics.instance_pages import END, InstancePages
from shm.analytics.instances import InstanceFilter, InstancePage
from shm.analytics.scan_limiter import ScanLimiter
from shm.analytics.sorting import Sorting
from tests.support.background_jobs import BackgroundJobs, run_background_jobs
from tests.support.brute_force_sort import brute_force_sort
from tests.support.bulk_fleet import insert_metrics
from tests.support.databases import execute, fresh_database
from tests.support.module_server import running_server
from tests.support.random_fleets import (
    SLUGS,
    Age,
    Fleet,
    Scenario,
    SendSnapshot,
    SetOverrides,
    SnapshotContent,
    apps,
    backlogs,
    contents,
    environments,
    rare_events,
    registers,
    run_scenario,
    sends,
)
from tests.support.server_pool import empty_tables
from tests.support.server_process import ServerProcess
from tests.support.time_travel import shift_times

pytestmark = pytest.mark.cluster

SOME = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
EXAMPLE_COUNTS = [
    pytest.param(settings(SOME, max_examples=6, derandomize=True), id="short"),
    pytest.param(settings(SOME, max_examples=400), id="long", marks=pytest.mark.long),
]
BY_SENT = Sorting("metrics.sent", "desc")

Item = dict[str, Any]


def is_positive(item: Item) -> bool:
    value = item["metrics"].get("sent")
    return isinstance(value, int | Decimal) and not isinstance(value, bool) and value > 0


LISTS: list[tuple[InstanceFilter, Callable[[Item], bool], Sorting]] = [
    (InstanceFilter(), lambda _: True, BY_SENT),
    (InstanceFilter(), lambda _: True, replace(BY_SENT, order="asc")),
    (InstanceFilter(), lambda _: True, Sorting("last_seen_at", "asc")),
    (InstanceFilter(environment="production"), lambda item: item["environment"] == "production", BY_SENT),
    (InstanceFilter(where=["app=ledger"]), lambda item: item["app_name"].lower() == "ledger", BY_SENT),
    (InstanceFilter(status="active"), lambda item: item["status"] == "active", Sorting("app_slug", "asc")),
    (InstanceFilter(where=["metrics.sent>0"]), is_positive, Sorting("metrics.mail.sent", "desc")),
]


@dataclass(frozen=True)
class Environment:
    """A server, and its background jobs and their pool of connections, which the test uses itself."""

    server: ServerProcess
    database: str
    background: BackgroundJobs

    def read_pages(self) -> InstancePages:
        """A reader that has kept nothing so far."""
        return InstancePages(self.background.database, ScanLimiter(1))


@pytest.fixture(scope="module")
def environment(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """One server for all scenarios; each starts with an empty database."""
    folder: Path = tmp_path_factory.mktemp("first_rows")
    with (
        fresh_database(postgres) as dsn,
        run_background_jobs(dsn) as background,
        running_server(folder, dsn) as server,
    ):
        yield Environment(server, dsn, background)


@dataclass(frozen=True)
class Merge:
    """An admin merges an application into another one."""

    slug: str
    into: str

    def apply(self, fleet: Fleet, background: BackgroundJobs) -> None:
        """Either may not exist, or be merged already."""
        status = fleet.request_admin("POST", f"applications/{self.slug}/merge", {"into": self.into}).status_code
        assert status in (202, 400, 404, 409)
        background.run("continue changes of many instances")


@dataclass(frozen=True)
class Enroll:
    """A new install sends its first snapshot."""

    app: str
    environment: str
    content: SnapshotContent

    def apply(self, fleet: Fleet) -> None:
        """It is the last one of the fleet."""
        run_scenario(Scenario([(self.app, self.environment)], []), fleet, lambda: None)
        SendSnapshot(-1, self.content).apply(fleet)


merges = st.permutations(SLUGS).map(lambda slugs: Merge(*slugs))
hides = st.builds(
    SetOverrides, st.sampled_from(SLUGS), st.booleans().map(lambda is_hidden: {"sent": {"hidden": is_hidden}})
)
enrolments = st.builds(Enroll, apps, environments, contents)
changes = sends | sends | sends | backlogs | registers | rare_events | merges | hides | enrolments
installs = st.lists(st.tuples(apps, environments), min_size=4, max_size=12)


@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("example_count", EXAMPLE_COUNTS)
def test_any_page_of_a_changing_fleet_equals_a_brute_force_sort(
    environment: Environment, example_count: settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows come before and after the kept ones, and instances change until there are too few or too many."""
    for name, value in {"FIRST_ROWS": 5, "MAX_FIRST_ROWS": 7, "MAX_CHANGES": 9}.items():
        monkeypatch.setattr(list_orders, name, value)

    @example_count
    @given(beginning=installs, events=st.lists(st.lists(changes, min_size=1, max_size=3), min_size=1, max_size=8))
    def check_scenario(beginning: list[tuple[str, str]], events: list[list[Any]]) -> None:
        empty_tables(environment.database)
        fleet = Fleet(environment.server, environment.database, datetime.now(UTC), environment.background.run)
        first_snapshots = [
            SendSnapshot(number, SnapshotContent(Age(minutes=1), {"sent": number % 5, "mail": {"sent": number}}))
            for number in range(len(beginning) - 1)
        ]
        run_scenario(Scenario(beginning, [*first_snapshots]), fleet, lambda: None)
        pages, seldom_read = environment.read_pages(), environment.read_pages()
        check_lists(environment, pages)
        check_lists(environment, seldom_read)
        for burst in events:
            for event in burst:
                if isinstance(event, Merge):
                    event.apply(fleet, environment.background)
                else:
                    event.apply(fleet)
            check_lists(environment, pages)
        check_lists(environment, seldom_read)

    check_scenario()


def check_lists(environment: Environment, pages: InstancePages) -> None:
    """Compares pages of each list with a sort of all instances."""
    run = environment.background.runner.run
    everything = to_items(run(pages.read_after(InstanceFilter(), Sorting(), None, 1000)))
    for only, matches, sorting in LISTS:
        matching = filter(matches, everything)
        ids = [
            item["instance_id"] for item in brute_force_sort(matching, sorting.by, descending=sorting.order == "desc")
        ]
        for offset, limit in ((0, 2), (1, 3), (0, 6)):
            page = run(pages.read_after(only, sorting, None, limit, offset))
            assert (to_ids(page), page.next is None) == (ids[offset:][:limit], len(ids) <= offset + limit)
            if page.next is not None:
                following = run(pages.read_after(only, sorting, page.next, 2))
                assert to_ids(following) == ids[offset + limit :][:2]
        page = run(pages.read_before(only, sorting, END, 3))
        assert (to_ids(page), page.previous is None) == (ids[-3:], len(ids) <= 3)
        for position, instance_id in list(enumerate(ids))[::2]:
            around = run(pages.read_around(only, sorting, instance_id, 3))
            begin = max(0, position - 1)
            assert around is not None
            assert (to_ids(around), around.rows_before) == (ids[begin : begin + 3], begin)
            assert (around.next is None, around.previous is None) == (len(ids) <= begin + 3, begin == 0)


def to_items(page: InstancePage) -> list[Item]:
    items: list[Item] = json.loads(msgspec.json.encode(page.items), parse_float=Decimal)
    return items


def to_ids(page: InstancePage) -> list[str]:
    return [item.instance_id for item in page.items]


MOVE_LAST = """
    UPDATE instances SET metrics = '{"n": 1000}' WHERE metrics = '{"n": 1}'
"""


def test_a_list_that_is_requested_again_is_not_scanned(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a change without a cursor, which no server makes, shows only after a scan."""
    monkeypatch.setattr(list_orders, "FIRST_ROWS", 50)
    empty_tables(environment.database)
    insert_metrics(environment.database, [{"n": number} for number in range(200)])
    run, pages = environment.background.runner.run, environment.read_pages()

    def read_first(limit: int = 10) -> list[Any]:
        page = run(pages.read_after(InstanceFilter(), Sorting("metrics.n", "desc"), None, limit))
        return [item["metrics"]["n"] for item in to_items(page)]

    assert read_first() == [*range(199, 189, -1)]
    execute(environment.database, MOVE_LAST)
    assert read_first() == [*range(199, 189, -1)]
    assert read_first(limit=60)[0] == 1000  # more than are kept
    execute(environment.database, "UPDATE feed_head SET cursor = cursor + %s", first_rows.MAX_CHANGES)
    assert read_first() == [*range(199, 189, -1)]
    execute(environment.database, "UPDATE feed_head SET cursor = cursor + %s", first_rows.MAX_CHANGES + 1)
    assert read_first()[0] == 1000
    execute(environment.database, "UPDATE instances SET metrics = '{\"n\": 1001}' WHERE metrics = '{\"n\": 2}'")
    execute(environment.database, "UPDATE feed_head SET cursor = cursor - 1")  # a standby that became the primary
    assert read_first()[0] == 1001
    monkeypatch.setattr(first_rows, "MAX_AGE_S", 0.0)
    execute(environment.database, "UPDATE instances SET metrics = '{\"n\": 999}' WHERE metrics = '{\"n\": 3}'")
    assert read_first()[:3] == [1001, 1000, 999]


LOWER_FIRST = """
    WITH feed_advanced AS (UPDATE feed_head SET cursor = cursor + 1 RETURNING cursor)
    UPDATE instances i SET metrics = '{"n": -1}', cursor = f.cursor
    FROM feed_advanced f
    WHERE (i.metrics ->> 'n')::int >= 190
"""


def test_rows_that_move_behind_the_end_are_not_among_the_first(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that were never read come before them."""
    monkeypatch.setattr(list_orders, "FIRST_ROWS", 50)
    empty_tables(environment.database)
    insert_metrics(environment.database, [{"n": number} for number in range(200)])
    run, pages = environment.background.runner.run, environment.read_pages()
    for first in (199, 189):
        page = run(pages.read_after(InstanceFilter(), Sorting("metrics.n", "desc"), None, 45))
        assert [item["metrics"]["n"] for item in to_items(page)] == [*range(first, first - 45, -1)]
        execute(environment.database, LOWER_FIRST)


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_the_first_and_the_last_rows_of_a_large_fleet(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, order: Literal["asc", "desc"]
) -> None:
    """A bound from a sample is a number, in both directions, though some instances have none."""
    monkeypatch.setattr(list_orders, "FIRST_ROWS", 20)
    empty_tables(environment.database)
    insert_metrics(environment.database, [{"n": number} if number % 1000 else {} for number in range(8_000)])
    run, sorting = environment.background.runner.run, Sorting("metrics.n", order)
    numbers = sorted((number for number in range(8_000) if number % 1000), reverse=order == "desc")
    for _ in range(3):  # samples differ
        pages = environment.read_pages()
        first = run(pages.read_after(InstanceFilter(), sorting, None, 15))
        last = run(pages.read_before(InstanceFilter(), sorting, END, 15))
        assert [item["metrics"].get("n") for item in to_items(first)] == numbers[:15]
        assert [item["metrics"].get("n") for item in to_items(last)] == numbers[-7:] + 8 * [None]


def test_a_list_that_depends_on_the_time_is_scanned(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """As time passes, instances come in and leave without a change of their own."""
    monkeypatch.setattr(list_orders, "FIRST_ROWS", 2)
    empty_tables(environment.database)
    fleet = Fleet(environment.server, environment.database, datetime.now(UTC), environment.background.run)
    snapshots = [SendSnapshot(number, SnapshotContent(Age(), {"sent": 1})) for number in range(4)]
    run_scenario(Scenario([("Ledger", "production")] * 4, [*snapshots]), fleet, lambda: None)
    *ids, last = sorted(install.instance_id for install in fleet.installs)
    older = "UPDATE instances SET last_seen_at = last_seen_at - interval '20 days' WHERE instance_id = %s"
    execute(environment.database, older, last)
    run, pages = environment.background.runner.run, environment.read_pages()
    filters = [
        InstanceFilter(where=[where])
        for where in ("seen<25d", "-seen>25d", "state=active", "counted=true", "state=counted", "-state=silent")
    ]

    def read_first(only: InstanceFilter, sorting: Sorting = BY_SENT) -> list[str]:
        return to_ids(run(pages.read_after(only, sorting, None, 1)))

    by_headline = Sorting("counted", "asc")  # which counts active instances
    assert [read_first(only) for only in filters] == [[last]] * len(filters)
    assert read_first(InstanceFilter(), by_headline) == [ids[0]]
    shift_times(environment.database, timedelta(days=15))
    assert [read_first(only) for only in filters] == [[ids[-1]]] * len(filters)
    assert read_first(InstanceFilter(), by_headline) == [last]


def test_kept_lists_are_bounded() -> None:
    """The one that was requested longest ago is forgotten first."""
    cache = first_rows.FirstRowsCache()
    rows = first_rows.FirstRows(["a"], None, 1)
    for number in range(first_rows.MAX_LISTS):
        cache.put(str(number), rows)
    cache.put("0", rows)
    cache.put("one more", rows)
    assert [cache.get(name) is not None for name in ("0", "1", "2", "one more")] == [True, False, True, True]
    cache.put("0", None)
    assert cache.get("0") is None
