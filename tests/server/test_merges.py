"""Merges of applications: instances, snapshots, versions and charts of the past belong to the other one afterwards."""

import json
import random
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from itertools import pairwise
from typing import Any

import httpx
import pytest

from tests.support import plain_http
from tests.support.background_jobs import BackgroundJobs, run_background_jobs, wait_until_rolled_up
from tests.support.clusters import wait_for
from tests.support.databases import admin_cursor, execute, select_column
from tests.support.installs import Install
from tests.support.old_partitions import CREATE_OLD_PARTITIONS_SQL
from tests.support.server_process import ServerProcess
from tests.support.shm_command import run_shm
from tests.support.time_travel import shift_times

pytestmark = pytest.mark.cluster

DAY = timedelta(days=1)
LONG = {"SHM_MAX_SNAPSHOT_AGE": "100d", "SHM_RETENTION": "200d", "SHM_RATELIMIT_ENABLED": "false"}
CHANGES = "continue changes of many instances"


@pytest.fixture
def quiet(serve: Callable[..., ServerProcess], database: str) -> Iterator[tuple[ServerProcess, BackgroundJobs]]:
    """A server that accepts old snapshots, whose background jobs the test runs."""
    with run_background_jobs(database, **LONG) as background:
        yield serve(**LONG), background


def send_history(install: Install, days: int, metrics: Callable[[int], dict[str, Any]], **more: Any) -> None:
    """A snapshot for each of the last days, the oldest first, and one of now."""
    assert install.register().status_code in (200, 201)
    assert install.activate().status_code == 200
    now = datetime.now(UTC)
    times = [now - day * DAY for day in range(days, -1, -1)]
    snapshots = [{"timestamp": at.isoformat(), "metrics": metrics(number), **more} for number, at in enumerate(times)]
    for start in range(0, len(snapshots), 100):
        body = json.dumps({"instance_id": install.instance_id, "snapshots": snapshots[start : start + 100]}).encode()
        response = install.post("/v1/snapshots", body, install.signed(body))
        assert {verdict["status"] for verdict in response.json()["snapshots"]} <= {"stored"}, response.text


def merge(server: ServerProcess, slug: str, into: str) -> dict[str, Any]:
    """Requests a merge."""
    url = f"{server.url}/api/v1/admin/applications/{slug}/merge"
    response = plain_http.post(url, headers=server.headers, json={"into": into}).raise_for_status()
    change: dict[str, Any] = response.json()
    return change


def put_name(server: ServerProcess, slug: str, name: str) -> httpx.Response:
    """Renames an application."""
    url = f"{server.url}/api/v1/admin/applications/{slug}"
    return plain_http.request("PUT", url, headers=server.headers, json={"name": name})


def chart(server: ServerProcess, slug: str, key: str, period: str) -> dict[str, Decimal]:
    """The past values of a key, without nulls."""
    content = server.get(f"metrics/{slug}?period={period}&keys={key}").content
    body = json.loads(content, parse_float=Decimal, parse_int=Decimal)
    values = zip(body["timestamps"][:-1], body["metrics"].get(key, []), strict=False)  # of an unknown key: none
    return {at: value for at, value in values if value is not None}


def adoption(server: ServerProcess, slug: str) -> list[tuple[str, int]]:
    """The releases with the numbers of installs that ever reported them."""
    versions = server.get(f"applications/{slug}/versions").json()["taken_up"]
    return sorted((each["version"], each["installs"]) for each in versions)


def growing_metrics(factor: int, day: int) -> dict[str, Any]:
    """Metrics of a day, with enough keys for several pages."""
    return {"n": day * factor, "beta": day % 2 == 0} | {f"k{number}": number for number in range(40)}


def limited_metrics(first: int, day: int) -> dict[str, Any]:
    """Four keys, and a string with another value every day."""
    return {"plan": f"p{day}"} | {f"k{number}": number for number in range(first, first + 4)}


