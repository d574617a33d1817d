"""A feed can be cancelled at any moment: no task or connection remains, and a new iteration works."""

import asyncio
import gc
import subprocess
import sys
from contextlib import aclosing

import pytest

from shm_client import Connected, InstanceRemoved, InstanceUpdated, Subscription
from shm_client.subscription import MAX_QUEUED_EVENTS
from tests.support.bulk_fleet import insert_fleet
from tests.support.clients import make_client, report_installs
from tests.support.fault_proxy import run_fault_proxy
from tests.support.feed_mirror import TIMEOUT_S, mirror_feed
from tests.support.prometheus_scrape import sample_value, scrape
from tests.support.server_process import ServerProcess
from tests.support.signed_actions import act

SCRIPT = """
import asyncio, gc, sys
from shm_client import Client, feed

async def main(server, token, until, client_kind):
    if client_kind == "function":
        async for event in feed(server, token):
            if type(event).__name__ == until:
                break
    else:
        async with Client(server, token) as client:
            async for event in client.feed():
                if type(event).__name__ == until:
                    break
            await asyncio.sleep(0.5)
            gc.collect()

asyncio.run(main(*sys.argv[1:]))
"""
RESPONSE_DELAY_S = 1.5  # as of a busy server


@pytest.mark.parametrize(
    ("client_kind", "until"),
    [
        ("function", "Connected"),
        ("client", "InstanceUpdated"),
        pytest.param("function", "InstanceUpdated", marks=pytest.mark.long),
        pytest.param("client", "Connected", marks=pytest.mark.long),
    ],
)
def test_a_script_that_leaves_a_feed_early_prints_nothing(
    server: ServerProcess, database: str, until: str, client_kind: str
) -> None:
    insert_fleet(database, 3 * MAX_QUEUED_EVENTS)
    command = [sys.executable, "-c", SCRIPT, server.url, server.admin_token, until, client_kind]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert (completed.returncode, completed.stdout, completed.stderr) == (0, "", "")


async def test_closing_a_client_ends_its_feeds_and_their_readers(server: ServerProcess) -> None:
    report_installs(server, 1)
    client = make_client(server)
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
    await asyncio.wait_for(waiting, TIMEOUT_S)
    assert {task for task in before if not task.done()} == {asyncio.current_task()}
    gc.collect()


async def test_a_feed_closed_while_connecting_frees_its_slot(server: ServerProcess) -> None:
    report_installs(server, 1)

    async def count_subscribers() -> float:
        return sample_value(await asyncio.to_thread(scrape, server), "shm_feed_subscribers", worker="0")

    async with run_fault_proxy(server.port) as proxy, make_client(server, proxy.url) as client:
        subscription = client.feed()
        assert isinstance(await anext(subscription), InstanceUpdated)
        proxy.response_delay_s = RESPONSE_DELAY_S
        async with asyncio.timeout(TIMEOUT_S):
            while not await count_subscribers():  # noqa: ASYNC110 - in another process
                await asyncio.sleep(0.05)
            await subscription.aclose()
            while await count_subscribers():  # noqa: ASYNC110 - in another process
                await asyncio.sleep(0.05)


async def test_events_never_read_are_not_removed_later(server: ServerProcess) -> None:
    installs = report_installs(server, 6)
    async with make_client(server) as client:
        subscription = client.feed(page_size=2)
        assert isinstance(await anext(subscription), InstanceUpdated)
        await asyncio.sleep(0.5)  # the other events are queued by now
        await subscription.aclose()
        await asyncio.to_thread(act, installs[0], "erase")
        async with mirror_feed(subscription) as mirror:
            await mirror.wait_until(lambda: mirror.is_complete and mirror.is_connected)
            await mirror.assert_matches_list(client)
            assert len(mirror.instances) == len(installs) - 1
            assert not mirror.events_of(InstanceRemoved)


async def test_a_cancelled_wait_loses_no_event(server: ServerProcess) -> None:
    (install,) = report_installs(server, 1)
    async with make_client(server) as client, aclosing(client.feed()) as events:
        while not isinstance(await anext(events), Connected):
            pass
        for number in range(3):
            while await has_event_soon(events):
                pass
            await asyncio.to_thread(install.snapshot, {"n": 1000 + number})
            async with asyncio.timeout(TIMEOUT_S):
                while not isinstance(event := await anext(events), InstanceUpdated):
                    pass
            assert event.instance.metrics == {"n": 1000 + number}


async def has_event_soon(events: Subscription) -> bool:
    """Waits half a second for an event. Returns whether one arrived."""
    try:
        await asyncio.wait_for(anext(events), 0.5)
    except TimeoutError:
        return False
    return True


async def test_a_former_server_is_left_once_it_has_answered(server: ServerProcess) -> None:
    is_asked, may_answer, is_left = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def answer_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        is_asked.set()
        await may_answer.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nDate: Mon, 01 Jan 2001 00:00:00 GMT\r\nContent-Length: 2\r\n\r\n[]")
        await reader.read()  # until the client closes the connection
        is_left.set()
        writer.close()

    async with asyncio.timeout(TIMEOUT_S), await asyncio.start_server(answer_late, "127.0.0.1", 0) as former:
        url = f"http://127.0.0.1:{former.sockets[0].getsockname()[1]}"
        async with make_client(server, url) as client:
            answer = asyncio.create_task(client.applications())
            await is_asked.wait()
            client.connect(server.url, server.admin_token)
            await client.stats()
            assert not is_left.is_set()
            may_answer.set()
            assert await answer == []
            assert client.server_time().year > 2001
            await client.stats()
            await is_left.wait()
