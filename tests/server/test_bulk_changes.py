"""Changes of many instances by a filter, and deletion, renaming and merging of applications."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.support import plain_http
from tests.support.background_jobs import BackgroundJobs, run_background_jobs
from tests.support.databases import admin_cursor, fresh_database
from tests.support.installs import Install
from tests.support.module_server import module_server, running_server
from tests.support.server_process import ServerProcess

pytestmark = pytest.mark.cluster

WAIT_S = 60


@pytest.fixture(scope="module")
def server(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server for all tests of this module; each uses its own applications."""
    with module_server(postgres, tmp_path_factory.mktemp("bulk")) as (server, _):
        yield server


def request(server: ServerProcess, method: str, path: str, **options: Any) -> httpx.Response:
    """A request below the admin API."""
    return plain_http.request(method, f"{server.url}/api/v1/admin/{path}", headers=server.headers, **options)


def wait_until(condition: Callable[[], bool]) -> None:
    """Fails unless the condition is met in time."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def wait_for_changes(server: ServerProcess) -> list[dict[str, Any]]:
    """The changes, once all are finished, newest first."""
    wait_until(lambda: all(change["finished_at"] for change in server.get("bulk-changes").json()))
    changes: list[dict[str, Any]] = server.get("bulk-changes").json()
    return changes


def statuses(server: ServerProcess, app: str) -> list[str]:
    """The statuses of an application's instances."""
    return sorted(item["status"] for item in server.get(f"instances?app={app}").json())


def test_a_preview_counts_and_changes_nothing(server: ServerProcess) -> None:
    for number in range(3):
        Install(server.url, app_name="Preview", environment="ci" if number else "production").enroll({"n": number})
    body = {"action": "revoke", "app": "preview", "environment": "ci", "dry_run": True}
    preview = request(server, "POST", "instances/bulk", json=body)
    assert preview.status_code == 202
    assert (preview.json()["id"], preview.json()["instances"]) == (None, 2)
    assert request(server, "DELETE", "applications/preview?dry_run=true").json()["instances"] == 3
    assert server.get("bulk-changes").json() == [] or statuses(server, "preview") == ["active"] * 3


def test_instances_are_revoked_and_deleted_by_filter(server: ServerProcess) -> None:
    for number in range(4):
        Install(server.url, app_name="Junk", environment="ci" if number else "production").enroll({"n": number})
    revoke = request(server, "POST", "instances/bulk", json={"action": "revoke", "app": "Junk", "environment": "ci"})
    assert (revoke.json()["action"], revoke.json()["instances"], revoke.json()["processed"]) == ("revoke", 3, 0)
    change = next(each for each in wait_for_changes(server) if each["id"] == revoke.json()["id"])
    assert change["processed"] == 3
    assert statuses(server, "junk") == ["active", "revoked", "revoked", "revoked"]
    assert server.get("applications/junk/kpis").json()["instances"]["counted"] == 1
    request(server, "POST", "instances/bulk", json={"action": "delete", "app": "junk", "status": "revoked"})
    wait_for_changes(server)
    assert statuses(server, "junk") == ["active"]


def test_pending_instances_are_approved_by_filter(serve: Callable[..., ServerProcess]) -> None:
    server = serve(SHM_ACTIVATION="manual")
    installs = [Install(server.url, app_name="Manual") for _ in range(3)]
    for install in installs:
        install.register()
        assert install.activate().json()["status"] == "pending"
    body = {"action": "approve", "app": "manual", "status": "pending"}
    assert request(server, "POST", "instances/bulk", json=body | {"dry_run": True}).json()["instances"] == 3
    request(server, "POST", "instances/bulk", json=body)
    wait_for_changes(server)
    assert statuses(server, "manual") == ["active"] * 3
    assert installs[0].snapshot({"n": 1}).status_code == 202


@pytest.mark.parametrize(
    "body",
    [
        {"action": "revoke"},
        {"action": "revoke", "dry_run": True},
        {"action": "erase", "app": "x"},
        {"action": "revoke", "ap": "x"},
    ],
)
def test_a_change_without_a_filter_is_refused(server: ServerProcess, body: dict[str, Any]) -> None:
    response = request(server, "POST", "instances/bulk", json=body)
    assert (response.status_code, response.json()["code"]) == (400, "bad_field")