def test_the_past_of_a_merged_application_belongs_to_the_other_one(
    quiet: tuple[ServerProcess, BackgroundJobs],
) -> None:
    """After each step, all figures agree with the raw snapshots."""
    server, background = quiet
    for name, factor in (("One", 1), ("One", 10), ("Two", 100)):
        install = Install(server.url, app_name=name, app_version=f"1.{factor}")
        send_history(install, 60, partial(growing_metrics, factor))
    silent = Install(server.url, app_name="One", app_version="0.9")
    silent.enroll({"n": 5, "old": 1}, ago=50 * DAY)
    moved_before = Install(server.url, app_name="One")
    send_history(moved_before, 3, lambda day: {"n": 1_000})
    moved_before.register(app_name="Three")
    moved_before.activate()
    moved_before.snapshot({"n": 7})
    background.run()
    assert background.differences() == {}
    before = {
        (slug, key, period): chart(server, slug, key, period)
        for slug in ("one", "two")
        for key in ("n", "k7")
        for period in ("24h", "30d", "3m")
    }
    releases = adoption(server, "one") + adoption(server, "two")
    merge(server, "one", "two")
    for _ in background.steps(CHANGES):
        assert background.differences() == {}
    background.run()
    assert background.differences() == {}
    for key in ("n", "k7"):
        for period in ("24h", "30d", "3m"):
            parts = before["one", key, period], before["two", key, period]
            expected = {at: sum(part.get(at, Decimal()) for part in parts) for part in parts for at in part}
            assert chart(server, "two", key, period) == expected, (key, period)
            assert chart(server, "one", key, period) == {}, (key, period)
    assert adoption(server, "two") == sorted(releases)
    assert adoption(server, "one") == []
    (change,) = server.get("bulk-changes").json()
    assert (change["processed"], change["failed"], change["error"]) == (3, 0, None)


@pytest.mark.parametrize(
    "limits",
    [
        {"SHM_MAX_KEYS": "6"},
        pytest.param({"SHM_MAX_VALUES": "2"}, marks=pytest.mark.long),
        pytest.param({"SHM_MAX_VERSIONS": "1"}, marks=pytest.mark.long),
    ],
)
def test_limits_of_keys_keep_figures_exact_in_a_merge(
    serve: Callable[..., ServerProcess], database: str, limits: dict[str, str]
) -> None:
    """Keys that had a place in one of the applications only: the last point of a chart is the card."""
    with run_background_jobs(database, **LONG, **limits) as background:
        server = serve(**LONG, **limits)
        for name, first in (("One", 0), ("One", 2), ("Two", 4), ("Two", 6)):
            install = Install(server.url, app_name=name, app_version=f"1.{first}")
            send_history(install, 5, partial(limited_metrics, first))
        background.run()
        assert background.differences() == {}
        merge(server, "one", "two")
        for _ in background.steps(CHANGES):
            assert background.differences() == {}
        background.run()
        assert background.differences() == {}


CURRENT_VERSIONS = """
    SELECT metric_type, value, sum(instances)::int FROM {table}
    WHERE app_slug = 'two' AND metric_type IN ('version', 'other_versions') {condition}
    GROUP BY metric_type, value HAVING sum(instances) <> 0 ORDER BY metric_type, value
"""


def test_a_version_beyond_the_limit_of_the_target_is_in_other_everywhere(
    serve: Callable[..., ServerProcess], database: str
) -> None:
    """Right after a merge, before any further snapshot: the chart ends with what is counted now."""
    limits = {"SHM_MAX_VERSIONS": "2"}
    with run_background_jobs(database, **LONG, **limits) as background:
        server = serve(**LONG, **limits)
        for name, version in (("One", "1.0"), ("One", "1.1"), ("One", "1.2"), ("Two", "2.0"), ("Two", "1.2")):
            install = Install(server.url, app_name=name, app_version=version)
            send_history(install, 2, lambda day: {"n": day})
        background.run()
        merge(server, "one", "two")
        background.run()
        assert background.differences() == {}
        with admin_cursor(database) as cursor:
            cursor.execute(CURRENT_VERSIONS.format(table="tallies", condition=""))
            tallies = cursor.fetchall()
            condition = "AND at <= date_trunc('hour', now(), 'UTC') + interval '1 hour'"
            cursor.execute(CURRENT_VERSIONS.format(table="series_hours", condition=condition))
            assert cursor.fetchall() == tallies
        assert tallies == [("other_versions", "", 2), ("version", "1.2", 2), ("version", "2.0", 1)]
        shown = server.get("applications/two/versions?period=24h").json()
        assert shown["other"][-1] == 2


