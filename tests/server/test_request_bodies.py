"""A body is read only after route, role and length are known, and all bodies share one budget of memory."""

from collections.abc import Callable
from contextlib import ExitStack

import psutil
import pytest

from tests.support.clusters import wait_for
from tests.support.installs import Install
from tests.support.prometheus_scrape import sample_value, scrape
from tests.support.raw_http import RawConnection
from tests.support.server_process import ServerProcess
from tests.support.shared_servers import ServerWithDatabase

MIB = 1024 * 1024
UPLOADS = 100
APPLICATION = "/api/v1/admin/applications/ledger"
WEBSOCKET = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: eA==\r\nSec-WebSocket-Version: 13\r\n"

# Method, path, whether a token is sent, other headers, the verdict without any byte of the body.
REFUSED: dict[str, tuple[str, str, bool, str, tuple[int, str]]] = {
    "no route": ("POST", "/nowhere", True, "", (404, "no_such_address")),
    "no route below the protocol": ("POST", "/v1/nowhere", True, "", (404, "no_such_address")),
    "no method": ("POST", APPLICATION, True, "", (405, "method_not_allowed")),
    "an unknown method": ("BREW", APPLICATION, True, "", (405, "method_not_allowed")),
    "no token": ("PUT", APPLICATION, False, "", (401, "missing_token")),
    "no token for POST": ("POST", "/api/v1/admin/tokens", False, "", (401, "missing_token")),
    "no token for DELETE": ("DELETE", "/api/v1/admin/tokens/x", False, "", (404, "no_such_address")),
    "too long": ("PUT", APPLICATION, True, "", (413, "body_too_large")),
    "too long where a body is ignored": ("GET", "/api/v1/healthcheck", False, "", (413, "body_too_large")),
    "a websocket without a token": ("GET", "/api/v1/admin/feed", False, WEBSOCKET, (401, "missing_token")),
    "a websocket": ("GET", "/api/v1/admin/feed", True, WEBSOCKET, (413, "body_too_large")),
}


def head(server: ServerProcess, method: str, path: str, token: bool, others: str) -> bytes:
    """The head of a request, without its length and its end."""
    lines = f"{method} {path} HTTP/1.1\r\nHost: shm.test\r\n{others}"
    if token:
        lines += f"Authorization: {server.headers['Authorization']}\r\n"
    return lines.encode()


def request_bytes(server: ServerProcess) -> float:
    """The bytes of requests in the server's memory."""
    return sample_value(scrape(server), "shm_request_bytes", worker="0")


def wait_for_request_bytes(server: ServerProcess, number: int) -> None:
    """Waits until the server has read as much of incomplete requests."""
    wait_for(lambda: request_bytes(server) >= number, "the gauge")


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_body_is_answered_before_it_arrives(target: ServerWithDatabase, name: str) -> None:
    method, path, token, others, verdict = REFUSED[name]
    start = head(target.server, method, path, token, others)
    with target.assert_no_fault(), RawConnection(target.server.port) as connection:
        connection.send(start + b"Content-Length: %d\r\n\r\n" % (2 * MIB))
        answer = connection.answer()
        assert answer is not None
        assert (answer.verdict, answer.headers.get("connection")) == (verdict, "close")
        assert connection.ended()


@pytest.mark.parametrize("name", REFUSED)
def test_the_connection_survives_a_refused_body_of_moderate_size(target: ServerWithDatabase, name: str) -> None:
    method, path, token, others, verdict = REFUSED[name]
    start = head(target.server, method, path, token, others)
    with target.assert_no_fault(), RawConnection(target.server.port) as connection:
        connection.send(start + b"Content-Length: 100000\r\n\r\n")
        assert connection.verdict() == verdict
        connection.send(b"x" * 100_000 + b"GET /api/v1/healthcheck HTTP/1.1\r\nHost: shm.test\r\n\r\n")
        assert connection.verdict() == (200, None)


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_chunked_body_is_discarded(target: ServerWithDatabase, name: str) -> None:
    method, path, token, others, verdict = REFUSED[name]
    start = head(target.server, method, path, token, others)
    chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    with target.assert_no_fault(), RawConnection(target.server.port) as connection:
        connection.send(start + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 5 + b"0\r\n\r\n")
        if name == "a websocket":
            verdict = (400, "unexpected_body")
        assert connection.verdict() == verdict
        connection.send(b"GET /api/v1/healthcheck HTTP/1.1\r\nHost: shm.test\r\n\r\n")
        assert connection.verdict() == (200, None)


