"""What a subscriber may cost: a place in the feed and one write in flight; and how many there may be."""

import asyncio
import base64
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta

import psutil
import pytest
from tornado.httpclient import HTTPClientError

from shm.db.statements import statements
from shm.feed.hub import READ_INTERVAL_S
from tests.support import plain_http
from tests.support.databases import admin_cursor
from tests.support.installs import Install
from tests.support.prometheus_scrape import sample_value, scrape
from tests.support.server_process import ServerProcess
from tests.support.subscriber import Subscriber, subscribe

LIMIT_S = 30
UNREAD = 100
CROWD = 300
TEXT = ["x" * 250] * 12  # of a metric: much more than what the system's buffers hold is told to each
LARGEST_WRITE = 256 * 2**10
MIB = 2**20


@contextmanager
def unread(server: ServerProcess, number: int) -> Iterator[None]:
    """So many subscribers that open a feed and never read a byte of it, their buffers small."""
    with ExitStack() as sockets:
        for _ in range(number):
            peer = sockets.enter_context(socket.socket())
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            peer.connect(("127.0.0.1", server.port))
            key = base64.b64encode(os.urandom(16)).decode()
            peer.sendall(
                f"GET /api/v1/admin/feed HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
                f"Authorization: {server.headers['Authorization']}\r\n\r\n".encode()
            )
        yield


async def subscribers(server: ServerProcess, number: int) -> None:
    """Returns once so many feeds are open."""
    async with asyncio.timeout(LIMIT_S):
        while sample_value(await asyncio.to_thread(scrape, server), "shm_feed_subscribers", worker="0") != number:  # noqa: ASYNC110 - in another process
            await asyncio.sleep(0.05)


def added_token(server: ServerProcess) -> str:
    """A viewer's."""
    url, said = f"{server.url}/api/v1/admin/tokens", {"name": "screen", "role": "viewer"}
    return str(plain_http.post(url, json=said, headers=server.headers).json()["token"])


def refused(response: HTTPClientError) -> tuple[int, str, bool]:
    """The status, the code, and whether it says when to come again."""
    assert response.response is not None
    headers = response.response.headers
    return response.code, json.loads(response.response.body)["code"], int(headers["Retry-After"]) > 0


async def test_a_token_has_so_many_feeds_and_a_server_so_many_in_all(serve: Callable[..., ServerProcess]) -> None:
    server = serve(SHM_FEED_SUBSCRIBERS="3", SHM_FEED_SUBSCRIBERS_PER_TOKEN="2")
    other = {"Authorization": f"Bearer {added_token(server)}"}
    async with subscribe(server) as first, subscribe(server):
        with pytest.raises(HTTPClientError) as caught:
            async with subscribe(server):
                pass
        assert refused(caught.value) == (429, "too_many_subscribers", True)
        async with subscribe(server, headers=other):
            with pytest.raises(HTTPClientError) as caught:
                async with subscribe(server, headers=other):
                    pass
            assert refused(caught.value) == (503, "too_many_subscribers", True)
        await subscribers(server, 2)
        async with subscribe(server, headers=other) as again:
            assert (await again.message())["type"] == "hello"
        assert (await first.message())["type"] == "hello"


async def test_a_refused_upgrade_takes_no_place(serve: Callable[..., ServerProcess]) -> None:
    server = serve(SHM_FEED_SUBSCRIBERS="1")
    for _ in range(3):
        with pytest.raises(HTTPClientError):
            async with subscribe(server, "?since=x"):
                pass
    with unread(server, 1):
        await subscribers(server, 1)
    await subscribers(server, 0)
    async with subscribe(server) as subscriber:
        assert (await subscriber.message())["type"] == "hello"


async def test_a_peer_that_answers_no_ping_is_let_go(serve: Callable[..., ServerProcess]) -> None:
    server = serve(SHM_FEED_HEARTBEAT="1s")
    async with subscribe(server) as lively:
        with unread(server, 3):
            await subscribers(server, 4)
            await subscribers(server, 1)  # their sockets are still open
        assert (await lively.message())["type"] == "hello"


