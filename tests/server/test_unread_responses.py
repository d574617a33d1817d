"""Responses that clients do not read share one budget of memory."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime

import psutil
import pytest

from tests.support import plain_http
from tests.support.clusters import wait_for
from tests.support.installs import Install
from tests.support.prometheus_scrape import sample_value, scrape
from tests.support.server_process import ServerProcess

MIB = 1024 * 1024
MAX_UNREAD_MIB = 4
CONNECTIONS = 500
DOCUMENT = "/api/openapi.json"
SLOW_BYTES_PER_S = 25_000
LISTED = 24  # installs with almost 64 KiB each


def request(path: str, *lines: str) -> bytes:
    """A request for a path."""
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: shm.test", *lines, "", ""]).encode()


@contextmanager
def narrow_connection(server: ServerProcess) -> Iterator[socket.socket]:
    """A connection for which the client's kernel buffers little."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.settimeout(60)
        connection.connect(("127.0.0.1", server.port))
        yield connection


def unread_bytes(server: ServerProcess) -> float:
    """What waits to be read, as the server counts it."""
    return sample_value(scrape(server), "shm_response_bytes", worker="0")


def answered_lists(server: ServerProcess) -> float:
    """The number of lists that the server has answered."""
    return sample_value(scrape(server), "shm_requests_total", handler="Instances", status="200")


def test_the_memory_of_unread_responses_is_bounded(serve: Callable[..., ServerProcess]) -> None:
    """Of 500 connections without a token that read nothing. Others are served all the time."""
    server = serve(SHM_MAX_UNREAD=f"{MAX_UNREAD_MIB}m")
    process, before = psutil.Process(server.pid), 0
    size = len(plain_http.get(server.url + DOCUMENT).content)
    assert size * CONNECTIONS > 10 * MAX_UNREAD_MIB * MIB
    with ExitStack() as stack:
        for number in range(CONNECTIONS):
            stack.enter_context(narrow_connection(server)).sendall(request(DOCUMENT) * 10)
            if number % 50 == 0:
                before = before or process.memory_info().rss
                assert server.get("stats").status_code == 200
                assert unread_bytes(server) <= MAX_UNREAD_MIB * MIB
        wait_for(lambda: MAX_UNREAD_MIB * MIB - 2 * size < unread_bytes(server) <= MAX_UNREAD_MIB * MIB, "the budget")
        assert process.memory_info().rss - before < 5 * MAX_UNREAD_MIB * MIB
        assert sample_value(scrape(server), "shm_client_connections", worker="0") < CONNECTIONS / 2
    wait_for(lambda: unread_bytes(server) == 0, "the end of the connections")
    assert server.log.count("unread responses have reached their limit") == 1


def test_a_client_that_reads_slowly_is_not_closed_for_those_that_do_not(serve: Callable[..., ServerProcess]) -> None:
    """The budget closes the connection whose client has read nothing for the longest, not the oldest one."""
    server = serve(SHM_MAX_UNREAD=f"{MAX_UNREAD_MIB}m")
    metrics = {f"text{number}": "x" * 1_000 for number in range(60)}
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: Install(server.url).enroll(metrics), range(LISTED)))
    list_all = request("/api/v1/admin/instances", f"Authorization: {server.headers['Authorization']}")
    with ExitStack() as stack:
        slow = stack.enter_context(narrow_connection(server))
        slow.sendall(list_all)
        received = slow.recv(65_536)
        remaining = int(received.split(b"Content-Length: ")[1].split(b"\r\n")[0])
        assert remaining > MIB
        remaining -= len(received.partition(b"\r\n\r\n")[2])

        answered = 1
        while remaining:  # some pieces, and meanwhile others who do not read
            stack.enter_context(narrow_connection(server)).sendall(list_all)
            answered += 1
            wait_for(lambda: answered_lists(server) == answered, "the response of another one")  # noqa: B023
            until = max(0, remaining - 250_000)
            while remaining > until:
                chunk = slow.recv(min(remaining, 65_536))
                assert chunk, f"{remaining} bytes are missing"
                remaining -= len(chunk)
        assert "unread responses have reached their limit" in server.log


@pytest.mark.long
def test_a_streamed_response_that_is_read_slowly_is_complete(server: ServerProcess) -> None:
    """A chunk of it takes longer than a client that reads nothing has."""
    install = Install(server.url).enroll({"n": 0})
    metrics = {f"text{number}": "x" * 1_000 for number in range(58)}
    for number in range(20):
        assert install.snapshot(metrics | {"n": number}).status_code == 202
    now = datetime.now(UTC).isoformat()
    body = json.dumps({"action": "disclose", "instance_id": install.instance_id, "timestamp": now}).encode()
    lines = [f"{name}: {value}" for name, value in install.signed(body).items()]
    head = [
        "POST /v1/disclose HTTP/1.1",
        "Host: x",
        "Connection: close",
        f"Content-Length: {len(body)}",
        *lines,
        "",
        "",
    ]
    with narrow_connection(server) as connection:
        connection.sendall("\r\n".join(head).encode() + body)
        received = b""
        while chunk := connection.recv(2_048):
            received += chunk
            time.sleep(2_048 / SLOW_BYTES_PER_S)
    assert len(received) > 1_000_000
    assert received.endswith(b"\r\n0\r\n\r\n")


def test_the_kernel_takes_only_a_part_of_an_unread_response(serve: Callable[..., ServerProcess]) -> None:
    """So what waits is in the budget: without a limit the kernel takes megabytes of each connection."""
    server = serve()
    size = len(plain_http.get(server.url + DOCUMENT).content)
    with narrow_connection(server) as connection:
        connection.sendall(request(DOCUMENT) * 50)
        wait_for(lambda: unread_bytes(server) > 0, "an unread response")
        assert unread_bytes(server) < 2 * size
        answered = sample_value(scrape(server), "shm_requests_total", handler="OpenApi", status="200")
        assert answered <= 1 + 256 * 1024 / size + 2


@pytest.mark.parametrize("limit", ["10k"])
def test_one_response_may_be_larger_than_the_budget(serve: Callable[..., ServerProcess], limit: str) -> None:
    server = serve(SHM_MAX_UNREAD=limit)
    with narrow_connection(server) as connection:
        connection.sendall(request(DOCUMENT) * 5 + request("/api/v1/healthcheck", "Connection: close"))
        received = b""
        while chunk := connection.recv(65_536):
            received += chunk
    assert received.count(b"HTTP/1.1 200 OK") == 6
