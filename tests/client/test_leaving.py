"""Whoever leaves a feed, at any moment and in any way, leaves nothing behind; and may come back."""

import asyncio
import gc
import subprocess
import sys
from contextlib import aclosing

import pytest

from shm_client import Connected, Put, Removed, Subscription
from shm_client.subscription import AHEAD
from tests.support.clients import client_of, fleet
from tests.support.figures import figures, value
from tests.support.many_installs import make_fleet
from tests.support.mirror import LIMIT_S, mirrored
from tests.support.proxy import between
from tests.support.server_process import ServerProcess
from tests.support.signed_actions import act

SCRIPT = """
import asyncio, gc, sys
from shm_client import Client, feed

async def main(server, token, until, own):
    if own == "own":
        async for change in feed(server, token):
            if type(change).__name__ == until:
                break
    else:
        async with Client(server, token) as client:
            async for change in client.feed():
                if type(change).__name__ == until:
                    break
            await asyncio.sleep(0.5)
            gc.collect()

asyncio.run(main(*sys.argv[1:]))
"""
LATE_S = 1.5  # an answer of a busy server


@pytest.mark.parametrize("until", ["Put", "Connected"])
@pytest.mark.parametrize("own", ["own", "client's"])
def test_a_script_that_leaves_half_way_ends_without_a_word(
    server: ServerProcess, database: str, until: str, own: str
) -> None:
    make_fleet(database, 3 * AHEAD)
    told = [sys.executable, "-c", SCRIPT, server.url, server.admin_token, until, own]
    ended = subprocess.run(told, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


async def test_the_end_of_a_client_ends_its_feeds_and_whoever_waits_for_them(server: ServerProcess) -> None:
    fleet(server, 1)
    client = client_of(server)
    subscription = client.feed()
    while not isinstance(await anext(subscription), Connected):
        pass

    async def wait() -> None:
        async for _ in subscription:
            pass

    before = asyncio.all_tasks()
    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    await client.aclose()
    await asyncio.wait_for(waiting, LIMIT_S)
    assert {task for task in before if not task.done()} == {asyncio.current_task()}
    gc.collect()


async def test_a_feed_that_is_left_while_it_connects_takes_no_place_at_the_server(server: ServerProcess) -> None:
    fleet(server, 1)

    async def feeds() -> float:
        return value(await asyncio.to_thread(figures, server), "shm_feed_subscribers", worker="0")

    async with between(server.port) as proxy, client_of(server, proxy.url) as client:
        subscription = client.feed()
        assert isinstance(await anext(subscription), Put)
        proxy.late_s = LATE_S
        async with asyncio.timeout(LIMIT_S):
            while not await feeds():  # noqa: ASYNC110 - in another process
                await asyncio.sleep(0.05)
            await subscription.aclose()
            while await feeds():  # noqa: ASYNC110 - in another process
                await asyncio.sleep(0.05)


async def test_what_was_ready_and_never_taken_is_not_told_as_removed_later(server: ServerProcess) -> None:
    installs = fleet(server, 6)
    async with client_of(server) as client:
        subscription = client.feed(page=2)
        assert isinstance(await anext(subscription), Put)
        await asyncio.sleep(0.5)  # the others are ready by now
        await subscription.aclose()
        await asyncio.to_thread(act, installs[0], "erase")
        async with mirrored(subscription) as mirror:
            await mirror.until(lambda: mirror.complete and mirror.connected)
            await mirror.equals_a_fresh_list(client)
            assert len(mirror.instances) == len(installs) - 1
            assert not mirror.told(Removed)


async def test_a_wait_that_is_given_up_loses_nothing(server: ServerProcess) -> None:
    (install,) = fleet(server, 1)
    async with client_of(server) as client, aclosing(client.feed()) as changes:
        while not isinstance(await anext(changes), Connected):
            pass
        for number in range(3):
            while await given_up(changes):
                pass
            await asyncio.to_thread(install.snapshot, {"n": 1000 + number})
            async with asyncio.timeout(LIMIT_S):
                while not isinstance(change := await anext(changes), Put):
                    pass
            assert change.instance.metrics == {"n": 1000 + number}


async def given_up(changes: Subscription) -> bool:
    """Waits a little for a change; whether one came."""
    try:
        await asyncio.wait_for(anext(changes), 0.5)
    except TimeoutError:
        return False
    return True
