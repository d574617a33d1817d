"""Where a request comes in: what installs send goes to an Exchange, all else to Tornado's Application.

HTTP that cannot be read is answered in the one shape of all refusals too, and so are headers beyond their limit.
"""

import re
from collections.abc import Mapping
from typing import Any, cast

import tornado.web
from tornado import httputil
from tornado.http1connection import HTTP1Connection
from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream

from shm.core.instruments import Instruments
from shm.core.setting_types import MAX_HEADERS_BYTES
from shm.server.http import problems
from shm.server.http.ingest_requests import MOST_DROPPED, Exchange, Post
from shm.server.http.stream import HEADERS_TOO_LARGE, Stream, last
from shm.server.services import Rooms

MOST_READ = 2 * MOST_DROPPED  # bytes of a body; an Exchange refuses it before

# Of one header; two come from Tornado with a comma between them.
HOST = re.compile(r"[A-Za-z0-9\[\]:._~!$&'()*+;=%-]*")


def make_server(rooms: Rooms, application: tornado.web.Application, posts: Mapping[str, Post]) -> "Server":
    """The HTTP server with its limits, not yet listening. `posts`: the client protocol's endpoints by path."""
    settings = rooms.settings
    server = Server(
        Door(rooms, application, posts),
        max_header_size=MAX_HEADERS_BYTES,
        max_body_size=max(MOST_READ, settings.max_body, settings.max_backlog_body),
        idle_connection_timeout=settings.idle_timeout.total_seconds(),
    )
    server.instruments = rooms.instruments  # Tornado's way of making one takes no arguments but its own
    return server


class Server(HTTPServer):
    """Tornado's, on streams of ours."""

    instruments: Instruments

    def handle_stream(self, stream: IOStream, address: Any) -> None:
        """Called by Tornado for each connection."""
        Stream.adopt(stream, self.instruments)
        super().handle_stream(stream, address)


class Door(httputil.HTTPServerConnectionDelegate):
    """Tells requests apart by their path."""

    def __init__(self, rooms: Rooms, application: tornado.web.Application, posts: Mapping[str, Post]) -> None:
        self._rooms = rooms
        self._application = application
        self._posts = posts

    def start_request(self, server_conn: object, request_conn: httputil.HTTPConnection) -> "_Way":
        """Called by Tornado for each request."""
        return _Way(self._rooms, self._application, self._posts, server_conn, cast(HTTP1Connection, request_conn))


class _Way(httputil.HTTPMessageDelegate):
    """A request whose head is still to come; from there on, the delegate that it goes to."""

    def __init__(
        self,
        rooms: Rooms,
        application: tornado.web.Application,
        posts: Mapping[str, Post],
        server: object,
        connection: HTTP1Connection,
    ) -> None:
        self._rooms = rooms
        self._application = application
        self._posts = posts
        self._server = server
        self._connection = connection
        self._to = httputil.HTTPMessageDelegate()  # nowhere

    def headers_received(
        self, start_line: httputil.RequestStartLine | httputil.ResponseStartLine, headers: httputil.HTTPHeaders
    ) -> Any:
        """Chooses, and goes that way."""
        if sum(len(name) + len(value) for name, value in headers.get_all()) > self._rooms.settings.max_headers:
            problems.log("head", HEADERS_TOO_LARGE)
            self._rooms.instruments.record_early_refusal(HEADERS_TOO_LARGE)
            self._connection.write(last(HEADERS_TOO_LARGE))
            self._connection.finish()
            return None
        start_line = cast(httputil.RequestStartLine, start_line)
        if start_line.version == "HTTP/1.1" and not HOST.fullmatch(headers.get("Host", ",")):
            raise httputil.HTTPInputError("Host")
        post = self._posts.get(start_line.path.partition("?")[0])
        if post is not None:
            self._to = Exchange(self._rooms, self._connection, post)
        else:
            self._connection.set_body_timeout(self._rooms.settings.body_timeout.total_seconds())
            self._to = self._application.start_request(self._server, self._connection)
        return self._to.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Any:
        """Goes on."""
        return self._to.data_received(chunk)

    def finish(self) -> None:
        """Goes on."""
        self._to.finish()

    def on_connection_close(self) -> None:
        """Goes on."""
        self._to.on_connection_close()
