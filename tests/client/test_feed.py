"""The client's feed against real servers: a subscriber that applies each event holds the same data as a fresh list."""

import asyncio
import itertools
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from shm.server.handlers.feed import RETRY_WHEN_FULL_S
from shm_client import (
    Connected,
    Disconnected,
    InstanceRemoved,
    InstanceUpdated,
    Listed,
    RefusedError,
    ServerUnavailableError,
    UnknownApplicationError,
    feed,
)
from shm_client.http_errors import MAX_RETRY_AFTER_S, parse_retry_after
from shm_client.subscription import MIN_BACKOFF_S
from tests.support import plain_http
from tests.support.bulk_fleet import insert_fleet
from tests.support.clients import make_client, report_installs
from tests.support.databases import admin_cursor
from tests.support.fault_proxy import run_fault_proxy
from tests.support.feed_mirror import list_instances, mirror_feed
from tests.support.installs import Install
from tests.support.parameters import long_after
from tests.support.server_process import ServerProcess
from tests.support.signed_actions import act


class BackgroundReports:
    """Reports of installs, sent continuously until `stop`. Connection errors are ignored."""

    def __init__(self, installs: list[Install]) -> None:
        self._stopped = asyncio.Event()
        self._tasks = [asyncio.create_task(self._report(installs[first::3])) for first in range(3)]

    async def _report(self, installs: list[Install]) -> None:
        for number in itertools.count(100):
            if self._stopped.is_set():
                return
            for install in installs:
                try:
                    await asyncio.to_thread(install.snapshot, {"n": number, "some": {"text": "x" * (number % 50)}})
                    await asyncio.sleep(0.01)
                except httpx.TransportError:
                    await asyncio.sleep(0.1)

    async def stop(self) -> None:
        """Stops reporting and waits for the last response."""
        self._stopped.set()
        await asyncio.gather(*self._tasks)


async def test_the_mirror_equals_a_list_read_while_installs_report(server: ServerProcess) -> None:
    installs = report_installs(server, 20)
    async with make_client(server) as client:
        reports = BackgroundReports(installs)
        async with mirror_feed(client.feed(page_size=3)) as mirror:
            await mirror.wait_until(lambda: mirror.is_complete)
            await mirror.wait_until(lambda: len(mirror.instances) == len(installs))
            await mirror.wait_until(lambda: len(mirror.events_of(InstanceUpdated)) > 80)
            await reports.stop()
            await mirror.assert_matches_list(client)
            assert not mirror.events_of(Disconnected, InstanceRemoved)


@pytest.mark.long
async def test_the_feed_runs_while_pages_are_read(server: ServerProcess, database: str) -> None:
    insert_fleet(database, 1000)
    async with make_client(server) as client, mirror_feed(client.feed(page_size=10)) as mirror:
        await mirror.wait_until(lambda: mirror.events_of(Connected))
        assert not mirror.is_complete
        newcomer = await asyncio.to_thread(Install(server.url).enroll, {"n": 4711})
        await mirror.wait_until(lambda: newcomer.instance_id in mirror.instances)
        assert not mirror.is_complete
        await mirror.wait_until(lambda: mirror.is_complete)
        assert len(mirror.instances) == 1001
        await mirror.assert_matches_list(client)


async def test_a_killed_and_restarted_server_leaves_no_gap(serve: Callable[..., ServerProcess]) -> None:
    watched, other = serve(), serve()
    installs = report_installs(other, 12)
    async with make_client(watched) as client, mirror_feed(client.feed(page_size=5)) as mirror:
        await mirror.wait_until(lambda: mirror.is_complete and mirror.is_connected)
        reports = BackgroundReports(installs)
        await asyncio.to_thread(watched.kill)
        await mirror.wait_until(lambda: not mirror.is_connected)
        await asyncio.to_thread(act, installs.pop(), "erase")
        await asyncio.to_thread(watched.start)
        await mirror.wait_until(lambda: mirror.is_connected)
        await reports.stop()
        await mirror.assert_matches_list(client)
        assert mirror.events_of(InstanceRemoved)
        assert mirror.events_of(Listed) == [Listed(complete=False), Listed(complete=True)]  # and no second list


