"""The client's feed on real servers: whoever applies each change holds what a fresh list shows, whatever happens."""

import asyncio
import itertools
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from shm.handlers.feed import FULL_FOR_S
from shm_client import (
    Away,
    Connected,
    Listed,
    Put,
    RefusedError,
    Removed,
    UnknownApplicationError,
    UnreachableError,
    feed,
)
from shm_client.refusals import LONGEST_WAIT, retry_after
from shm_client.subscription import BACKOFF_FIRST
from tests.support import plain_http
from tests.support.clients import client_of, fleet
from tests.support.databases import admin_cursor
from tests.support.installs import Install
from tests.support.many_installs import make_fleet
from tests.support.mirror import listed, mirrored
from tests.support.proxy import between
from tests.support.server_process import ServerProcess
from tests.support.signed_actions import act


class Reporters:
    """Installs that report as fast as they can until they are told to stop; a server that is away is let be."""

    def __init__(self, installs: list[Install]) -> None:
        self._ended = asyncio.Event()
        self._tasks = [asyncio.create_task(self._report(installs[first::3])) for first in range(3)]

    async def _report(self, mine: list[Install]) -> None:
        for number in itertools.count(100):
            if self._ended.is_set():
                return
            for install in mine:
                try:
                    await asyncio.to_thread(install.snapshot, {"n": number, "some": {"text": "x" * (number % 50)}})
                except httpx.TransportError:
                    await asyncio.sleep(0.1)

    async def stop(self) -> None:
        """Returns when the last report is answered."""
        self._ended.set()
        await asyncio.gather(*self._tasks)


async def test_the_mirror_equals_a_fresh_list_while_installs_report_through_many_pages(server: ServerProcess) -> None:
    installs = fleet(server, 20)
    async with client_of(server) as client:
        reporters = Reporters(installs)
        async with mirrored(client.feed(page=3)) as mirror:
            await mirror.until(lambda: mirror.complete)
            await mirror.until(lambda: len(mirror.instances) == len(installs))
            await mirror.until(lambda: len(mirror.told(Put)) > 200)
            await reporters.stop()
            await mirror.equals_a_fresh_list(client)
            assert not mirror.told(Away, Removed)


async def test_the_feed_runs_already_while_pages_are_read(server: ServerProcess, database: str) -> None:
    make_fleet(database, 3000)
    async with client_of(server) as client, mirrored(client.feed(page=10)) as mirror:
        await mirror.until(lambda: mirror.told(Connected))
        assert not mirror.complete
        newcomer = await asyncio.to_thread(Install(server.url).arrived, {"n": 4711})
        await mirror.until(lambda: newcomer.instance_id in mirror.instances)
        assert not mirror.complete
        await mirror.until(lambda: mirror.complete)
        assert len(mirror.instances) == 3001
        await mirror.equals_a_fresh_list(client)


async def test_a_server_that_is_killed_and_started_again_leaves_no_gap(serve: Callable[..., ServerProcess]) -> None:
    watched, other = serve(), serve()
    installs = fleet(other, 12)
    async with client_of(watched) as client, mirrored(client.feed(page=5)) as mirror:
        await mirror.until(lambda: mirror.complete and mirror.connected)
        reporters = Reporters(installs)
        for _ in range(2):
            await asyncio.to_thread(watched.kill)
            await mirror.until(lambda: not mirror.connected)
            await asyncio.to_thread(act, installs.pop(), "erase")
            await asyncio.to_thread(watched.start)
            await mirror.until(lambda: mirror.connected)
        await reporters.stop()
        await mirror.equals_a_fresh_list(client)
        assert len(mirror.told(Removed)) >= 2
        assert mirror.told(Listed) == [Listed(complete=False), Listed(complete=True)]  # and none again


