"""Limits of connections: a stranger's idle connections exclude nobody, and a request in flight is never replaced."""

import resource
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import make_dsn

from tests.support.clusters import wait_for
from tests.support.databases import admin_cursor, waiting_statements
from tests.support.hostile.case import snapshot
from tests.support.installs import Install
from tests.support.prometheus_scrape import sample_value, scrape
from tests.support.raw_http import RawConnection
from tests.support.server_process import ServerProcess
from tests.support.shared_servers import HonestInstalls

HEALTHCHECK = b"GET /api/v1/healthcheck HTTP/1.1\r\nHost: shm.test\r\n\r\n"
BADGE = b"GET /badge/ledger/instances HTTP/1.1\r\nHost: shm.test\r\n\r\n"
OTHER_ADDRESS = "127.0.0.2"
UNREAD_COUNT = 200
UNREAD = b"GET /api/openapi.json HTTP/1.1\r\nHost: shm.test\r\n\r\n" * UNREAD_COUNT
OPEN_FILES = 1_024
IDLE = 1_100  # more connections than that


def soft_file_limit(pid: int) -> int:
    """The limit of open files of a process."""
    return resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]


def is_answered(connection: RawConnection) -> bool:
    """Whether the server answers a request on this connection."""
    return connection.send(HEALTHCHECK) and connection.verdict() == (200, None)


def open_idle(stack: ExitStack, server: ServerProcess, number: int) -> list[RawConnection]:
    """Connections that send nothing."""
    return [stack.enter_context(RawConnection(server.port)) for _ in range(number)]


def test_the_soft_limit_of_open_files_is_raised(database: str, tmp_path: Path) -> None:
    before = ("prlimit", f"--nofile={OPEN_FILES}:4096")
    server = ServerProcess(tmp_path / "data", {"SHM_DB_DSN": database}, before=before)
    try:
        server.start()
        assert soft_file_limit(server.pid) == 4096
    finally:
        server.terminate()


def test_idle_connections_beyond_the_file_limit_exclude_nobody(database: str, tmp_path: Path) -> None:
    """Also not if each of them comes from another address, so that only the total limit counts."""
    environment = {"SHM_DB_DSN": database, "SHM_TRUSTED_PROXIES": "127.0.0.1"}
    server = ServerProcess(tmp_path / "data", environment, before=("prlimit", f"--nofile={OPEN_FILES}:{OPEN_FILES}"))
    try:
        server.start()
        with ExitStack() as stack:
            open_idle(stack, server, IDLE)
            assert all(is_answered(connection) for connection in open_idle(stack, server, 10))
        assert "EMFILE" not in server.log
        assert len(server.log) < 4_096, server.log
    finally:
        server.terminate()


def test_an_address_replaces_its_own_longest_waiting_connection(serve: Callable[..., ServerProcess]) -> None:
    server = serve(SHM_MAX_CONNECTIONS_PER_ADDRESS="4")
    with ExitStack() as stack:
        first, *others = open_idle(stack, server, 4)
        newest = open_idle(stack, server, 1)[0]
        assert first.ended()
        assert all(is_answered(connection) for connection in [*others, newest])


def stop_reading(connection: RawConnection) -> None:
    """Requests more than the buffers of both sides hold, and reads none of it."""
    connection.send(UNREAD)


@pytest.mark.parametrize(
    "limits",
    [
        {"SHM_MAX_CONNECTIONS_PER_ADDRESS": "4"},
        {"SHM_MAX_CONNECTIONS": "4", "SHM_TRUSTED_PROXIES": "127.0.0.1"},  # which has no limit of its own
    ],
)
def test_unread_responses_exclude_nobody(serve: Callable[..., ServerProcess], limits: dict[str, str]) -> None:
    server = serve(**limits)
    with ExitStack() as stack:
        greedy = open_idle(stack, server, 4)
        for connection in greedy:
            stop_reading(connection)

        def is_served() -> bool:
            with RawConnection(server.port) as other:
                return is_answered(other)

        wait_for(is_served, "a connection beside the unread ones")


@pytest.mark.long
def test_a_client_that_does_not_read_is_disconnected_in_time(serve: Callable[..., ServerProcess]) -> None:
    server = serve()
    with RawConnection(server.port) as greedy:
        stop_reading(greedy)
        started_at = time.monotonic()
        while sample_value(scrape(server), "shm_client_connections", worker="0") > 1:
            assert time.monotonic() - started_at < 60, "the connection is still open"
            time.sleep(1)
        assert time.monotonic() - started_at > 20