@pytest.mark.parametrize("cuts", [2, pytest.param(40, marks=pytest.mark.long)])
async def test_a_repeatedly_cut_connection_resumes_from_its_cursor(server: ServerProcess, cuts: int) -> None:
    installs = report_installs(server, 12)
    async with run_fault_proxy(server.port) as proxy, make_client(server, proxy.url) as client:
        reports = BackgroundReports(installs)
        async with mirror_feed(client.feed(page_size=4)) as mirror:
            for times in range(cuts):  # the first cuts happen during the list
                await mirror.wait_until(lambda: len(mirror.events_of(Connected)) > times)  # noqa: B023
                proxy.cut_connections()
            await mirror.wait_until(lambda: len(mirror.events_of(Connected)) > cuts and mirror.kpis)
            await reports.stop()
            await mirror.assert_matches_list(client)
            assert mirror.is_complete
            assert mirror.kpis
            assert not mirror.events_of(InstanceRemoved)


async def test_a_forgotten_cursor_leads_to_a_new_list_with_removals(
    serve: Callable[..., ServerProcess], database: str
) -> None:
    server = serve()
    erased, *others = report_installs(server, 5)
    async with (
        run_fault_proxy(server.port) as proxy,
        make_client(server, proxy.url) as client,
        mirror_feed(client.feed()) as mirror,
    ):
        await mirror.wait_until(lambda: mirror.is_complete and mirror.is_connected)
        await asyncio.to_thread(others[1].snapshot, {"n": 98})
        await mirror.wait_until(lambda: mirror.kpis)
        proxy.refuses_connections = True
        proxy.cut_connections()
        await asyncio.to_thread(act, erased, "erase")
        await asyncio.to_thread(others[0].snapshot, {"n": 99})
        with admin_cursor(database) as cursor:
            cursor.execute("UPDATE removals SET removed_at = now() - interval '25 hours'")
            await asyncio.to_thread(server.terminate)
            await asyncio.to_thread(server.start)  # the server deletes old removals in the background

            def forgotten() -> bool:
                cursor.execute("SELECT count(*) FROM removals")
                return cursor.fetchone() == (0,)

            await mirror.wait_until(forgotten)
        assert erased.instance_id in mirror.instances
        proxy.refuses_connections = False
        await mirror.wait_until(lambda: mirror.events_of(InstanceRemoved))
        await mirror.assert_matches_list(client)
        assert mirror.events_of(InstanceRemoved) == [InstanceRemoved(erased.instance_id)]
        assert mirror.events_of(Listed) == [Listed(complete=True), Listed(complete=False), Listed(complete=True)]


async def test_listing_again_removes_no_existing_instance(
    server: ServerProcess,
) -> None:
    installs = report_installs(server, 20)
    async with make_client(server) as client:
        subscription = client.feed(page_size=3)
        reports = BackgroundReports(installs)
        async with mirror_feed(subscription) as mirror:
            for times in range(1, 6):
                await mirror.wait_until(lambda: mirror.events_of(Listed).count(Listed(complete=True)) == times)  # noqa: B023
                subscription.relist()
            await reports.stop()
            await mirror.wait_until(lambda: mirror.events_of(Listed).count(Listed(complete=True)) == 6)
            await mirror.assert_matches_list(client)
            assert not mirror.events_of(InstanceRemoved)


async def test_kpis_missed_by_a_lost_connection_are_fetched(server: ServerProcess) -> None:
    (install,) = report_installs(server, 1)
    async with make_client(server) as client, mirror_feed(client.feed()) as mirror:
        await mirror.wait_until(lambda: mirror.is_connected)
        await asyncio.to_thread(install.snapshot, {"n": 1})
        await mirror.wait_until(lambda: mirror.kpis)
        for number in range(10, 13):  # KPIs are sent at most twice a second, so after the second snapshot
            await asyncio.to_thread(install.snapshot, {"n": -number})
            await asyncio.to_thread(install.snapshot, {"n": number})
            await mirror.wait_until(lambda: mirror.instances[install.instance_id].metrics == {"n": number})  # noqa: B023
            await asyncio.to_thread(server.kill)  # it forgets the KPIs that it has not sent
            await asyncio.to_thread(server.start)
            await mirror.assert_matches_list(client)
            assert [kpi.value for kpi in mirror.kpis["ledger"].kpis] == [number]