async def test_a_connection_that_is_cut_again_and_again_is_taken_up_from_the_last_cursor(server: ServerProcess) -> None:
    installs = fleet(server, 12)
    async with between(server.port) as proxy, client_of(server, proxy.url) as client:
        reporters = Reporters(installs)
        async with mirrored(client.feed(page=4)) as mirror:
            for times in range(8):  # the first ones while it lists
                await mirror.until(lambda: len(mirror.told(Connected)) > times)  # noqa: B023
                proxy.cut()
            await mirror.until(lambda: len(mirror.told(Connected)) > 8)
            await reporters.stop()
            await mirror.equals_a_fresh_list(client)
            assert mirror.complete
            assert mirror.kpis
            assert not mirror.told(Removed)


async def test_a_cursor_that_the_server_has_forgotten_leads_to_a_new_list_and_tells_what_vanished(
    serve: Callable[..., ServerProcess], database: str
) -> None:
    server = serve()
    gone, *stay = fleet(server, 5)
    async with between(server.port) as proxy, client_of(server, proxy.url) as client, mirrored(client.feed()) as mirror:
        await mirror.until(lambda: mirror.complete and mirror.connected)
        await asyncio.to_thread(stay[1].snapshot, {"n": 98})
        await mirror.until(lambda: mirror.kpis)
        proxy.closed = True
        proxy.cut()
        await asyncio.to_thread(act, gone, "erase")
        await asyncio.to_thread(stay[0].snapshot, {"n": 99})
        with admin_cursor(database) as cursor:
            cursor.execute("UPDATE removals SET removed_at = now() - interval '25 hours'")
            await asyncio.to_thread(server.terminate)
            await asyncio.to_thread(server.start)  # it forgets by itself

            def forgotten() -> bool:
                cursor.execute("SELECT count(*) FROM removals")
                return cursor.fetchone() == (0,)

            await mirror.until(forgotten)
        assert gone.instance_id in mirror.instances
        proxy.closed = False
        await mirror.until(lambda: mirror.told(Removed))
        await mirror.equals_a_fresh_list(client)
        assert mirror.told(Removed) == [Removed(gone.instance_id)]
        assert mirror.told(Listed) == [Listed(complete=True), Listed(complete=False), Listed(complete=True)]


async def test_a_list_that_is_read_again_while_installs_report_removes_nobody_who_is_there(
    server: ServerProcess,
) -> None:
    installs = fleet(server, 20)
    async with client_of(server) as client:
        subscription = client.feed(page=3)
        reporters = Reporters(installs)
        async with mirrored(subscription) as mirror:
            for times in range(1, 6):
                await mirror.until(lambda: mirror.told(Listed).count(Listed(complete=True)) == times)  # noqa: B023
                subscription.list_again()
            await reporters.stop()
            await mirror.until(lambda: mirror.told(Listed).count(Listed(complete=True)) == 6)
            await mirror.equals_a_fresh_list(client)
            assert not mirror.told(Removed)


async def test_figures_that_a_lost_connection_did_not_tell_are_asked_for(server: ServerProcess) -> None:
    (install,) = fleet(server, 1)
    async with client_of(server) as client, mirrored(client.feed()) as mirror:
        await mirror.until(lambda: mirror.connected)
        await asyncio.to_thread(install.snapshot, {"n": 1})
        await mirror.until(lambda: mirror.kpis)
        for number in range(10, 13):  # figures are told twice a second at most, so later than the second snapshot
            await asyncio.to_thread(install.snapshot, {"n": -number})
            await asyncio.to_thread(install.snapshot, {"n": number})
            await mirror.until(lambda: mirror.instances[install.instance_id].metrics == {"n": number})  # noqa: B023
            await asyncio.to_thread(server.kill)  # what it had yet to tell is forgotten with it
            await asyncio.to_thread(server.start)
            await mirror.equals_a_fresh_list(client)
            assert [one.value for one in mirror.kpis["ledger"].kpis] == [number]


