"""A subscriber costs an offset in the change buffer and one write in flight. The number of subscribers is limited."""

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
from shm.server.connections import WRITE_TIMEOUT_S
from tests.support import plain_http
from tests.support.databases import admin_cursor
from tests.support.installs import Install
from tests.support.prometheus_scrape import sample_value, scrape
from tests.support.server_process import ServerProcess
from tests.support.subscriber import Subscriber, subscribe

TIMEOUT_S = 120  # hundreds of feeds on a machine that is busy with other work
SCRAPE_INTERVAL_S = 0.2
STALLED = 30
MANY = 300
TEXT = ["x" * 250] * 24  # of a metric: the messages to each subscriber exceed the system's buffers
MAX_WRITE_BYTES = 256 * 2**10
NO_NEW_KEYS = {"key_sets": '[["n"]]', "string_sets": "[{}]", "max_keys": 1_000, "max_values": 500, "is_import": False}
MIB = 2**20


@contextmanager
def stalled_subscribers(server: ServerProcess, number: int) -> Iterator[None]:
    """Opens this number of feeds that are never read, with small socket buffers."""
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


async def wait_for_subscribers(server: ServerProcess, number: int) -> None:
    """Waits until this number of feeds is open."""
    async with asyncio.timeout(TIMEOUT_S):
        while sample_value(await asyncio.to_thread(scrape, server), "shm_feed_subscribers", worker="0") != number:  # noqa: ASYNC110 - in another process
            await asyncio.sleep(SCRAPE_INTERVAL_S)


def create_viewer_token(server: ServerProcess) -> str:
    """The secret of a new token with the role viewer."""
    url, body = f"{server.url}/api/v1/admin/tokens", {"name": "screen", "role": "viewer"}
    return str(plain_http.post(url, json=body, headers=server.headers).json()["token"])


def refusal(response: HTTPClientError) -> tuple[int, str, bool]:
    """The status, the code, and whether the response has a Retry-After."""
    assert response.response is not None
    headers = response.response.headers
    return response.code, json.loads(response.response.body)["code"], int(headers["Retry-After"]) > 0


async def test_feeds_are_limited_per_token_and_per_server(serve: Callable[..., ServerProcess]) -> None:
    server = serve(SHM_FEED_SUBSCRIBERS="3", SHM_FEED_SUBSCRIBERS_PER_TOKEN="2")
    other = {"Authorization": f"Bearer {create_viewer_token(server)}"}
    async with subscribe(server) as first, subscribe(server):
        with pytest.raises(HTTPClientError) as caught:
            async with subscribe(server):
                pass
        assert refusal(caught.value) == (429, "too_many_subscribers", True)
        async with subscribe(server, headers=other):
            with pytest.raises(HTTPClientError) as caught:
                async with subscribe(server, headers=other):
                    pass
            assert refusal(caught.value) == (503, "too_many_subscribers", True)
        await wait_for_subscribers(server, 2)
        async with subscribe(server, headers=other) as again:
            assert (await again.message())["type"] == "hello"
        assert (await first.message())["type"] == "hello"


async def test_feeds_of_viewers_exclude_no_admin(serve: Callable[..., ServerProcess]) -> None:
    """However many viewers' tokens there are, and though one of them may open all feeds."""
    server = serve(SHM_FEED_SUBSCRIBERS="4")
    viewers = [{"Authorization": f"Bearer {create_viewer_token(server)}"} for _ in range(2)]
    async with subscribe(server, headers=viewers[0]), subscribe(server, headers=viewers[0]):
        for viewer in viewers:
            with pytest.raises(HTTPClientError) as caught:
                async with subscribe(server, headers=viewer):
                    pass
            assert refusal(caught.value) == (503, "too_many_subscribers", True)
        async with subscribe(server) as admin, subscribe(server):
            assert (await admin.message())["type"] == "hello"


async def test_a_refused_upgrade_occupies_no_slot(serve: Callable[..., ServerProcess]) -> None:
    server = serve(SHM_FEED_SUBSCRIBERS="1")
    for _ in range(3):
        with pytest.raises(HTTPClientError):
            async with subscribe(server, "?since=x"):
                pass
    with stalled_subscribers(server, 1):
        await wait_for_subscribers(server, 1)
    await wait_for_subscribers(server, 0)
    async with subscribe(server) as subscriber:
        assert (await subscriber.message())["type"] == "hello"


async def test_a_peer_without_pongs_is_disconnected(serve: Callable[..., ServerProcess]) -> None:
    server = serve(SHM_FEED_HEARTBEAT="1s")
    async with subscribe(server) as active:
        with stalled_subscribers(server, 3):
            await wait_for_subscribers(server, 4)
            await wait_for_subscribers(server, 1)  # their sockets are still open
        assert (await active.message())["type"] == "hello"