async def test_invalid_kpis_do_not_stop_the_feed(server: ServerProcess) -> None:
    (install,) = report_installs(server, 1)
    async with run_fault_proxy(server.port) as proxy, make_client(server, proxy.url) as client:
        subscription = client.feed()
        async with mirror_feed(subscription) as mirror:
            await mirror.wait_until(lambda: mirror.is_connected)
            await asyncio.to_thread(install.snapshot, {"n": 1})
            await mirror.wait_until(lambda: mirror.kpis)
            proxy.replacement = (b'"kpis":[', b'"kpis":{')
            subscription.relist()
            await mirror.wait_until(lambda: len(mirror.events_of(Connected)) == 2)
            assert not proxy.is_replacement_pending
            assert not mirror.events_of(Disconnected)
            await asyncio.to_thread(install.snapshot, {"n": 2})
            await mirror.assert_matches_list(client)


async def test_an_invalid_message_leads_to_a_new_list(server: ServerProcess) -> None:
    (install,) = report_installs(server, 1)
    async with (
        run_fault_proxy(server.port) as proxy,
        make_client(server, proxy.url) as client,
        mirror_feed(client.feed()) as mirror,
    ):
        await mirror.wait_until(lambda: mirror.is_connected)
        proxy.replacement = (b'{"type":"instance","cursor"', b'{"type":"instance","cursed"')
        while proxy.is_replacement_pending:
            await asyncio.to_thread(install.snapshot, {"n": 7})
        await mirror.wait_until(lambda: len(mirror.events_of(Listed)) > 1)
        await mirror.assert_matches_list(client)


async def test_a_message_of_an_unknown_type_is_ignored(server: ServerProcess) -> None:
    installs = report_installs(server, 2)
    async with (
        run_fault_proxy(server.port) as proxy,
        make_client(server, proxy.url) as client,
        mirror_feed(client.feed()) as mirror,
    ):
        await mirror.wait_until(lambda: mirror.is_connected)
        proxy.replacement = (b'{"type":"instance","cursor"', b'{"type":"newcomer","cursor"')
        while proxy.is_replacement_pending:
            await asyncio.to_thread(installs[0].snapshot, {"n": 7})
        await asyncio.to_thread(installs[1].snapshot, {"n": 8})
        await mirror.wait_until(lambda: mirror.instances[installs[1].instance_id].metrics == {"n": 8})
        assert not mirror.events_of(Disconnected)


async def test_a_feed_of_one_application_removes_instances_that_leave_it(server: ServerProcess) -> None:
    ledger, moving = report_installs(server, 2)
    kiosk = Install(server.url, app_name="Kiosk").enroll({"n": 5})
    async with make_client(server) as client, mirror_feed(client.feed("ledger")) as mirror:
        await mirror.wait_until(lambda: mirror.is_connected)
        assert mirror.instances.keys() == {ledger.instance_id, moving.instance_id}
        assert mirror.kpis["ledger"].instances.total == 2
        await asyncio.to_thread(kiosk.snapshot, {"n": 6})
        await asyncio.to_thread(moving.register, app_name="Kiosk")
        await asyncio.to_thread(moving.activate)
        await mirror.wait_until(lambda: mirror.kpis["ledger"].instances.total == 1)
        await mirror.assert_matches_list(client, "ledger")
        assert mirror.events_of(InstanceRemoved) == [InstanceRemoved(moving.instance_id)]
        assert mirror.kpis.keys() == {"ledger"}


async def test_newest_limits_the_list(server: ServerProcess, database: str) -> None:
    insert_fleet(database, 50)
    async with make_client(server) as client, mirror_feed(client.feed(newest=20, page_size=8)) as mirror:
        await mirror.wait_until(lambda: mirror.is_complete)
        newest = list(await list_instances(client))[:24]
        assert set(newest[:20]) <= mirror.instances.keys() <= set(newest)


@pytest.mark.parametrize("retry_refusals", [False, True])
async def test_a_refused_token_raises_or_is_retried(server: ServerProcess, retry_refusals: bool) -> None:
    async with make_client(server, token="shm_wrong-token-wrong-token") as client:
        if not retry_refusals:
            with pytest.raises(RefusedError, match="does not accept the token"):
                await anext(client.feed())
            return
        async with aclosing(client.feed(retry_refusals=True)) as events:
            disconnected = await anext(events)
            assert isinstance(disconnected, Disconnected)
            assert isinstance(disconnected.error, RefusedError)


