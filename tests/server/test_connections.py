"""Clients that speak HTTP well and use their connection badly: slowly, half, all at once, or not to the end."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.hostile.case import Verdict, snapshot
from tests.support.hostile.messages import FRAMED, framed
from tests.support.installs import Install
from tests.support.raw_http import RawConnection
from tests.support.server_process import ServerProcess
from tests.support.targets import WAIT_LIMIT_S, Neighbours, Target

HEALTHCHECK = b"GET /api/v1/healthcheck HTTP/1.1\r\nHost: shm.test\r\n\r\n"
POST = b"POST /v1/snapshot HTTP/1.1\r\nHost: shm.test\r\n"
METRICS = b'{"a":1}'
MANY = 2_000  # requests on one connection
CROWD = 300  # connections that say nothing more

TOO_SLOW: Verdict = (408, "too_slow")
UNREADABLE = [name for name, (_, _, verdict) in FRAMED.items() if verdict == (400, "bad_http")]

# What is sent at once, what follows a byte a second, and what may come of it.
SLOW: dict[str, tuple[bytes, bytes, tuple[Verdict, ...]]] = {
    "nothing": (b"", b"", (None,)),
    "a first line": (b"", POST, (None, TOO_SLOW)),
    "a header": (POST, b"X: " + b"y" * 60, (None, TOO_SLOW)),
    "a body": (POST + b"Content-Length: 60\r\n\r\n", b"{" + b" " * 58 + b"}", (TOO_SLOW,)),
    "a body after its first half": (POST + b"Content-Length: 60\r\n\r\n" + b" " * 30, b" " * 30, (TOO_SLOW,)),
    "a body that never begins": (POST + b"Content-Length: 60\r\n\r\n", b"", (TOO_SLOW,)),
    "a body that waits to be asked for": (
        POST + b"Expect: 100-continue\r\nContent-Length: 60\r\n\r\n",
        b"",
        (TOO_SLOW,),
    ),
    "a chunk": (POST + b"Transfer-Encoding: chunked\r\n\r\n", b"3c\r\n" + b" " * 60, (TOO_SLOW,)),
    "chunks of a byte": (POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 10, (TOO_SLOW,)),
    "a body to nowhere": (
        b"POST /nowhere HTTP/1.1\r\nHost: shm.test\r\nContent-Length: 60\r\n\r\n",
        b" " * 60,
        (None, TOO_SLOW),
    ),
}


def dribble(port: int, at_once: bytes, then: bytes) -> Verdict:
    """What a client is told that sends a byte a second and, having sent all, waits."""
    with RawConnection(port) as slow:
        slow.send(at_once)
        for place in range(WAIT_LIMIT_S):
            slow.send(then[place : place + 1])
            if slow.has_more(1.0):
                return slow.verdict()
        raise AssertionError("the server waits for ever")


def test_whoever_sends_a_byte_a_second_is_told_in_time_and_holds_up_nobody(serve: Callable[..., ServerProcess]) -> None:
    server = serve(SHM_BODY_TIMEOUT="2s", SHM_IDLE_TIMEOUT="4s")
    install = Install(server.url).enroll()
    with ThreadPoolExecutor(len(SLOW)) as pool:
        told = {name: pool.submit(dribble, server.port, at_once, then) for name, (at_once, then, _) in SLOW.items()}
        while not all(verdict.done() for verdict in told.values()):
            assert install.snapshot({"a": 1}).status_code == 202
            time.sleep(0.05)
        for name, verdict in told.items():
            assert verdict.result() in SLOW[name][2], name
    assert "Traceback" not in server.log


def test_a_snapshot_that_comes_byte_by_byte_is_stored(target: Target, install: Install) -> None:
    with target.assert_no_fault(), RawConnection(target.server.port) as careful:
        for byte in snapshot(install, METRICS):
            careful.send(bytes([byte]))
        assert careful.verdict() == (202, None)
    assert target.fetch_instance(install.instance_id)["metrics"] == {"a": 1}


def test_a_snapshot_that_is_cut_short_at_any_byte_is_not_stored(
    target: Target, neighbours: Neighbours, install: Install
) -> None:
    raw = snapshot(install, METRICS)
    with target.assert_no_fault():
        for length in range(len(raw)):
            with RawConnection(target.server.port) as cut:
                cut.send(raw[:length])
                cut.half_close()
                assert all(answer.status == 400 for answer in cut.answers()), length
    assert neighbours.stored(install) == 0


def test_a_client_that_closes_its_side_after_its_snapshot_has_it_stored(
    target: Target, neighbours: Neighbours, install: Install
) -> None:
    with target.assert_no_fault(), RawConnection(target.server.port) as half:
        half.send(snapshot(install, METRICS))
        half.half_close()
        assert half.verdict() == (202, None)
    assert neighbours.stored(install) == 1


def test_a_snapshot_of_a_disconnected_client_is_stored(
    target: Target, neighbours: Neighbours, install: Install
) -> None:
    """A client that goes away before its answer has its snapshot stored and so has its neighbour."""
    with target.assert_no_fault(), RawConnection(target.server.port) as beside:
        neighbours.block_writer()
        try:
            with RawConnection(target.server.port) as gone:
                gone.send(snapshot(install, METRICS))
                neighbours.wait_until_batch_blocked()
                gone.reset()
            beside.send(snapshot(neighbours.second, METRICS))
        finally:
            neighbours.release_writer()
        assert beside.verdict() == (202, None)
    assert neighbours.stored(install) == 1


def test_requests_sent_all_at_once_are_answered_in_their_order(target: Target, install: Install) -> None:
    good, bad = snapshot(install, METRICS), snapshot(install, b'{"a":NaN}')
    unsigned = POST + b"Content-Length: 2\r\n\r\n{}"
    with target.assert_no_fault(), RawConnection(target.server.port) as hasty:
        hasty.send(good + bad + HEALTHCHECK + unsigned + good + b"\r\n" + good)
        told = [hasty.verdict() for _ in range(6)]
    assert told == [
        *((202, None), (400, "bad_json"), (200, None), (401, "missing_instance_id")),
        *((202, None), (202, None)),
    ]


def test_pipelined_requests_get_every_response(target: Target) -> None:
    """A client that reads nothing until it has asked everything gets every answer."""
    with target.assert_no_fault(), RawConnection(target.server.port) as hasty:
        hasty.send(HEALTHCHECK * MANY)
        assert {hasty.verdict() for _ in range(MANY)} == {(200, None)}


@pytest.mark.parametrize("name", UNREADABLE)
def test_nothing_is_taken_from_a_connection_after_what_cannot_be_read(
    target: Target, neighbours: Neighbours, install: Install, name: str
) -> None:
    lines, body, _ = FRAMED[name]
    with target.assert_no_fault(), RawConnection(target.server.port) as smuggler:
        smuggler.send(framed(lines, body)(install) + snapshot(install, METRICS) * 2)
        assert smuggler.verdict() == (400, "bad_http")
        assert smuggler.ended()
    assert neighbours.stored(install) == 0


def test_a_body_that_is_too_large_is_skipped_and_what_follows_it_is_stored(target: Target, install: Install) -> None:
    with target.assert_no_fault(), RawConnection(target.server.port) as large:
        large.send(POST + b"Content-Length: 100000\r\n\r\n" + b" " * 100_000 + snapshot(install, METRICS))
        told = [large.verdict(), large.verdict()]
    assert told == [(413, "body_too_large"), (202, None)]


def test_connections_that_stop_in_the_middle_hold_up_nobody(target: Target, install: Install) -> None:
    idle = [RawConnection(target.server.port) for _ in range(CROWD)]
    with target.assert_no_fault():
        for place, connection in enumerate(idle):
            connection.send(snapshot(install, METRICS)[: place + 1])
        assert install.snapshot({"a": 2}).status_code == 202
        for connection in idle:
            connection.reset()
    assert target.fetch_instance(install.instance_id)["metrics"] == {"a": 2}