async def test_figures_that_cannot_be_read_hold_up_nothing_else(server: ServerProcess) -> None:
    (install,) = fleet(server, 1)
    async with between(server.port) as proxy, client_of(server, proxy.url) as client:
        subscription = client.feed()
        async with mirrored(subscription) as mirror:
            await mirror.until(lambda: mirror.connected)
            await asyncio.to_thread(install.snapshot, {"n": 1})
            await mirror.until(lambda: mirror.kpis)
            proxy.swap = (b'"kpis":[', b'"kpis":{')
            subscription.list_again()
            await mirror.until(lambda: len(mirror.told(Connected)) == 2)
            assert not proxy.pending
            assert not mirror.told(Away)
            await asyncio.to_thread(install.snapshot, {"n": 2})
            await mirror.equals_a_fresh_list(client)


async def test_a_message_that_cannot_be_read_leads_to_a_new_list(server: ServerProcess) -> None:
    (install,) = fleet(server, 1)
    async with between(server.port) as proxy, client_of(server, proxy.url) as client, mirrored(client.feed()) as mirror:
        await mirror.until(lambda: mirror.connected)
        proxy.swap = (b'{"type":"instance","cursor"', b'{"type":"instance","cursed"')
        while proxy.pending:
            await asyncio.to_thread(install.snapshot, {"n": 7})
        await mirror.until(lambda: len(mirror.told(Listed)) > 1)
        await mirror.equals_a_fresh_list(client)


async def test_a_message_of_an_unknown_type_is_let_be(server: ServerProcess) -> None:
    installs = fleet(server, 2)
    async with between(server.port) as proxy, client_of(server, proxy.url) as client, mirrored(client.feed()) as mirror:
        await mirror.until(lambda: mirror.connected)
        proxy.swap = (b'{"type":"instance","cursor"', b'{"type":"newcomer","cursor"')
        while proxy.pending:
            await asyncio.to_thread(installs[0].snapshot, {"n": 7})
        await asyncio.to_thread(installs[1].snapshot, {"n": 8})
        await mirror.until(lambda: mirror.instances[installs[1].instance_id].metrics == {"n": 8})
        assert not mirror.told(Away)


async def test_only_the_application_that_was_asked_for_is_told_and_what_leaves_it_is_removed(
    server: ServerProcess,
) -> None:
    ledger, moves = fleet(server, 2)
    kiosk = Install(server.url, app_name="Kiosk").arrived({"n": 5})
    async with client_of(server) as client, mirrored(client.feed("ledger")) as mirror:
        await mirror.until(lambda: mirror.connected)
        assert mirror.instances.keys() == {ledger.instance_id, moves.instance_id}
        assert mirror.kpis["ledger"].instances.total == 2
        await asyncio.to_thread(kiosk.snapshot, {"n": 6})
        await asyncio.to_thread(moves.register, app_name="Kiosk")
        await asyncio.to_thread(moves.activate)
        await mirror.until(lambda: mirror.kpis["ledger"].instances.total == 1)
        await mirror.equals_a_fresh_list(client, "ledger")
        assert mirror.told(Removed) == [Removed(moves.instance_id)]
        assert mirror.kpis.keys() == {"ledger"}


async def test_of_the_newest_alone_older_ones_are_not_listed(server: ServerProcess, database: str) -> None:
    make_fleet(database, 50)
    async with client_of(server) as client, mirrored(client.feed(newest=20, page=8)) as mirror:
        await mirror.until(lambda: mirror.complete)
        newest = list(await listed(client))[:24]
        assert set(newest[:20]) <= mirror.instances.keys() <= set(newest)


@pytest.mark.parametrize("patient", [False, True])
async def test_a_refused_token_raises_or_is_waited_for(server: ServerProcess, patient: bool) -> None:
    async with client_of(server, token="shm_wrong-token-wrong-token") as client:
        if not patient:
            with pytest.raises(RefusedError, match="does not accept the token"):
                await anext(client.feed())
            return
        async with aclosing(client.feed(patient=True)) as changes:
            away = await anext(changes)
            assert isinstance(away, Away)
            assert isinstance(away.error, RefusedError)


