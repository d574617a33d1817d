"""An unreliable network between subscribers and servers: no change is lost, and dead connections are closed."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random

import httpx
import pytest
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

from tests.support.bulk_fleet import insert_fleet
from tests.support.byte_proxy import ByteProxy
from tests.support.chaos import Chaos
from tests.support.databases import admin_cursor
from tests.support.feed_checker import ListFetched
from tests.support.feed_history import record_history
from tests.support.feed_watcher import Watcher
from tests.support.server_process import ServerProcess
from tests.support.watcher_group import WatcherGroup, make_watcher_group

TIMEOUT_S = 60
SET_HEAD = """
    UPDATE feed_head SET cursor = %(count)s;
    INSERT INTO tallies VALUES ('ledger', 'status', 'active', '0', 0, %(count)s, 0, %(count)s);
"""
DELETE_REMOVALS = """
    WITH old AS (DELETE FROM removals RETURNING cursor)
    UPDATE feed_head SET horizon = (SELECT max(cursor) FROM old) WHERE EXISTS (SELECT FROM old)
"""
FLEET, TEXTS = 400, 50  # twenty megabytes: more than the socket buffers of a subscriber that does not read


async def wait_until(condition: Callable[[], bool]) -> None:
    """Waits until the condition is true."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


@asynccontextmanager
async def dead_subscriber(proxy: ByteProxy, server: ServerProcess) -> AsyncIterator[None]:
    """A subscriber behind a proxy that drops all data of its connection after `hello`. The server is not notified."""
    url = f"ws://127.0.0.1:{proxy.port}/api/v1/admin/feed"
    socket = await websocket_connect(HTTPRequest(url, headers=server.headers))
    assert await socket.read_message() is not None
    proxy.mute_all()
    try:
        yield
    finally:
        socket.close()


ROUNDS = 40


@pytest.mark.long
async def test_a_mirror_is_true_behind_an_unreliable_network(
    serve: Callable[..., ServerProcess], database: str, seed: int
) -> None:
    """The network cuts, delays and loses data. The server finds dead connections."""
    servers = [serve(SHM_FEED_HEARTBEAT="1s"), serve()]
    record_history(database)
    chaos = Chaos(servers, seed)
    async with AsyncExitStack() as stack:
        dead = await stack.enter_async_context(ByteProxy(servers[0].port, Random(seed)).running())
        await stack.enter_async_context(dead_subscriber(dead, servers[0]))
        proxies = [ByteProxy(server.port, Random(seed + number)) for number, server in enumerate(servers)]
        for proxy in proxies:
            await stack.enter_async_context(proxy.running())
        group = make_watcher_group(servers, database, seed, [proxy.port for proxy in proxies], silence_timeout_s=1.0)
        async with group.watching(chaos):
            with chaos.running():
                for proxy in proxies:
                    proxy.max_chunk_bytes, proxy.max_delay_s, proxy.cut_after = 600, 0.002, (1, 5_000)
                for _ in range(ROUNDS):
                    for proxy in proxies:
                        await asyncio.sleep(1)
                        proxy.mute_all()
            for proxy in proxies:
                proxy.cut_after = None
                proxy.cut_all()
        await wait_until(lambda: dead.closed_by_server == 1)


async def test_a_stalled_subscriber_is_true_after_removals_expire(
    serve: Callable[..., ServerProcess], database: str, seed: int
) -> None:
    """A subscriber that reads nothing while removals are deleted reaches the true state."""
    server = serve()
    insert_fleet(database, FLEET, TEXTS)
    with admin_cursor(database) as cursor:
        cursor.execute(SET_HEAD, {"count": FLEET})
        cursor.execute("SELECT instance_id::text FROM instances ORDER BY cursor")
        ids = [instance_id for (instance_id,) in cursor.fetchall()]
    record_history(database)
    chaos = Chaos([server], seed)
    async with ByteProxy(server.port, Random(seed)).running() as proxy:
        reader = Watcher([proxy.port], server.headers, Random(seed), log=[ListFetched([], 0, 0)], cursor=0)
        async with WatcherGroup([server], database, [reader]).watching(chaos):
            await wait_until(lambda: len(reader.log) > 4)
            proxy.forwarding.clear()
            for instance_id in (ids[0], ids[-1]):
                address = f"{server.url}/api/v1/admin/instances/{instance_id}"
                await asyncio.to_thread(httpx.delete, address, headers=server.headers)
            with admin_cursor(database) as cursor:
                cursor.execute(DELETE_REMOVALS)
                assert cursor.rowcount == 1
            proxy.forwarding.set()