def test_days_of_deleted_snapshots_are_merged_too(serve: Callable[..., ServerProcess], database: str) -> None:
    execute(database, CREATE_OLD_PARTITIONS_SQL, 300 * DAY, 28 * DAY)
    with run_background_jobs(database, **LONG) as background:
        server = serve(**LONG)
        for name in ("One", "Two"):
            send_history(Install(server.url, app_name=name), 20, lambda day: {"n": day})
        background.run("roll up", "close a day of the series")
        shift_times(database, 250 * DAY)
        for name in ("One", "Two"):
            Install(server.url, app_name=name).enroll({"n": 1})
        background.run()
        assert background.differences() == {}
        assert select_column(database, "SELECT count(*) FROM snapshots") == [2]
        before = [chart(server, slug, "n", "1y") for slug in ("one", "two")]
        assert all(before)
        merge(server, "one", "two")
        for _ in background.steps(CHANGES):
            assert background.differences() == {}
        expected = {at: sum(part.get(at, Decimal()) for part in before) for part in before for at in part}
        assert chart(server, "two", "n", "1y") == expected
        assert select_column(database, "SELECT DISTINCT app_slug FROM series_days") == ["two"]
        assert select_column(database, "SELECT DISTINCT app_slug FROM series_hours") == ["two"]


@pytest.mark.long
def test_a_merge_that_was_killed_continues(serve: Callable[..., ServerProcess], database: str) -> None:
    by_chance = random.Random(7)
    server = serve(**LONG)
    installs = [Install(server.url, app_name=name) for name in ("One", "One", "Two")]
    for install in installs:
        send_history(install, 90, lambda day: {f"k{number}": day for number in range(60)})
    wait_until_rolled_up(database)
    expected = {
        at: chart(server, "one", "k1", "3m").get(at, Decimal()) + value
        for at, value in chart(server, "two", "k1", "3m").items()
    }
    merge(server, "one", "two")

    def is_finished() -> bool:
        return select_column(database, "SELECT finished_at IS NOT NULL FROM bulk_changes") == [True]

    kills = 0
    while not is_finished() and kills < 4:
        time.sleep(by_chance.uniform(0.3, 1.5))
        server.kill()
        server.start()
        kills += 1
    wait_for(is_finished, "the end of the merge")
    assert kills > 1
    wait_until_rolled_up(database)
    assert chart(server, "two", "k1", "3m") == expected
    assert select_column(database, "SELECT DISTINCT app_slug FROM snapshots") == ["two"]
    checked = run_shm("check", SHM_DB_DSN=database)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.long
def test_merges_in_a_circle_end_where_the_last_one_says(quiet: tuple[ServerProcess, BackgroundJobs]) -> None:
    server, background = quiet
    for name in ("One", "Two", "Three"):
        Install(server.url, app_name=name).enroll({"n": 1})
    route = ["one", "two", "one", "two", "three", "one", "three"]
    for slug, into in pairwise(route):
        merge(server, slug, into)
    for _ in background.steps(CHANGES):
        assert background.differences() == {}
    background.run()
    assert background.differences() == {}
    counts = {each["slug"]: each["instances"]["active"] for each in server.get("applications").json()}
    assert counts == {"one": 0, "two": 0, "three": 3}
    for name in ("One", "Two", "Three"):
        Install(server.url, app_name=name).enroll({"n": 1})
    assert server.get("applications/three/kpis").json()["instances"]["active"] == 6