async def test_a_token_that_ends_ends_its_feed(server: ServerProcess) -> None:
    tokens = f"{server.url}/api/v1/admin/tokens"
    async with plain_http.AsyncClient(headers=server.headers) as admin:
        made = (await admin.post(tokens, json={"name": "a script", "role": "viewer"})).json()
        async with client_of(server, token=made["token"]) as client, mirrored(client.feed()) as mirror:
            await mirror.until(lambda: mirror.connected)
            (await admin.delete(f"{tokens}/{made['id']}")).raise_for_status()
            with pytest.raises(RefusedError):
                await mirror.ended()


@pytest.mark.parametrize("patient", [False, True])
async def test_an_application_that_there_is_not_raises_or_is_waited_for(server: ServerProcess, patient: bool) -> None:
    async with client_of(server) as client, mirrored(client.feed("ledger", patient=patient)) as mirror:
        if not patient:
            with pytest.raises(UnknownApplicationError):
                await mirror.ended()
            return
        await mirror.until(lambda: mirror.connected)
        await asyncio.to_thread(fleet, server, 1)
        await mirror.until(lambda: mirror.instances and mirror.kpis)
        await mirror.equals_a_fresh_list(client, "ledger")


@pytest.mark.parametrize("limit", ["SHM_FEED_SUBSCRIBERS", "SHM_FEED_SUBSCRIBERS_PER_TOKEN"])
async def test_a_full_server_is_asked_again_when_it_says_and_not_before(
    serve: Callable[..., ServerProcess], limit: str
) -> None:
    server = serve(**{limit: "1"})
    async with client_of(server) as client, mirrored(client.feed()) as first:
        await first.until(lambda: first.connected)
        subscription = client.feed()
        async with mirrored(subscription) as second:
            await second.until(lambda: second.told(Away))
            (away,) = second.told(Away)
            assert isinstance(away, Away)
            assert isinstance(away.error, UnreachableError)
            assert away.error.retry_after == FULL_FOR_S
            assert away.retry_in > FULL_FOR_S
            await first.stop()
            subscription.list_again()  # somebody does not want to wait
            await second.until(lambda: second.connected)


async def test_a_busy_server_is_asked_again_when_it_says(serve: Callable[..., ServerProcess]) -> None:
    server = serve(
        SHM_RATELIMIT_ENABLED="true",
        SHM_RATELIMIT_ADMIN_REQUESTS="1",
        SHM_RATELIMIT_ADMIN_PERIOD="50s",
        SHM_RATELIMIT_ADMIN_BURST="2",
    )
    async with client_of(server) as client:
        for _ in range(2):
            await client.stats()
        async with aclosing(client.feed()) as changes:
            away = await anext(changes)
            assert isinstance(away, Away)
            assert isinstance(away.error, UnreachableError)
            assert away.error.retry_after is not None
            assert away.retry_in > away.error.retry_after > BACKOFF_FIRST


@pytest.mark.parametrize(
    ("said", "seconds"),
    [(None, None), ("7", 7.0), ("soon", None), ("-1", None), ("99999999999", LONGEST_WAIT), ("1.5", None)],
)
def test_retry_after_is_seconds(said: str | None, seconds: float | None) -> None:
    assert retry_after(said) == seconds


def test_retry_after_may_be_a_date() -> None:
    now = datetime.now(UTC)
    assert retry_after(f"{now + timedelta(days=1):%a, %d %b %Y %H:%M:%S GMT}") == LONGEST_WAIT
    assert retry_after(f"{now - timedelta(days=1):%a, %d %b %Y %H:%M:%S GMT}") == 0.0


async def test_the_function_feed_has_a_client_of_its_own(server: ServerProcess) -> None:
    (install,) = fleet(server, 1)
    async with aclosing(feed(server.url, server.admin_token, "ledger")) as changes:
        assert isinstance(put := await anext(changes), Put)
        assert put.instance.instance_id == install.instance_id