def test_conditions_and_ids_select_the_instances(server: ServerProcess) -> None:
    installs = [Install(server.url, app_name="Chosen").enroll({"n": number}) for number in range(4)]
    ids = [install.instance_id for install in installs]
    body = {"action": "revoke", "app": "chosen", "where": ["metrics.n>=1", "seen<1h"], "instance_ids": ids[:3]}
    assert request(server, "POST", "instances/bulk", json=body | {"dry_run": True}).json()["instances"] == 2
    request(server, "POST", "instances/bulk", json=body)
    wait_for_changes(server)
    by_id = {item["instance_id"]: item["status"] for item in server.get("instances?app=chosen").json()}
    assert [by_id[instance_id] for instance_id in ids] == ["active", "revoked", "revoked", "active"]
    entry = next(each for each in server.get("audit").json() if each["action"] == "revoke_instances")
    assert entry["details"] == {
        "app": "chosen",
        "where": ["metrics.n>=1", "seen<1h"],
        "instance_ids": [instance_id[:8] for instance_id in ids[:3]],
    }
    invalid = request(server, "POST", "instances/bulk", json=body | {"where": ["n"], "dry_run": True})
    assert (invalid.status_code, invalid.json()["code"]) == (400, "bad_condition")


def test_a_deleted_application_leaves_nothing(server: ServerProcess) -> None:
    kept = Install(server.url, app_name="Kept").enroll({"n": 1})
    for number in range(3):
        Install(server.url, app_name="Gone").enroll({"n": number})
    request(server, "PUT", "applications/gone", json={"name": "Gone for good"}).raise_for_status()
    response = request(server, "DELETE", "applications/gone")
    assert (response.status_code, response.json()["instances"]) == (202, 3)
    wait_for_changes(server)
    assert request(server, "GET", "applications/gone").status_code == 404
    assert server.get("instances?app=gone").json() == []
    assert "gone" not in [application["slug"] for application in server.get("applications").json()]
    assert server.get(f"instances/{kept.instance_id}").json()["status"] == "active"
    assert request(server, "DELETE", "applications/gone").json()["code"] == "no_such_application"
    Install(server.url, app_name="Gone for good").enroll()
    assert server.get("applications/gone-for-good").json()["name"] == "Gone for good"


def test_a_renamed_application_keeps_its_slug_and_takes_both_names(server: ServerProcess) -> None:
    Install(server.url, app_name="Old name").enroll({"n": 1})
    Install(server.url, app_name="Taken").enroll({"n": 1})
    assert request(server, "PUT", "applications/old-name", json={"name": "Taken"}).json()["code"] == "name_taken"
    renamed = request(server, "PUT", "applications/old-name", json={"name": "New name"}).json()
    assert (renamed["slug"], renamed["name"]) == ("old-name", "New name")
    for name in ("New name", "Old name"):
        Install(server.url, app_name=name).enroll({"n": 1})
    assert server.get("applications/old-name/kpis").json()["instances"]["active"] == 3
    assert server.get("metrics/New%20name").json()["app"] == "old-name"
    assert request(server, "PUT", "applications/old-name", json={"name": ""}).status_code == 400


def test_a_merged_application_has_no_instances_and_gets_no_new_ones(server: ServerProcess) -> None:
    first = Install(server.url, app_name="Split").enroll({"n": 1, "plan": "free"})
    pending = Install(server.url, app_name="Split")
    pending.register()
    Install(server.url, app_name="Whole").enroll({"n": 10})
    preview = request(server, "POST", "applications/split/merge", json={"into": "whole", "dry_run": True})
    assert preview.json()["instances"] == 2
    merge = request(server, "POST", "applications/split/merge", json={"into": "whole"})
    assert (merge.status_code, merge.json()["action"]) == (202, "move")
    wait_for_changes(server)
    kpis = server.get("applications/whole/kpis").json()
    assert ([kpi["value"] for kpi in kpis["kpis"]], kpis["instances"]["total"]) == ([11], 2)
    assert kpis["instances"]["unproven"] == 1
    assert server.get("applications/split/kpis").json()["instances"]["total"] == 0
    assert first.snapshot({"n": 5}).status_code == 202
    first.register()
    first.activate()
    pending.activate()
    Install(server.url, app_name="Split").enroll({"n": 100})
    assert server.get("applications/whole/kpis").json()["kpis"][0]["value"] == 115
    assert server.get("instances?app=split").json() == []
    request(server, "DELETE", "applications/split")
    wait_for_changes(server)
    assert server.get("metrics/split").json()["app"] == "whole"
    Install(server.url, app_name="Split").enroll({"n": 1000})
    assert server.get("applications/whole/kpis").json()["kpis"][0]["value"] == 1115


@pytest.mark.parametrize("first_request", ["activate", "snapshot"])
def test_a_name_staged_before_a_merge_leads_to_its_target(server: ServerProcess, first_request: str) -> None:
    """Also of an install of a third application, which the merge does not move."""
    part, target = f"part-{first_request}", f"target-{first_request}"
    Install(server.url, app_name=part).enroll({"n": 1})
    Install(server.url, app_name=target).enroll({"n": 10})
    third = Install(server.url, app_name=f"third-{first_request}").enroll({"n": 100})
    third.app_name = part
    assert third.register().status_code == 200
    assert request(server, "POST", f"applications/{part}/merge", json={"into": target}).status_code == 202
    wait_for_changes(server)
    request(server, "DELETE", f"applications/{part}")
    wait_for_changes(server)
    if first_request == "activate":
        assert third.activate().status_code == 200
    assert third.snapshot({"n": 100}).status_code == 202
    assert server.get(f"instances/{third.instance_id}").json()["app_slug"] == target
    assert server.get(f"applications/{target}/kpis").json()["kpis"][0]["value"] == 111
    assert part not in [app["slug"] for app in server.get("applications").json()]