async def test_stalled_subscribers_cost_little_memory_and_block_nobody(
    serve: Callable[..., ServerProcess],
) -> None:
    """All of them are sent the same bytes, so they are not charged for unread ones, and the budget closes none."""
    server = serve(
        SHM_FEED_HEARTBEAT="10m",  # otherwise subscribers without pongs are disconnected
        SHM_DB_PATIENCE="1m",
        SHM_MAX_UNREAD="1m",
    )
    installs = [Install(server.url).enroll({"n": 0, "text": TEXT}) for _ in range(20)]
    async with subscribe(server, f"?since={feed_cursor(server)}") as active:
        await send_snapshots(installs, range(1, 3))
        await wait_for_snapshots(active, installs, 2)
        before = psutil.Process(server.pid).memory_info().rss
        with stalled_subscribers(server, STALLED):
            await wait_for_subscribers(server, STALLED + 1)
            for number in range(3, 27, 4):
                await send_snapshots(installs, range(number, number + 4))
                await wait_for_snapshots(active, installs, number + 3)
            # 3 MB were sent to each of them: queues would take 90
            assert psutil.Process(server.pid).memory_info().rss - before < STALLED * MAX_WRITE_BYTES + 30 * MIB
            assert active.cursors == sorted(active.cursors)
            # counting them fails on a slow machine: they are closed after `WRITE_TIMEOUT_S`
            assert "unread responses have reached their limit" not in server.log
            assert sample_value(await asyncio.to_thread(scrape, server), "shm_response_bytes", worker="0") == 0


@pytest.mark.long
async def test_closed_feeds_leave_no_memory_behind(
    serve: Callable[..., ServerProcess],
) -> None:
    # On a busy machine the first would be dropped before the last connect, and some would wait too long for a lookup.
    server = serve(SHM_FEED_HEARTBEAT="10m", SHM_DB_PATIENCE="1m")
    resident = []
    for _ in range(10):
        with stalled_subscribers(server, MANY):
            await wait_for_subscribers(server, MANY)
        await wait_for_subscribers(server, 0)
        resident.append(psutil.Process(server.pid).memory_info().rss / MIB)
    # 2 for each round and more if only the garbage collector frees them
    assert resident[-1] - resident[2] < 10, resident


@pytest.mark.parametrize("size", [2_000, pytest.param(100_000, marks=pytest.mark.long)])
async def test_a_burst_arrives_as_newest_states(serve: Callable[..., ServerProcess], database: str, size: int) -> None:
    """`size` changes of 20 installs. One subscriber reads nothing meanwhile, or only as often as a client has to."""
    server = serve(SHM_FEED_HEARTBEAT="10m")  # a subscriber that reads nothing sends no pongs
    installs = [Install(server.url).enroll({"n": 0}) for _ in range(20)]
    async with subscribe(server, f"?since={feed_cursor(server)}") as slow, subscribe(server) as quick:
        started, each = time.monotonic(), size // len(installs)
        last_cursor = feed_cursor(server) + each * len(installs)
        async with asyncio.TaskGroup() as group:
            storing = group.create_task(asyncio.to_thread(store_burst, database, installs, each))
            group.create_task(wait_for_snapshots(quick, installs, each))
            while not (await asyncio.wait([storing], timeout=WRITE_TIMEOUT_S / 3))[0]:
                await slow.until("instance", await asyncio.to_thread(feed_cursor, server))
        assert feed_cursor(server) == last_cursor
        if slow.cursor < last_cursor:
            await slow.until("instance", last_cursor)
        assert slow.instances == list_instances(server)
        # each read sends an instance at most once, and there is a pause between two reads
        reads = (time.monotonic() - started) / READ_INTERVAL_S + 2
        assert len(slow.cursors) <= reads * len(installs)


def store_burst(database: str, installs: list[Install], each: int) -> None:
    """Stores this number of snapshots of each install, as another server would, one of each in a batch."""
    statement, first_at = statements()["intake.store_batch"], datetime.now(UTC)
    with admin_cursor(database) as cursor:
        cursor.execute(statement.preparation or "")
        for number in range(1, each + 1):
            cursor.execute("BEGIN")
            at = first_at + timedelta(milliseconds=number)
            batch = [batch_member(install, number, at) for install in installs]
            cursor.execute(statement.sql, {"batch": json.dumps(batch), **NO_NEW_KEYS})
            assert {row[1] for row in cursor.fetchall()} == {"stored"}
            cursor.execute("COMMIT")


def batch_member(install: Install, number: int, at: datetime) -> dict[str, object]:
    """A snapshot as the intake passes it to the database."""
    return {
        "instance_id": install.instance_id,
        "public_key": base64.b64encode(bytes.fromhex(install.public_key)).decode(),
        "snapshot_at": at.isoformat(),
        "metrics": {"n": number},
        "key_set": 0,
        "string_set": 0,
    }


async def send_snapshots(installs: list[Install], numbers: range) -> None:
    """Sends a snapshot of each install for each number."""

    def report(install: Install) -> None:
        for number in numbers:
            assert install.snapshot({"n": number, "text": TEXT}).status_code == 202

    await asyncio.gather(*(asyncio.to_thread(report, install) for install in installs))


async def wait_for_snapshots(subscriber: Subscriber, installs: list[Install], number: int) -> None:
    """Reads until the subscriber has received this number of each install."""
    missing = {install.instance_id for install in installs}
    while missing:
        message = await subscriber.message()
        if message["type"] == "instance" and message["instance"]["metrics"]["n"] == number:
            missing.discard(message["instance"]["instance_id"])


def list_instances(server: ServerProcess) -> dict[str, dict[str, object]]:
    """Every instance by its ID."""
    return {item["instance_id"]: item for item in server.get("instances?limit=1000").json()}


def feed_cursor(server: ServerProcess) -> int:
    """The feed's current cursor."""
    return int(server.get("instances?limit=1").headers["X-Feed-Cursor"])