def test_an_expected_body_is_not_asked_for_before_the_refusal(target: ServerWithDatabase) -> None:
    with RawConnection(target.server.port) as connection:
        start = head(target.server, "PUT", APPLICATION, False, "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        connection.send(start)
        assert connection.verdict() == (401, "missing_token")
        assert connection.ended()


def test_bodies_outside_the_protocol_take_no_memory(serve: Callable[..., ServerProcess]) -> None:
    server = serve()
    process = psutil.Process(server.pid)
    heads = [
        head(server, "POST", "/nowhere", False, ""),
        head(server, "PUT", APPLICATION, False, ""),
        head(server, "GET", "/api/v1/admin/feed", False, WEBSOCKET),
    ]
    with ExitStack() as stack:
        before = process.memory_info().rss
        for start in heads * UPLOADS:
            connection = stack.enter_context(RawConnection(server.port))
            connection.send(start + b"Content-Length: %d\r\n\r\n" % MIB + b"x" * (200 * 1024))
        with RawConnection(server.port) as other:
            other.send(b"GET /api/v1/healthcheck HTTP/1.1\r\nHost: shm.test\r\n\r\n")
            assert other.verdict() == (200, None)
        assert process.memory_info().rss - before < 20 * MIB


def test_the_budget_of_bodies_holds_for_every_path(serve: Callable[..., ServerProcess]) -> None:
    """The oldest incomplete body is refused, and not that of an honest sender."""
    server = serve(SHM_MAX_READING="100k")
    install = Install(server.url).enroll({"a": 1})
    starts = [
        head(server, "PUT", APPLICATION, True, ""),
        head(server, "POST", "/v1/snapshot", False, ""),
        head(server, "POST", "/api/v1/admin/tokens", True, ""),
    ]
    with ExitStack() as stack:
        uploads = [stack.enter_context(RawConnection(server.port)) for _ in starts]
        for number, (upload, start) in enumerate(zip(uploads, starts, strict=True)):
            wait_for_request_bytes(server, number * 49_000)
            upload.send(start + b"Content-Length: 60000\r\n\r\n" + b"x" * 49_000)
        assert uploads[0].verdict() == (503, "queue_full")
        assert install.snapshot({"text": "x" * 1000}).status_code == 202
        uploads[0].send(b"x" * 11_000 + b"GET /api/v1/healthcheck HTTP/1.1\r\nHost: shm.test\r\n\r\n")
        assert uploads[0].verdict() == (200, None)
    assert install.snapshot({"a": 2}).status_code == 202


@pytest.mark.parametrize("path", ["/v1/snapshot", "/v1/snapshots", "/nowhere", "/api/v1/healthcheck"])
def test_a_body_of_very_many_chunks_is_refused(target: ServerWithDatabase, path: str) -> None:
    """Also where it is discarded: a chunk of a byte costs as much time as a request."""
    start = f"POST {path} HTTP/1.1\r\nHost: shm.test\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    with target.assert_no_fault(), RawConnection(target.server.port) as connection:
        connection.send(start + b"1\r\n \r\n" * 1_000 + b"0\r\n\r\n")
        first = connection.verdict()
        assert first is not None
        assert first[0] in (401, 404, 405)
        connection.send(start + b"1\r\n \r\n" * 60_000 + b"0\r\n\r\n")
        assert connection.verdict() in ((400, "bad_http"), first)
        assert connection.ended()


def test_incomplete_heads_are_in_the_budget(serve: Callable[..., ServerProcess]) -> None:
    """The oldest one is refused, also in favour of a body, and a complete one is not counted."""
    server = serve(SHM_MAX_READING="40k")
    install = Install(server.url).enroll({"a": 1})
    head_start = b"GET /api/v1/healthcheck HTTP/1.1\r\nHost: shm.test\r\nX: " + b"x" * 12_000
    with ExitStack() as stack:
        heads = [stack.enter_context(RawConnection(server.port)) for _ in range(3)]
        for number, connection in enumerate(heads, 1):
            connection.send(head_start)
            wait_for_request_bytes(server, number * 12_000)
        assert sample_value(scrape(server), "shm_client_connections", worker="0") >= 4  # with that of the scrape
        assert install.snapshot({"text": ["x" * 1_000] * 10}).status_code == 202
        assert heads[0].verdict() == (503, "queue_full")
        assert heads[0].ended()
        for connection in heads[1:]:
            for _ in range(5):
                connection.send(b"\r\n\r\n")
                assert connection.verdict() == (200, None)
                connection.send(head_start)
            connection.send(b"\r\n\r\n")
            assert connection.verdict() == (200, None)
        wait_for(lambda: request_bytes(server) < 1_000, "the gauge")


def test_a_body_that_is_ignored_does_no_harm(target: ServerWithDatabase) -> None:
    """Scripts send `{}` with requests that have no body."""
    with target.assert_no_fault(), RawConnection(target.server.port) as connection:
        for method in ("GET", "HEAD"):
            start = head(target.server, method, "/api/v1/admin/stats", True, "")
            connection.send(start + b"Content-Length: 2\r\n\r\n{}")
            if method == "GET":
                assert connection.verdict() == (200, None)
