"""Valid HTTP on difficult connections: slow, half-closed, pipelined or aborted."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.hostile.case import Verdict, snapshot
from tests.support.hostile.messages import FRAMED, with_framing
from tests.support.installs import Install
from tests.support.raw_http import RawConnection
from tests.support.server_process import ServerProcess
from tests.support.shared_servers import WAIT_TIMEOUT_S, HonestInstalls, ServerWithDatabase

HEALTHCHECK = b"GET /api/v1/healthcheck HTTP/1.1\r\nHost: shm.test\r\n\r\n"
POST = b"POST /v1/snapshot HTTP/1.1\r\nHost: shm.test\r\n"
METRICS = b'{"a":1}'
PIPELINED = 2_000  # requests on one connection
STALLED = 300  # connections that stop within a request

TOO_SLOW: Verdict = (408, "too_slow")
UNREADABLE = [name for name, (_, _, verdict) in FRAMED.items() if verdict == (400, "bad_http")]

# The bytes sent at once, those that follow at a byte a second, and the possible verdicts.
SLOW: dict[str, tuple[bytes, bytes, tuple[Verdict, ...]]] = {
    "nothing": (b"", b"", (None,)),
    "a first line": (b"", POST, (None, TOO_SLOW)),
    "a header": (POST, b"X: " + b"y" * 60, (None, TOO_SLOW)),
    "a body": (POST + b"Content-Length: 60\r\n\r\n", b"{" + b" " * 58 + b"}", (TOO_SLOW,)),
    "a body after its first half": (POST + b"Content-Length: 60\r\n\r\n" + b" " * 30, b" " * 30, (TOO_SLOW,)),
    "a body that never begins": (POST + b"Content-Length: 60\r\n\r\n", b"", (TOO_SLOW,)),
    "a body after Expect: 100-continue": (
        POST + b"Expect: 100-continue\r\nContent-Length: 60\r\n\r\n",
        b"",
        (TOO_SLOW,),
    ),
    "a chunk": (POST + b"Transfer-Encoding: chunked\r\n\r\n", b"3c\r\n" + b" " * 60, (TOO_SLOW,)),
    "chunks of a byte": (POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 10, (TOO_SLOW,)),
    "a body for an unknown path": (
        b"POST /nowhere HTTP/1.1\r\nHost: shm.test\r\nContent-Length: 60\r\n\r\n",
        b" " * 60,
        ((404, "no_such_address"),),
    ),
}


def dribble(port: int, at_once: bytes, slowly: bytes) -> Verdict:
    """The verdict for a client that sends a byte a second and then waits."""
    with RawConnection(port) as slow:
        slow.send(at_once)
        for index in range(WAIT_TIMEOUT_S):
            slow.send(slowly[index : index + 1])
            if slow.has_more(1.0):
                return slow.verdict()
        raise AssertionError("the server did not respond")


def test_a_slow_sender_is_refused_in_time_and_delays_no_other(serve: Callable[..., ServerProcess]) -> None:
    server = serve(SHM_BODY_TIMEOUT="2s", SHM_IDLE_TIMEOUT="4s")
    install = Install(server.url).enroll()
    with ThreadPoolExecutor(len(SLOW)) as pool:
        verdicts = {
            name: pool.submit(dribble, server.port, at_once, slowly) for name, (at_once, slowly, _) in SLOW.items()
        }
        while not all(verdict.done() for verdict in verdicts.values()):
            assert install.snapshot({"a": 1}).status_code == 202
            time.sleep(0.05)
        for name, verdict in verdicts.items():
            assert verdict.result() in SLOW[name][2], name
    assert "Traceback" not in server.log


def test_a_snapshot_sent_byte_by_byte_is_stored(target: ServerWithDatabase, install: Install) -> None:
    with target.assert_no_fault(), RawConnection(target.server.port) as connection:
        for byte in snapshot(install, METRICS):
            connection.send(bytes([byte]))
        assert connection.verdict() == (202, None)
    assert target.fetch_instance(install.instance_id)["metrics"] == {"a": 1}


def test_a_snapshot_truncated_at_any_byte_is_not_stored(
    target: ServerWithDatabase, honest_installs: HonestInstalls, install: Install
) -> None:
    raw = snapshot(install, METRICS)
    with target.assert_no_fault():
        for length in range(len(raw)):
            with RawConnection(target.server.port) as connection:
                connection.send(raw[:length])
                connection.half_close()
                assert all(response.status == 400 for response in connection.answers()), length
    assert honest_installs.stored(install) == 0


def test_a_snapshot_of_a_half_closed_connection_is_stored(
    target: ServerWithDatabase, honest_installs: HonestInstalls, install: Install
) -> None:
    with target.assert_no_fault(), RawConnection(target.server.port) as connection:
        connection.send(snapshot(install, METRICS))
        connection.half_close()
        assert connection.verdict() == (202, None)
    assert honest_installs.stored(install) == 1


def test_a_snapshot_of_a_disconnected_client_is_stored(
    target: ServerWithDatabase, honest_installs: HonestInstalls, install: Install
) -> None:
    """Also the other snapshot in the same batch."""
    with target.assert_no_fault(), RawConnection(target.server.port) as other:
        honest_installs.block_writer()
        try:
            with RawConnection(target.server.port) as aborted:
                aborted.send(snapshot(install, METRICS))
                honest_installs.wait_until_batch_blocked()
                aborted.reset()
            other.send(snapshot(honest_installs.second, METRICS))
        finally:
            honest_installs.release_writer()
        assert other.verdict() == (202, None)
    assert honest_installs.stored(install) == 1


def test_pipelined_requests_are_answered_in_order(target: ServerWithDatabase, install: Install) -> None:
    good, bad = snapshot(install, METRICS), snapshot(install, b'{"a":NaN}')
    unsigned = POST + b"Content-Length: 2\r\n\r\n{}"
    with target.assert_no_fault(), RawConnection(target.server.port) as connection:
        connection.send(good + bad + HEALTHCHECK + unsigned + good + b"\r\n" + good)
        verdicts = [connection.verdict() for _ in range(6)]
    assert verdicts == [
        *((202, None), (400, "bad_json"), (200, None), (401, "missing_instance_id")),
        *((202, None), (202, None)),
    ]


def test_pipelined_requests_get_every_response(target: ServerWithDatabase) -> None:
    """Also if the client reads nothing before it has sent all requests."""
    with target.assert_no_fault(), RawConnection(target.server.port) as connection:
        connection.send(HEALTHCHECK * PIPELINED)
        assert {connection.verdict() for _ in range(PIPELINED)} == {(200, None)}


@pytest.mark.parametrize("name", UNREADABLE)
def test_no_request_is_read_after_unreadable_http(
    target: ServerWithDatabase, honest_installs: HonestInstalls, install: Install, name: str
) -> None:
    lines, body, _ = FRAMED[name]
    with target.assert_no_fault(), RawConnection(target.server.port) as connection:
        connection.send(with_framing(lines, body)(install) + snapshot(install, METRICS) * 2)
        assert connection.verdict() == (400, "bad_http")
        assert connection.ended()
    assert honest_installs.stored(install) == 0


def test_a_snapshot_after_a_too_large_body_is_stored(target: ServerWithDatabase, install: Install) -> None:
    with target.assert_no_fault(), RawConnection(target.server.port) as connection:
        connection.send(POST + b"Content-Length: 100000\r\n\r\n" + b" " * 100_000 + snapshot(install, METRICS))
        verdicts = [connection.verdict(), connection.verdict()]
    assert verdicts == [(413, "body_too_large"), (202, None)]


def test_stalled_connections_do_not_delay_others(target: ServerWithDatabase, install: Install) -> None:
    idle = [RawConnection(target.server.port) for _ in range(STALLED)]
    with target.assert_no_fault():
        for index, connection in enumerate(idle):
            connection.send(snapshot(install, METRICS)[: index + 1])
        assert install.snapshot({"a": 2}).status_code == 202
        for connection in idle:
            connection.reset()
    assert target.fetch_instance(install.instance_id)["metrics"] == {"a": 2}
