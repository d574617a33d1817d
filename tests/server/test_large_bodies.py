"""Large bodies take turns, so that nobody waits for all that others send."""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from shm.core.errors import Overloaded, TooManyRequests
from shm.core.settings import Settings
from shm.server.large_bodies import MIN_BYTES, REST_AFTER_S, LargeBodies
from tests.support.installs import Install
from tests.support.raw_http import RawConnection
from tests.support.server_process import ServerProcess

SENDERS = 16
MEMBERS = 300_000  # of a backlog of almost a mebibyte, which takes tens of milliseconds to read
MAX_READING = 8 * 1024 * 1024


def signed_request(install: Install, members: str) -> bytes:
    """A signed backlog as bytes for a socket."""
    body = f'{{"instance_id":"{install.instance_id}","snapshots":[{members}]}}'.encode()
    headers = {**install.signed(body), "Content-Length": str(len(body)), "Host": "shm.test"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST /v1/snapshots HTTP/1.1\r\n{lines}\r\n".encode() + body


def test_a_snapshot_does_not_wait_for_all_large_bodies(server: ServerProcess) -> None:
    stranger, honest = Install(server.url).enroll(), Install(server.url).enroll()
    request = signed_request(stranger, ",".join(["{}"] * MEMBERS))
    with ExitStack() as stack:
        senders = [stack.enter_context(RawConnection(server.port)) for _ in range(SENDERS)]
        for sender in senders:
            sender.send(request)
        assert honest.snapshot({"n": 1}).status_code == 202
        assert not all(sender.has_more(0) for sender in senders)
        assert {sender.verdict() for sender in senders} == {(400, "too_many_snapshots")}


def test_the_large_requests_of_an_address_are_limited(serve: Callable[..., ServerProcess]) -> None:
    """In bytes, and one is always accepted. Its other requests are served meanwhile."""
    server = serve(SHM_RATELIMIT_ENABLED="true", SHM_MAX_READING=str(MAX_READING))
    stranger = Install(server.url).enroll()
    request = signed_request(stranger, ",".join(["{}"] * MEMBERS))
    with ExitStack() as stack:
        senders = [stack.enter_context(RawConnection(server.port)) for _ in range(4)]
        for sender in senders:
            sender.send(request)
        assert stranger.snapshot({"n": 1}).status_code == 202
        verdicts = [sender.verdict() for sender in senders]
    assert (400, "too_many_snapshots") in verdicts
    assert set(verdicts) <= {(400, "too_many_snapshots"), (429, "rate_limited")}


def test_a_large_snapshot_is_stored_as_it_was_sent(server: ServerProcess) -> None:
    install = Install(server.url).enroll()
    metrics = {f"key{number}": "x" * 200 for number in range(200)}
    assert len(json.dumps(metrics)) > 2 * MIN_BYTES
    assert install.snapshot(metrics).status_code == 202
    assert server.get(f"instances/{install.instance_id}").json()["metrics"] == metrics


async def test_keys_take_turns_and_a_cancelled_one_takes_none() -> None:
    bodies, order = LargeBodies(Settings()), list[str]()

    async def work(key: str) -> None:
        await bodies.turn(key, MIN_BYTES)
        order.append(key)

    tasks = [asyncio.create_task(work(key)) for key in ("first", "first", "first", "second", "third", "first")]
    await asyncio.sleep(0)
    tasks[1].cancel()
    results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)
    assert [type(result) for result in results if result] == [asyncio.CancelledError]
    assert order == ["first", "second", "third", "first", "first"]


async def test_moderate_bodies_share_turns_and_rest_only_from_their_own_work() -> None:
    """On a busy server an iteration of the event loop takes long, and few of them have to suffice."""
    bodies, loop = LargeBodies(Settings()), asyncio.get_running_loop()
    for _ in range(3):
        turns = [asyncio.create_task(bodies.turn("address", MIN_BYTES)) for _ in range(8)]
        for _ in range(5):
            loop.call_soon(time.sleep, REST_AFTER_S)
            await asyncio.sleep(0)
        assert all(turn.done() for turn in turns)


def test_requests_in_progress_have_limits_by_address_and_in_all() -> None:
    bodies = LargeBodies(Settings.load({"SHM_MAX_READING": str(MAX_READING)}))
    mebibyte = 1024 * 1024
    with ExitStack() as stack:
        stack.enter_context(bodies.in_progress(b"first", mebibyte))
        with pytest.raises(TooManyRequests), bodies.in_progress(b"first", MIN_BYTES):
            pass
        with bodies.in_progress(b"first", MIN_BYTES - 1):
            pass
        for address in (b"second", None, None):
            stack.enter_context(bodies.in_progress(address, mebibyte))
        with pytest.raises(Overloaded), bodies.in_progress(b"third", mebibyte):
            pass
    with bodies.in_progress(b"first", 2 * mebibyte):
        pass