def test_a_client_that_reads_slowly_gets_every_response(serve: Callable[..., ServerProcess]) -> None:
    server = serve()
    with RawConnection(server.port) as slow:
        stop_reading(slow)
        time.sleep(3)
        assert [slow.verdict() for _ in range(UNREAD_COUNT)] == [(200, None)] * UNREAD_COUNT


def test_a_request_in_flight_is_not_replaced(serve: Callable[..., ServerProcess], database: str) -> None:
    server = serve(SHM_MAX_CONNECTIONS_PER_ADDRESS="3", SHM_MAX_SNAPSHOT_AGE="36000d", SHM_RETENTION="36500d")
    installs = [Install(server.url).enroll() for _ in range(3)]
    with admin_cursor(make_dsn(database)) as cursor, ExitStack() as stack:
        honest = HonestInstalls(installs[0], installs[1], cursor)
        honest.block_writer()
        try:
            in_flight = [stack.enter_context(RawConnection(server.port)) for _ in installs]
            assert all(is_answered(connection) for connection in in_flight)  # accepted before the snapshots are sent
            for connection, install in zip(in_flight, installs, strict=True):
                connection.send(snapshot(install, b'{"a":1}'))
            honest.wait_until_batch_blocked()
            with RawConnection(server.port) as refused:
                assert refused.verdict() == (429, "too_many_connections")
        finally:
            honest.release_writer()
        assert [connection.verdict() for connection in in_flight] == [(202, None)] * 3


def test_requests_of_one_address_leave_connections_to_others(
    serve: Callable[..., ServerProcess], database: str
) -> None:
    """Requests in flight are never replaced. Where few files may be open, all connections are fewer than its limit."""
    server = serve(SHM_MAX_CONNECTIONS="8", SHM_DB_POOL="12")
    holder = psycopg2.connect(database)
    try:
        holder.cursor().execute("LOCK TABLE applications IN ACCESS EXCLUSIVE MODE")
        with ExitStack() as stack:
            for connection in open_idle(stack, server, 8):
                connection.send(BADGE)
            wait_for(lambda: len(waiting_statements(database)) >= 4, "the requests of one address")
            assert is_answered(stack.enter_context(RawConnection(server.port, OTHER_ADDRESS)))
    finally:
        holder.close()


def test_trusted_proxies_have_no_limit_of_their_own(serve: Callable[..., ServerProcess]) -> None:
    server = serve(SHM_MAX_CONNECTIONS_PER_ADDRESS="2", SHM_TRUSTED_PROXIES="127.0.0.1", SHM_HEADER_TIMEOUT="1s")
    with ExitStack() as stack:
        connections = open_idle(stack, server, 20)
        time.sleep(2)  # a proxy opens connections before it has requests
        assert all(is_answered(connection) for connection in connections)


def test_headers_have_a_time_limit_and_idle_connections_another(serve: Callable[..., ServerProcess]) -> None:
    server = serve(SHM_HEADER_TIMEOUT="1s", SHM_IDLE_TIMEOUT="5s")

    def silent() -> bool:
        with RawConnection(server.port) as connection:
            return connection.ended()

    def half_a_head() -> object:
        with RawConnection(server.port) as connection:
            connection.send(HEALTHCHECK[:-2])
            return connection.verdict(), connection.ended()

    def half_a_second_head() -> object:
        with RawConnection(server.port) as connection:
            assert is_answered(connection)
            time.sleep(2)
            assert is_answered(connection), "an idle connection was closed"
            connection.send(HEALTHCHECK[:10])
            return connection.verdict(), connection.ended()

    with ThreadPoolExecutor() as pool:
        futures: list[Future[object]] = [pool.submit(silent), pool.submit(half_a_head), pool.submit(half_a_second_head)]
        assert [future.result() for future in futures] == [
            True,
            ((408, "too_slow"), True),
            ((408, "too_slow"), True),
        ]


def test_accepting_pauses_without_free_descriptors(serve: Callable[..., ServerProcess]) -> None:
    server = serve()  # a new one has no unused descriptor below its limit
    soft, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (8, hard))
    with RawConnection(server.port) as connection:
        connection.send(HEALTHCHECK)
        assert not connection.has_more(2)
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (soft, hard))
        assert connection.verdict() == (200, None)
    (line,) = [line for line in server.log.splitlines() if "accepting connections pauses" in line]
    assert line.endswith("OSError EMFILE")
    assert "background callback" not in server.log