async def test_removing_a_token_ends_its_feed(server: ServerProcess) -> None:
    tokens = f"{server.url}/api/v1/admin/tokens"
    async with plain_http.AsyncClient(headers=server.headers) as admin:
        token = (await admin.post(tokens, json={"name": "a script", "role": "viewer"})).json()
        async with make_client(server, token=token["token"]) as client, mirror_feed(client.feed()) as mirror:
            await mirror.wait_until(lambda: mirror.is_connected)
            (await admin.delete(f"{tokens}/{token['id']}")).raise_for_status()
            with pytest.raises(RefusedError):
                await mirror.wait_for_error()


@pytest.mark.parametrize("retry_refusals", [False, True])
async def test_an_unknown_application_raises_or_is_retried(server: ServerProcess, retry_refusals: bool) -> None:
    async with (
        make_client(server) as client,
        mirror_feed(client.feed("ledger", retry_refusals=retry_refusals)) as mirror,
    ):
        if not retry_refusals:
            with pytest.raises(UnknownApplicationError):
                await mirror.wait_for_error()
            return
        await mirror.wait_until(lambda: mirror.is_connected)
        await asyncio.to_thread(report_installs, server, 1)
        await mirror.wait_until(lambda: mirror.instances and mirror.kpis)
        await mirror.assert_matches_list(client, "ledger")


@pytest.mark.parametrize("limit", long_after(1, ["SHM_FEED_SUBSCRIBERS", "SHM_FEED_SUBSCRIBERS_PER_TOKEN"]))
async def test_a_full_server_is_retried_after_its_retry_after(serve: Callable[..., ServerProcess], limit: str) -> None:
    server = serve(**{limit: "1"})
    async with make_client(server) as client, mirror_feed(client.feed()) as first:
        await first.wait_until(lambda: first.is_connected)
        subscription = client.feed()
        async with mirror_feed(subscription) as second:
            await second.wait_until(lambda: second.events_of(Disconnected))
            (disconnected,) = second.events_of(Disconnected)
            assert isinstance(disconnected, Disconnected)
            assert isinstance(disconnected.error, ServerUnavailableError)
            assert disconnected.error.retry_after_s == RETRY_WHEN_FULL_S
            assert disconnected.retry_in_s > RETRY_WHEN_FULL_S
            await first.stop()
            subscription.relist()  # retries at once
            await second.wait_until(lambda: second.is_connected)


async def test_a_rate_limited_client_retries_after_the_retry_after(serve: Callable[..., ServerProcess]) -> None:
    server = serve(
        SHM_RATELIMIT_ENABLED="true",
        SHM_RATELIMIT_ADMIN_REQUESTS="1",
        SHM_RATELIMIT_ADMIN_PERIOD="50s",
        SHM_RATELIMIT_ADMIN_BURST="2",
    )
    async with make_client(server) as client:
        for _ in range(2):
            await client.stats()
        async with aclosing(client.feed()) as events:
            disconnected = await anext(events)
            assert isinstance(disconnected, Disconnected)
            assert isinstance(disconnected.error, ServerUnavailableError)
            assert disconnected.error.retry_after_s is not None
            assert disconnected.retry_in_s > disconnected.error.retry_after_s > MIN_BACKOFF_S


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, None), ("7", 7.0), ("soon", None), ("-1", None), ("99999999999", MAX_RETRY_AFTER_S), ("1.5", None)],
)
def test_retry_after_is_seconds(header: str | None, seconds: float | None) -> None:
    assert parse_retry_after(header) == seconds


def test_retry_after_may_be_a_date() -> None:
    now = datetime.now(UTC)
    assert parse_retry_after(f"{now + timedelta(days=1):%a, %d %b %Y %H:%M:%S GMT}") == MAX_RETRY_AFTER_S
    assert parse_retry_after(f"{now - timedelta(days=1):%a, %d %b %Y %H:%M:%S GMT}") == 0.0


async def test_the_function_feed_creates_a_client(server: ServerProcess) -> None:
    (install,) = report_installs(server, 1)
    async with aclosing(feed(server.url, server.admin_token, "ledger")) as events:
        assert isinstance(event := await anext(events), InstanceUpdated)
        assert event.instance.instance_id == install.instance_id