@pytest.mark.parametrize(("into", "code"), [("alone", "bad_field"), ("nobody", "no_such_application")])
def test_a_merge_into_itself_or_nothing_is_refused(server: ServerProcess, into: str, code: str) -> None:
    Install(server.url, app_name="Alone").enroll()
    assert request(server, "POST", "applications/alone/merge", json={"into": into}).json()["code"] == code
    assert request(server, "POST", "applications/nobody/merge", json={"into": "alone"}).status_code == 404


@pytest.fixture
def quiet(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, BackgroundJobs]]:
    """A server whose background jobs the test runs."""
    with (
        fresh_database(postgres) as dsn,
        run_background_jobs(dsn) as background,
        running_server(tmp_path_factory.mktemp("quiet"), dsn) as server,
    ):
        yield server, background


def test_figures_are_exact_after_each_step_of_a_change(quiet: tuple[ServerProcess, BackgroundJobs]) -> None:
    server, background = quiet
    for number in range(6):
        name = "One" if number % 2 else "Two"
        Install(server.url, app_name=name).enroll({"n": number, "plan": f"p{number}", "beta": True})
    background.run()
    request(server, "POST", "applications/one/merge", json={"into": "two"}).raise_for_status()
    late = Install(server.url, app_name="Two").enroll({"n": 50})
    background.run("continue changes of many instances")
    assert background.differences() == {}
    request(server, "POST", "instances/bulk", json={"action": "revoke", "q": late.instance_id}).raise_for_status()
    request(server, "DELETE", "applications/two").raise_for_status()
    younger = Install(server.url, app_name="Two").enroll({"n": 7})
    background.run()
    assert background.differences() == {}
    assert [item["instance_id"] for item in server.get("instances?app=two").json()] == [younger.instance_id]
    assert server.get("applications/two/kpis").json()["kpis"][0]["value"] == 7


def test_a_change_continues_in_another_server(serve: Callable[..., ServerProcess], database: str) -> None:
    with run_background_jobs(database):
        first = serve()
        for number in range(5):
            Install(first.url, app_name="Long").enroll({"n": number})
        assert request(first, "DELETE", "applications/long").json()["instances"] == 5
        first.terminate()
    second = serve()
    wait_until(lambda: request(second, "GET", "applications/long").status_code == 404)
    (change,) = second.get("bulk-changes").json()
    assert (change["processed"], change["instances"]) == (5, 5)


def test_a_deleted_application_leaves_no_days_that_cannot_be_recomputed(
    serve: Callable[..., ServerProcess], database: str
) -> None:
    with run_background_jobs(database) as background, admin_cursor(database) as cursor:
        server = serve()
        for name in ("Gone", "Kept"):
            Install(server.url, app_name=name).enroll({"n": 1})
        background.run()
        cursor.execute("UPDATE series_head SET frozen_until = closed_until - interval '30 days'")
        cursor.execute(
            "INSERT INTO series_days (app_slug, metric_type, key, value, at, total, instances)"
            " SELECT app_slug, 'number', 'n', '', frozen_until - interval '1 day' * age, 1, 1 FROM series_head"
            " CROSS JOIN unnest(ARRAY['gone', 'kept']) app_slug CROSS JOIN generate_series(1, 1500) age"
        )
        request(server, "DELETE", "applications/gone").raise_for_status()
        background.run()
        cursor.execute("SELECT app_slug, count(*) FROM series_days GROUP BY app_slug")
        assert cursor.fetchall() == [("kept", 1500)]
        (change,) = server.get("bulk-changes").json()
        assert change["finished_at"] is not None


def test_an_instance_is_not_moved_into_an_application_that_is_gone(
    serve: Callable[..., ServerProcess], database: str
) -> None:
    with run_background_jobs(database) as background:
        server = serve()
        for name in ("One", "Two"):
            Install(server.url, app_name=name).enroll({"n": 1})
        request(server, "DELETE", "applications/two").raise_for_status()
        request(server, "POST", "applications/one/merge", json={"into": "two"}).raise_for_status()
        background.run("continue changes of many instances")
        assert [each["slug"] for each in server.get("applications").json()] == ["one"]
        assert server.get("applications/one/kpis").json()["instances"]["active"] == 1
        assert background.differences() == {}
