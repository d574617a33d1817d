"""Events: each is written once, with the numbers of the lifecycle, and strangers cannot make them unbounded."""

import asyncio
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shm import __version__
from shm.analytics import events
from shm.core.page_tokens import parse_timestamp
from shm_client import Client, Event
from tests.support import plain_http
from tests.support.background_jobs import BackgroundJobs, run_background_jobs
from tests.support.databases import admin_cursor, execute, fresh_database
from tests.support.installs import Install
from tests.support.module_server import running_server
from tests.support.server_process import ServerProcess
from tests.support.time_travel import shift_times

pytestmark = pytest.mark.cluster

MAX_NEW_INSTALLS = 12


@dataclass(frozen=True)
class Environment:
    """A server, its database, and its background jobs, which the tests run themselves."""

    server: ServerProcess
    database: str
    background: BackgroundJobs

    def list_events(self, **query: Any) -> list[dict[str, Any]]:
        """The first page of the events, after the jobs have written all."""
        self.background.run()
        parameters = "&".join(f"{name}={value}" for name, value in query.items())
        listed: list[dict[str, Any]] = self.server.get(f"events?{parameters}").json()
        return listed


@pytest.fixture(scope="module")
def environment(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """One server for all tests; each uses an application of its own."""
    with (
        fresh_database(postgres) as dsn,
        run_background_jobs(dsn) as background,
        running_server(tmp_path_factory.mktemp("events"), dsn) as server,
    ):
        yield Environment(server, dsn, background)


def kinds(listed: list[dict[str, Any]]) -> list[tuple[str, str | None, int | None]]:
    """What the events say, without their times, the newest last."""
    return [(event["kind"], event["version"], event["instances"]) for event in reversed(listed)]


def test_a_version_is_an_event_at_its_first_snapshot(environment: Environment) -> None:
    first, second = (Install(environment.server.url, app_name="Versions", app_version="1.0") for _ in range(2))
    at = datetime.now(UTC) - timedelta(hours=5)
    first.enroll({"n": 1})
    first.snapshot({"n": 1}, at, app_version="0.9")
    second.enroll({"n": 1})
    first.snapshot({"n": 1}, app_version="1.1")
    listed = environment.list_events(app="versions")
    assert kinds(listed) == [("version_seen", version, None) for version in ("0.9", "1.0", "1.1")]
    assert parse_timestamp(listed[-1]["at"]) == at
    second.snapshot({"n": 1}, app_version="1.1")
    assert environment.list_events(app="Versions") == listed


def test_invented_versions_make_a_bounded_number_of_events(environment: Environment) -> None:
    install = Install(environment.server.url, app_name="Invented").enroll({})
    now = datetime.now(UTC)
    for number in range(events.MAX_VERSIONS_OF_APPLICATION + 5):
        at = now - timedelta(minutes=number)
        assert install.snapshot({}, at, app_version=f"v{secrets.token_hex(4)}").status_code == 202
        if number % 10 == 0:
            environment.background.run()
    of_days = [event["at"][:10] for event in environment.list_events(app="invented", limit=1000)]
    assert {day: of_days.count(day) for day in of_days[:1]} == {of_days[0]: events.MAX_VERSIONS_OF_APPLICATION}
    assert max(map(of_days.count, of_days)) <= events.MAX_VERSIONS_OF_APPLICATION


def test_days_have_the_numbers_of_the_lifecycle(environment: Environment) -> None:
    server, database = environment.server, environment.database
    installs = [Install(server.url, app_name="Days").enroll({"n": 1}) for _ in range(6)]
    url = f"{server.url}/api/v1/admin/instances/{installs[5].instance_id}"
    plain_http.post(f"{url}/revoke", headers=server.headers).raise_for_status()
    shift_times(database, timedelta(days=31))
    installs[0].snapshot({"n": 2})
    shift_times(database, timedelta(days=2))
    installs[1].snapshot({"n": 2})
    shift_times(database, timedelta(days=3))
    listed = [event for event in environment.list_events(app="days") if event["kind"] != "version_seen"]
    days = server.get("applications/days/lifecycle?period=30d").json()["days"]
    expected = {
        (f"instances_{name}", f"{day['day']}T00:00:00Z", day[name])
        for day in days
        for name in ("lost", "returned")
        if day[name]
    }
    assert {(event["kind"], event["since"], event["instances"]) for event in listed} == expected
    assert sorted(number for _, _, number in expected) == [1, 1, 5]
    for event in listed:
        assert parse_timestamp(event["at"]) - parse_timestamp(event["since"]) == timedelta(days=1)
    installs[2].snapshot({"n": 2})  # lost and returned on days that have their events already
    assert [event for event in environment.list_events(app="days") if event["kind"] != "version_seen"] == listed


def test_a_step_is_repeated_without_a_second_event(environment: Environment) -> None:
    Install(environment.server.url, app_name="Repeated").enroll({})
    listed = environment.list_events(limit=1000)
    execute(
        environment.database,
        "UPDATE event_head SET cursor = -1, days_until = now() - interval '400 days'",
    )
    assert environment.list_events(limit=1000) == listed


def test_pages_are_complete_and_events_are_deleted_after_a_year(environment: Environment) -> None:
    for number in range(4):
        Install(environment.server.url, app_name=f"Paged {number}").enroll({})
    whole = environment.list_events(limit=1000)
    seen: list[dict[str, Any]] = []
    url: str | None = f"{environment.server.url}/api/v1/admin/events?limit=3"
    while url:
        page = plain_http.get(url, headers=environment.server.headers)
        seen += page.json()
        link = page.links.get("next", {}).get("url")
        url = None if link is None else str(page.url.join(link))
    assert seen == whole == sorted(whole, key=lambda event: (event["at"], event["id"]), reverse=True)
    assert environment.server.get("events?app=nobody").json() == []
    old, young = whole[0]["id"], whole[1]["id"]
    with admin_cursor(environment.database) as cursor:
        for event, days in ((old, 366), (young, 364)):
            cursor.execute("UPDATE events SET at = now() - %s * interval '1 day' WHERE id = %s", [days, event])
    kept = [event["id"] for event in environment.list_events(limit=1000)]
    assert old not in kept
    assert young in kept


def test_a_deleted_application_has_no_events(environment: Environment) -> None:
    Install(environment.server.url, app_name="Gone").enroll({})
    assert kinds(environment.list_events(app="gone")) == [("version_seen", "1.4.2", None)]
    url = f"{environment.server.url}/api/v1/admin/applications/gone"
    plain_http.request("DELETE", url, headers=environment.server.headers).raise_for_status()
    assert environment.list_events(app="gone") == []


def test_approvals_floods_and_starts_are_events(database: str, serve: Callable[..., ServerProcess]) -> None:
    settings = {"SHM_MAX_NEW_INSTALLS": str(MAX_NEW_INSTALLS), "SHM_RATELIMIT_ENABLED": "true"}
    generous = {"SHM_RATELIMIT_REGISTER_REQUESTS": "1000", "SHM_MAX_NEW_INSTALLS_PER_ADDRESS": "1000"}
    with run_background_jobs(database, **settings) as background:
        server = serve(**settings, **generous)
        environment = Environment(server, database, background)
        installs = [Install(server.url) for _ in range(MAX_NEW_INSTALLS)]
        for install in installs:
            assert (install.register().status_code, install.activate().status_code) == (201, 200)
        assert kinds(environment.list_events()) == [("server_started", __version__, None)]
        waiting = [Install(server.url) for _ in range(2)]
        for install in waiting:
            install.register()
            assert install.activate().json()["status"] == "pending"
        expected = {("approvals_due", "ledger", 2), ("registration_flood", None, MAX_NEW_INSTALLS + 2)}
        listed = {(event["kind"], event["app"], event["instances"]) for event in environment.list_events()}
        assert listed - {("server_started", None, None)} == expected
        install = Install(server.url)
        install.register()
        assert install.activate().json()["status"] == "pending"
        followed = {(event["kind"], event["app"], event["instances"]) for event in environment.list_events()}
        expected = {("approvals_due", "ledger", 3), ("registration_flood", None, MAX_NEW_INSTALLS + 3)}
        assert followed - {("server_started", None, None)} == expected
        shift_times(database, timedelta(days=1))
        assert len(environment.list_events()) == 3  # those that wait are no news on the next day
        Install(server.url, app_name="Kiosk").register()
        assert len(environment.list_events()) == 3  # has not proved its key


def test_the_client_reads_events_page_by_page(environment: Environment) -> None:
    for number in range(3):
        Install(environment.server.url, app_name="Client", app_version=f"1.{number}").enroll({})
    listed = environment.list_events(app="client")

    async def read() -> list[Event]:
        async with Client(environment.server.url, environment.server.admin_token) as client:
            page = await client.events("client", 2)
            assert page.next is not None
            older = await client.next_events(page.next)
            assert older.next is None
            return page.events + older.events

    assert [event.id for event in asyncio.run(read())] == [event["id"] for event in listed]
