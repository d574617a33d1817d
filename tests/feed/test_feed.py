"""The change feed: after a list's cursor it sends every change in order, as newest states."""

import asyncio
from collections.abc import Callable
from typing import Any

import psycopg2
import pytest
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

from tests.support import plain_http
from tests.support.databases import admin_cursor
from tests.support.installs import Install
from tests.support.server_process import ServerProcess
from tests.support.subscriber import subscribe

pytestmark = pytest.mark.cluster


def list_instances(server: ServerProcess, query: str = "") -> tuple[dict[str, dict[str, Any]], int]:
    """Every instance by ID, and the cursor at which the list is current."""
    response = server.get(f"instances?limit=1000{query}")
    return {item["instance_id"]: item for item in response.json()}, int(response.headers["X-Feed-Cursor"])


async def test_the_feed_sends_hello_with_its_cursor_then_a_snapshot(server: ServerProcess) -> None:
    install = Install(server.url).enroll({"a": 1})
    _, cursor = list_instances(server)
    async with subscribe(server) as subscriber:
        assert await subscriber.message() == {"type": "hello", "cursor": cursor, "heartbeat_s": 15}
        await asyncio.to_thread(install.snapshot, {"a": 2})
        message = await subscriber.until("instance")
        assert message["instance"]["metrics"] == {"a": 2}
        assert message["instance"] == list_instances(server)[0][install.instance_id]


async def test_a_reconnected_subscriber_receives_the_missed_changes(server: ServerProcess) -> None:
    installs = [Install(server.url).enroll({"n": number}) for number in range(5)]
    mirror, cursor = list_instances(server)
    for install in installs[1:4]:
        install.snapshot({"n": 10})
    now, _ = list_instances(server)
    async with subscribe(server, f"?since={cursor}") as subscriber:
        subscriber.instances = mirror
        for _ in range(4):
            await subscriber.message()
        assert subscriber.instances == now
        assert subscriber.cursors == sorted(subscriber.cursors)
        assert len(subscriber.cursors) == 3


REPORTS = 7  # of each install


async def test_the_mirror_equals_a_fresh_list_while_two_servers_write(serve: Callable[..., ServerProcess]) -> None:
    servers = [serve(), serve()]
    installs = [Install(servers[number % 2].url).enroll({"n": 0}) for number in range(12)]
    mirror, cursor = list_instances(servers[0])

    async def send_reports(install: Install) -> None:
        for number in range(1, REPORTS + 1):
            assert (await asyncio.to_thread(install.snapshot, {"n": number})).status_code == 202

    async with (
        subscribe(servers[0], f"?since={cursor}") as first,
        subscribe(servers[1], f"?since={cursor}") as second,
    ):
        writers = asyncio.gather(*(send_reports(install) for install in installs))
        readers = [asyncio.create_task(read_to_end(subscriber, installs, mirror)) for subscriber in (first, second)]
        await writers
        truth, newest = list_instances(servers[1])
        await asyncio.gather(*readers)
        assert first.instances == second.instances == truth
        assert max(first.cursors) == max(second.cursors) == newest
        assert first.cursors == sorted(first.cursors)


async def read_to_end(subscriber: Any, installs: list[Install], mirror: dict[str, dict[str, Any]]) -> None:
    """Reads until the last snapshot of every install has arrived."""
    subscriber.instances = dict(mirror)
    while any(subscriber.instances[install.instance_id]["metrics"]["n"] < REPORTS for install in installs):
        await subscriber.message()


async def test_kpis_in_the_feed_equal_those_of_the_api_at_quiescence(server: ServerProcess) -> None:
    install = Install(server.url).enroll({"sent": 1, "beta": True, "db": "x"})
    _, cursor = list_instances(server)
    async with subscribe(server, f"?since={cursor}") as subscriber:
        for number in range(20):
            await asyncio.to_thread(install.snapshot, {"sent": number, "beta": False, "db": "y"})
        _, newest = list_instances(server)
        received = await subscriber.until("kpis", newest)
        expected = server.get("applications/ledger/kpis").json()
        for body in (received, expected):
            body.pop("as_of")
            body.pop("spread_as_of")
        assert received == {"type": "kpis", "cursor": newest} | expected


async def test_a_feed_can_continue_from_every_cursor_that_it_sent(server: ServerProcess) -> None:
    installs = [Install(server.url).enroll({"n": 0}) for _ in range(12)]
    _, cursor = list_instances(server)
    mirror: dict[str, dict[str, Any]] = {}
    stop = asyncio.Event()

    async def send_reports(own: list[Install]) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            for install in own:
                await asyncio.to_thread(install.snapshot, {"n": number})

    writers = asyncio.gather(*(send_reports(installs[first::3]) for first in range(3)))
    for _ in range(8):  # each subscription is dropped right after KPIs, which are read after the instances
        async with subscribe(server, f"?since={cursor}") as subscriber:
            subscriber.instances = mirror
            await subscriber.until("kpis")
            cursor = subscriber.cursor
    stop.set()
    await writers
    truth, newest = list_instances(server)
    async with subscribe(server, f"?since={cursor}") as subscriber:
        subscriber.instances = mirror
        while max(subscriber.cursors, default=0) < newest:
            await subscriber.message()
    assert mirror == truth