def test_a_name_that_leads_to_another_application_is_taken(quiet: tuple[ServerProcess, BackgroundJobs]) -> None:
    server, background = quiet
    for name in ("One", "Two", "Three"):
        Install(server.url, app_name=name).enroll({"n": 1})
    merge(server, "one", "two")
    assert put_name(server, "three", "One").json()["code"] == "name_taken"
    plain_http.request("DELETE", f"{server.url}/api/v1/admin/applications/one", headers=server.headers)
    background.run()
    assert put_name(server, "three", "One").json()["code"] == "name_taken"
    assert put_name(server, "two", "One").json()["name"] == "One"
    Install(server.url, app_name="One").enroll({"n": 1})
    assert server.get("applications/two/kpis").json()["instances"]["active"] == 3


def test_a_staged_move_into_a_merged_application_follows_the_merge(
    quiet: tuple[ServerProcess, BackgroundJobs],
) -> None:
    """An install registers with a new name, which is merged before it signs its next request."""
    server, background = quiet
    for name in ("One", "Two"):
        Install(server.url, app_name=name).enroll({"n": 1})
    installs = [Install(server.url, app_name="Three").enroll({"n": 1}) for _ in range(2)]
    for install in installs:
        install.register(app_name="One")
    merge(server, "one", "two")
    background.run()
    assert installs[0].activate().status_code == 200
    assert installs[1].snapshot({"n": 5}).status_code == 202
    background.run()
    assert background.differences() == {}
    counts = {each["slug"]: each["instances"]["active"] for each in server.get("applications").json()}
    assert counts == {"one": 0, "two": 4, "three": 0}


def test_a_refused_merge_changes_no_name(quiet: tuple[ServerProcess, BackgroundJobs], database: str) -> None:
    server, _ = quiet
    for name in ("One", "Two"):
        Install(server.url, app_name=name).enroll({"n": 1})
    execute(
        database,
        "INSERT INTO bulk_changes (action, filter, instances)"
        " SELECT 'revoke', '{\"slug\": \"x\"}', 0 FROM generate_series(1, 100)",
    )
    with pytest.raises(httpx.HTTPStatusError, match="409"):
        merge(server, "one", "two")
    Install(server.url, app_name="One").enroll({"n": 1})
    assert server.get("applications/one/kpis").json()["instances"]["active"] == 2


@pytest.mark.long
def test_installs_report_while_their_applications_are_merged_and_deleted(
    serve: Callable[..., ServerProcess], database: str
) -> None:
    server = serve(**LONG)
    names = ("One", "Two", "Three")
    installs = [Install(server.url, app_name=names[number % 3]).enroll({"n": 1, "plan": "a"}) for number in range(12)]
    merge(server, "one", "two")
    by_chance = random.Random(11)
    for number in range(150):
        install = by_chance.choice(installs)
        if number % 10 == 0:
            install.register(app_name=by_chance.choice(names))
        assert install.snapshot({"n": number, "plan": by_chance.choice("abc")}).status_code in (202, 403)
        if number == 50:
            merge(server, "two", "three")
        if number == 100:
            url = f"{server.url}/api/v1/admin/instances/bulk"
            body = {"action": "delete", "q": installs[0].instance_id}
            plain_http.post(url, headers=server.headers, json=body).raise_for_status()

    def is_finished() -> bool:
        return all(change["finished_at"] for change in server.get("bulk-changes").json())

    wait_for(is_finished, "the end of the changes")
    wait_until_rolled_up(database)
    assert [change["failed"] for change in server.get("bulk-changes").json()] == [0, 0, 0]
    counts = {each["slug"]: each["instances"]["active"] for each in server.get("applications").json()}
    assert (counts["one"], counts["two"]) == (0, 0)
    with admin_cursor(database) as cursor:
        cursor.execute("SELECT DISTINCT app_slug FROM snapshots")
        assert cursor.fetchall() == [("three",)]
    checked = run_shm("check", SHM_DB_DSN=database)
    assert checked.returncode == 0, checked.stdout
