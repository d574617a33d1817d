"""An instance that cannot be changed or deleted holds up no other one, and the API says which one fails and why."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support import plain_http
from tests.support.background_jobs import BackgroundJobs, run_background_jobs
from tests.support.clusters import wait_for
from tests.support.databases import execute, select_column
from tests.support.installs import Install
from tests.support.server_process import ServerProcess

CHANGES = "continue changes of many instances"
DELETIONS = "complete interrupted deletions"
FAIL = """
    CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN IF OLD.instance_id = '{instance_id}' THEN RAISE EXCEPTION 'x'; END IF; RETURN coalesce(NEW, OLD); END $$;
    CREATE TRIGGER fail BEFORE {event} ON {table} FOR EACH ROW EXECUTE FUNCTION fail()
"""
NO_PAUSE = "UPDATE bulk_changes SET retry_at = '-infinity'"


def make_fail(database: str, install: Install, event: str, table: str) -> None:
    """From now on a kind of statement fails in PostgreSQL for this instance."""
    execute(database, FAIL.format(instance_id=install.instance_id, event=event, table=table))


def succeed(database: str) -> None:
    """Removes the cause of the failure."""
    execute(database, "DROP FUNCTION fail CASCADE")


def post(server: ServerProcess, path: str, body: dict[str, Any]) -> str:
    """Requests a change and returns its ID."""
    url = f"{server.url}/api/v1/admin/{path}"
    return str(plain_http.post(url, headers=server.headers, json=body).raise_for_status().json()["id"])


def change_of(server: ServerProcess, change_id: str) -> dict[str, Any]:
    """The state of a change."""
    (change,) = [each for each in server.get("bulk-changes").json() if each["id"] == change_id]
    return dict(change)


@pytest.fixture
def quiet(serve: Callable[..., ServerProcess], database: str) -> Iterator[tuple[ServerProcess, BackgroundJobs]]:
    """A server whose background jobs the test runs."""
    with run_background_jobs(database) as background:
        yield serve(), background


@pytest.mark.parametrize(
    ("action", "event", "table", "statement"),
    [
        ("delete", "DELETE", "snapshots", "erasure.delete_page"),
        pytest.param("move", "UPDATE", "snapshots", "bulk.move_snapshots", marks=pytest.mark.long),
        pytest.param("revoke", "UPDATE", "instances", "instances.set_status", marks=pytest.mark.long),
        pytest.param("delete", "DELETE", "instances", "erasure.delete_instance", marks=pytest.mark.long),
        pytest.param("move", "UPDATE", "instances", "bulk.move_instance", marks=pytest.mark.long),
    ],
)
def test_an_instance_that_fails_holds_up_no_other(
    quiet: tuple[ServerProcess, BackgroundJobs], database: str, action: str, event: str, table: str, statement: str
) -> None:
    server, background = quiet
    installs = [Install(server.url, app_name="One").enroll({"n": number}) for number in range(3)]
    Install(server.url, app_name="Two").enroll({"n": 1})
    other = Install(server.url, app_name="Three").enroll({"n": 1})
    background.run()
    failing = sorted(installs, key=lambda install: install.instance_id)[0]
    make_fail(database, failing, event, table)
    if action == "move":
        change_id = post(server, "applications/one/merge", {"into": "two"})
    else:
        change_id = post(server, "instances/bulk", {"action": action, "app": "one"})
    later = post(server, "instances/bulk", {"action": "revoke", "q": other.instance_id})
    background.run(CHANGES)
    assert change_of(server, later)["finished_at"] is not None
    execute(database, NO_PAUSE)  # after the failed instance: the rest of the pass
    background.run(CHANGES)
    failed = change_of(server, change_id)
    assert failed["error"].startswith(f"{failing.instance_id[:8]}: {statement}: ")
    assert "SQLSTATE P0001" in failed["error"]
    assert failed["finished_at"] is None
    assert failed["processed"] == (3 if statement == "bulk.move_snapshots" else 2)
    for _ in range(8):  # four more passes, each with a pause after the instance that fails
        execute(database, NO_PAUSE)
        background.run(CHANGES)
    ended = change_of(server, change_id)
    assert (ended["failed"], ended["finished_at"] is not None) == (1, True)
    assert ended["error"] == failed["error"]
    if action != "delete":  # a deletion that has begun is completed by itself
        assert background.differences() == {}
    succeed(database)
    execute(database, "UPDATE instances SET erasing_since = erasing_since - interval '1 hour'")
    background.run()
    assert background.differences() == {}


def test_an_instance_that_failed_is_changed_once_the_cause_is_removed(
    quiet: tuple[ServerProcess, BackgroundJobs], database: str
) -> None:
    server, background = quiet
    installs = [Install(server.url, app_name="One").enroll({"n": number}) for number in range(3)]
    background.run()
    make_fail(database, installs[1], "DELETE", "snapshots")
    url = f"{server.url}/api/v1/admin/applications/one"
    change_id = plain_http.request("DELETE", url, headers=server.headers).json()["id"]
    for _ in range(2):
        execute(database, NO_PAUSE)
        background.run(CHANGES)
    assert [item["instance_id"] for item in server.get("instances").json()] == [installs[1].instance_id]
    assert change_of(server, change_id)["processed"] == 2
    succeed(database)
    execute(database, NO_PAUSE)
    background.run(CHANGES)
    ended = change_of(server, change_id)
    assert (ended["processed"], ended["failed"], ended["error"]) == (3, 0, None)
    assert server.get("applications").json() == []
    assert background.differences() == {}


@pytest.mark.long
def test_many_failing_instances_end_a_pass(quiet: tuple[ServerProcess, BackgroundJobs], database: str) -> None:
    server, background = quiet
    for _ in range(25):
        Install(server.url, app_name="One").enroll({"n": 1})
    background.run()
    execute(
        database,
        FAIL.replace("IF OLD.instance_id = '{instance_id}' THEN", "IF TRUE THEN").format(
            event="DELETE", table="snapshots"
        ),
    )
    change_id = post(server, "instances/bulk", {"action": "delete", "app": "one"})
    steps = 0
    while change_of(server, change_id)["finished_at"] is None:
        execute(database, NO_PAUSE)
        background.run(CHANGES)
        steps += 1
    ended = change_of(server, change_id)
    assert (ended["failed"], ended["processed"], steps) == (20, 0, 100)


def test_deletions_and_revocations_that_fail_are_listed_and_hold_up_no_other(
    quiet: tuple[ServerProcess, BackgroundJobs], database: str
) -> None:
    server, background = quiet
    installs = [Install(server.url).enroll({"n": number}) for number in range(14)]
    background.run()
    execute(
        database,
        FAIL.replace(" = '{instance_id}'", " = ANY('{{{instance_ids}}}')").format(
            instance_ids=",".join(install.instance_id for install in installs[:12]), event="DELETE", table="snapshots"
        ),
    )
    execute(database, "UPDATE instances SET erasing_since = now() - interval '1 hour'")
    background.run(DELETIONS)
    left = {item["instance_id"] for item in server.get("instances").json()}
    assert left == {install.instance_id for install in installs[:12]}
    page = server.get("failed-removals?limit=5")
    failures = page.json()
    while "next" in page.links:
        page = server.get("failed-removals?" + page.links["next"]["url"].partition("?")[2])
        failures += page.json()
    assert {failure["instance_id"] for failure in failures} == left
    assert {(failure["action"], failure["attempts"]) for failure in failures} == {("delete", 1)}
    assert all("erasure.delete_page: " in failure["error"] for failure in failures)
    background.run(DELETIONS)  # the next attempt is not due
    assert {failure["attempts"] for failure in server.get("failed-removals").json()} == {1}
    execute(database, "UPDATE failed_removals SET retry_at = now()")
    background.run(DELETIONS)
    assert {failure["attempts"] for failure in server.get("failed-removals").json()} == {2}
    assert select_column(database, "SELECT min(retry_at - failed_at)::text FROM failed_removals") == ["00:02:00"]
    succeed(database)
    execute(database, "UPDATE failed_removals SET retry_at = now()")
    background.run(DELETIONS)
    assert server.get("failed-removals").json() == server.get("instances").json() == []
    assert select_column(database, "SELECT count(*) FROM failed_removals") == [0]
    assert background.differences() == {}


def test_a_failure_is_in_the_log(serve: Callable[..., ServerProcess], database: str) -> None:
    server = serve()
    install = Install(server.url, app_name="One").enroll({"n": 1})
    make_fail(database, install, "UPDATE", "instances")
    post(server, "instances/bulk", {"action": "revoke", "app": "one"})
    wait_for(lambda: "could not revoke an instance" in server.log, "the failure in the log")
    (line,) = [line for line in server.log.splitlines() if "could not revoke an instance" in line]
    assert f"{install.instance_id[:8]}: instances.set_status: " in line
    assert install.instance_id not in server.log