async def test_an_install_that_moves_to_another_application_leaves_the_first_one(server: ServerProcess) -> None:
    install = Install(server.url, app_name="Old").enroll({"n": 1})
    remaining = Install(server.url, app_name="Old").enroll({"n": 2})
    async with subscribe(server, "?app=old") as old, subscribe(server) as everything:
        for subscriber in (old, everything):
            await subscriber.until("hello")
        await asyncio.to_thread(install.register, app_name="New")
        await asyncio.to_thread(install.activate)
        assert (await old.until("removed"))["instance_id"] == install.instance_id
        assert (await old.until("kpis"))["instances"]["total"] == 1
        assert (await everything.until("instance"))["instance"]["app_slug"] == "new"
        await everything.until("kpis")
        while {"old", "new"} - everything.kpis.keys():
            await everything.message()
        assert everything.kpis["old"]["kpis"][0]["value"] == 2
        assert everything.kpis["new"]["kpis"][0]["value"] == 1
    assert remaining.instance_id not in old.instances


async def test_a_feed_that_cannot_read_changes_is_closed(server: ServerProcess, database: str) -> None:
    install = Install(server.url).enroll({"a": 1})
    async with subscribe(server) as subscriber:
        await subscriber.until("hello")
        with admin_cursor(database) as cursor:
            cursor.execute("ALTER VIEW instance_items RENAME TO elsewhere")
            await asyncio.to_thread(install.snapshot, {"a": 2})
            assert await subscriber.closed() == 1011
            cursor.execute("ALTER VIEW elsewhere RENAME TO instance_items")


async def test_a_filter_by_application_shows_only_that_one(server: ServerProcess) -> None:
    ledger = Install(server.url, app_name="Ledger").enroll()
    kiosk = Install(server.url, app_name="Kiosk").enroll()
    async with subscribe(server, "?app=kiosk") as subscriber:
        await subscriber.until("hello")
        await asyncio.to_thread(ledger.snapshot, {"a": 1})
        await asyncio.to_thread(kiosk.snapshot, {"a": 2})
        await subscriber.until("kpis")
        assert list(subscriber.instances) == [kiosk.instance_id]
        assert list(subscriber.kpis) == ["kiosk"]


async def test_a_cursor_of_another_database_gets_a_resync(server: ServerProcess) -> None:
    async with subscribe(server, "?since=4711") as subscriber:
        assert (await subscriber.message())["type"] == "hello"
        assert (await subscriber.message())["type"] == "resync"


@pytest.mark.parametrize("query", ["?since=-1", "?since=x", "?since=1.5", "?since=9223372036854775808", "?cursor=3"])
async def test_an_invalid_cursor_is_refused_before_the_upgrade(shared_server: ServerProcess, query: str) -> None:
    with pytest.raises(HTTPClientError) as caught:
        async with subscribe(shared_server, query):
            pass
    assert caught.value.code == 400


async def test_the_feed_requires_a_token_and_refuses_other_origins(shared_server: ServerProcess) -> None:
    url = f"ws://127.0.0.1:{shared_server.port}/api/v1/admin/feed"
    with pytest.raises(HTTPClientError) as caught:
        await websocket_connect(HTTPRequest(url))
    assert caught.value.code == 401
    for origin in (
        "https://evil.example",
        "null",
        "http://[x",
        "",
        f"http://127.0.0.1:{shared_server.port}.evil.example",
    ):
        with pytest.raises(HTTPClientError) as caught:
            await websocket_connect(HTTPRequest(url, headers=shared_server.headers | {"Origin": origin}))
        assert caught.value.code == 403, origin
    own = {
        "Origin": f"http://127.0.0.1:{shared_server.port}"
    }  # a page of the same origin, and other programs, send this
    async with subscribe(shared_server, headers=shared_server.headers | own) as subscriber:
        assert (await subscriber.message())["type"] == "hello"


def test_the_feed_without_an_upgrade_is_refused(shared_server: ServerProcess) -> None:
    plain = plain_http.get(f"{shared_server.url}/api/v1/admin/feed", headers=shared_server.headers)
    assert (plain.status_code, plain.json()["code"]) == (400, "upgrade_wanted")


async def test_a_restarted_server_continues_from_the_cursor(server: ServerProcess) -> None:
    install = Install(server.url).enroll({"a": 1})
    async with subscribe(server) as subscriber:
        cursor = (await subscriber.message())["cursor"]
        server.kill()
        assert await subscriber.closed() is None
    server.start()
    assert install.snapshot({"a": 2}).status_code == 202
    async with subscribe(server, f"?since={cursor}") as subscriber:
        assert (await subscriber.until("instance"))["instance"]["metrics"] == {"a": 2}


async def test_the_feed_continues_after_its_listener_lost_its_backend(server: ServerProcess, database: str) -> None:
    install = Install(server.url).enroll({"a": 1})
    async with subscribe(server) as subscriber:
        await subscriber.until("hello")
        connection = psycopg2.connect(database)
        with connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            assert cursor.fetchone() != (0,)
        connection.close()
        assert (await asyncio.to_thread(install.snapshot, {"a": 2})).status_code == 202
        assert (await subscriber.until("instance"))["instance"]["metrics"] == {"a": 2}


async def test_a_stopping_server_closes_feeds_with_going_away(server: ServerProcess) -> None:
    async with subscribe(server) as subscriber:
        await subscriber.until("hello")
        stopping = asyncio.create_task(asyncio.to_thread(server.terminate))
        assert await subscriber.closed() == 1001
        assert await stopping == 0