async def test_a_hundred_that_never_read_cost_no_memory_and_hold_up_nobody(
    serve: Callable[..., ServerProcess],
) -> None:
    server = serve(SHM_FEED_HEARTBEAT="10m")  # else those who answer no ping are let go
    installs = [Install(server.url).enroll({"n": 0, "text": TEXT}) for _ in range(40)]
    async with subscribe(server, f"?since={cursor_of(server)}") as good:
        await reported(installs, range(1, 3))
        await told(good, installs, 2)
        before = psutil.Process(server.pid).memory_info().rss
        with unread(server, UNREAD):
            await subscribers(server, UNREAD + 1)
            for number in range(3, 40, 4):
                await reported(installs, range(number, number + 4))
                await told(good, installs, number + 3)
            # 5 MB were sent to each of them: as queues that were half a gigabyte
            assert psutil.Process(server.pid).memory_info().rss - before < UNREAD * LARGEST_WRITE + 30 * MIB
            assert good.cursors == sorted(good.cursors)
            await subscribers(server, UNREAD + 1)


async def test_feeds_that_come_and_go_leave_no_memory_behind(server: ServerProcess) -> None:
    resident = []
    for _ in range(10):
        with unread(server, CROWD):
            await subscribers(server, CROWD)
        await subscribers(server, 0)
        resident.append(psutil.Process(server.pid).memory_info().rss / MIB)
    assert resident[-1] - resident[2] < 10, resident  # left to the collector it was 15 and more


@pytest.mark.parametrize("size", [6_000, pytest.param(100_000, marks=pytest.mark.long)])
async def test_a_burst_arrives_as_newest_states(serve: Callable[..., ServerProcess], database: str, size: int) -> None:
    """So many changes of 20 installs, of which a subscriber reads nothing before all are there."""
    server = serve(SHM_FEED_HEARTBEAT="10m")  # whoever reads nothing answers no ping either
    installs = [Install(server.url).enroll({"n": 0}) for _ in range(20)]
    async with subscribe(server, f"?since={cursor_of(server)}") as slow, subscribe(server) as quick:
        before, started = cursor_of(server), time.monotonic()
        each = size // len(installs)
        statement, begins = statements()["intake.store_batch"], datetime.now(UTC)
        with admin_cursor(database) as cursor:  # as another server would, one of each install at a time
            cursor.execute(statement.preparation or "")
            for number in range(1, each + 1):
                cursor.execute("BEGIN")
                at = begins + timedelta(milliseconds=number)
                batch = [stored(install, number, at) for install in installs]
                cursor.execute(statement.sql, {"batch": json.dumps(batch)})
                assert {verdict for _, verdict, _ in cursor.fetchall()} == {"stored"}
                cursor.execute("COMMIT")
                await asyncio.sleep(0)
        assert cursor_of(server) == before + each * len(installs)
        for subscriber in (slow, quick):
            await told(subscriber, installs, each)
        assert slow.instances == listed(server)
        # each look tells of an install once, and there is a pause between two looks
        looks = (time.monotonic() - started) / READ_INTERVAL_S + 2
        assert len(slow.cursors) <= looks * len(installs)


def stored(install: Install, number: int, at: datetime) -> dict[str, object]:
    """A snapshot as the intake hands it to the database."""
    return {
        "instance_id": install.instance_id,
        "public_key": base64.b64encode(bytes.fromhex(install.public_key)).decode(),
        "snapshot_at": at.isoformat(),
        "metrics": {"n": number},
    }


async def reported(installs: list[Install], numbers: range) -> None:
    """Each install reports each number."""

    def report(install: Install) -> None:
        for number in numbers:
            assert install.snapshot({"n": number, "text": TEXT}).status_code == 202

    await asyncio.gather(*(asyncio.to_thread(report, install) for install in installs))


async def told(subscriber: Subscriber, installs: list[Install], number: int) -> None:
    """Returns once it was told that number of each."""
    wanted = {install.instance_id for install in installs}
    while wanted:
        message = await subscriber.message()
        if message["type"] == "instance" and message["instance"]["metrics"]["n"] == number:
            wanted.discard(message["instance"]["instance_id"])


def listed(server: ServerProcess) -> dict[str, dict[str, object]]:
    """Every instance by its ID."""
    return {item["instance_id"]: item for item in server.get("instances?limit=1000").json()}


def cursor_of(server: ServerProcess) -> int:
    """The feed's, now."""
    return int(server.get("instances?limit=1").headers["X-Feed-Cursor"])
