"""Dispatch of requests by path: the client protocol to IngestRequest, all others to Tornado's Application.

Unreadable HTTP and headers over their limit are answered as a problem document too, like every refusal.
"""

import re
import socket
import ssl
from collections.abc import Awaitable, Iterable, Mapping
from contextlib import suppress
from typing import Any, cast

import tornado.web
from tornado import httputil
from tornado.http1connection import HTTP1Connection
from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream

from shm.core.errors import Overloaded, Refusal, Unauthorized
from shm.server.connections import MAX_CLOSED_AT_ONCE
from shm.server.http import problems
from shm.server.http.acceptor import Acceptor
from shm.server.http.connection import MAX_DISCARDED_BYTES, Connection, body_length, has_body
from shm.server.http.ingest_requests import Endpoint, IngestRequest, turns_key
from shm.server.http.stream import HEADERS_TOO_LARGE, Stream, closing_response
from shm.server.http.unauthenticated import UnauthenticatedLimit
from shm.server.services import Services

READ_BYTES = 16 * 1024  # that are read at once: a connection may hold as many that its request has not taken yet
MAX_REQUEST_LINE_BYTES = 8 * 1024  # with the ends of lines
MAX_BODY_BYTES = 2 * MAX_DISCARDED_BYTES  # Tornado's limit of a body; a large body is refused earlier

# A request target that is a URL (RFC 9112, section 3.2.2): clients send one to proxies, and servers accept it.
ABSOLUTE_FORM = re.compile(r"https?://([^/?#]+)([^#]*)", re.IGNORECASE)

# The value of one Host header. Tornado joins two headers with a comma, which does not match.
HOST = re.compile(r"[A-Za-z0-9\[\]:._~!$&'()*+;=%-]*")


def make_server(
    services: Services,
    application: tornado.web.Application,
    endpoints: Mapping[str, Endpoint],
    tls: ssl.SSLContext | None = None,
) -> "Server":
    """The HTTP server with its limits, before it listens. `endpoints`: the client protocol's endpoints by path."""
    settings = services.settings
    server = Server(
        RequestDispatcher(services, application, endpoints),
        chunk_size=READ_BYTES,
        max_header_size=settings.max_headers + MAX_REQUEST_LINE_BYTES,
        max_body_size=max(MAX_BODY_BYTES, settings.max_body, settings.max_backlog_body),
        ssl_options=tls,
    )
    server.conn_params.header_timeout = None  # `Connections` has the time limits, without a timer for each request
    server.services = services  # Tornado's constructor passes on its own arguments only
    connections = services.connections
    server.acceptor = Acceptor(server.accept, lambda: connections.close_longest_waiting(MAX_CLOSED_AT_ONCE))
    return server


class Server(HTTPServer):
    """Tornado's server with limits of its connections, and `Stream` as the class of its streams."""

    services: Services
    acceptor: Acceptor

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        """Accepts connections from these sockets until `stop`."""
        self.acceptor.start(list(sockets))

    def stop(self) -> None:
        """Closes the listening sockets."""
        self.acceptor.stop()
        super().stop()

    def accept(self, connection: socket.socket, address: Any) -> None:
        """Serves a connection, or refuses it if its address or the server has too many."""
        refusal = self.services.connections.admit(self.services.rate_limiter.hash_peer(address[0]))
        if refusal is None:
            self._handle_connection(connection, address)
            return
        self.services.instruments.record_early_refusal(refusal)
        with connection, suppress(OSError):
            connection.setblocking(False)
            if self.ssl_options is None:  # else the client expects a handshake
                connection.send(closing_response(refusal))

    def handle_stream(self, stream: IOStream, address: Any) -> None:
        """Called by Tornado for each connection."""
        hashed = self.services.rate_limiter.hash_peer(address[0])
        services = self.services
        Stream.convert(stream, services.instruments, services.connections, services.request_memory, hashed)
        super().handle_stream(stream, address)


class RequestDispatcher(httputil.HTTPServerConnectionDelegate):
    """Makes a delegate for each request, which chooses the receiver by the path."""

    def __init__(
        self, services: Services, application: tornado.web.Application, endpoints: Mapping[str, Endpoint]
    ) -> None:
        self._services = services
        self._application = application
        self._endpoints = endpoints

    def start_request(self, server_conn: object, request_conn: httputil.HTTPConnection) -> "_RoutingDelegate":
        """Called by Tornado for each request."""
        return _RoutingDelegate(
            self._services,
            self._application,
            self._endpoints,
            server_conn,
            Connection.convert(cast(HTTP1Connection, request_conn)),
        )


class _RoutingDelegate(httputil.HTTPMessageDelegate):
    """A request: it chooses its delegate by the request's head and passes all later calls on to it."""

    def __init__(
        self,
        services: Services,
        application: tornado.web.Application,
        endpoints: Mapping[str, Endpoint],
        server: object,
        connection: Connection,
    ) -> None:
        self._services = services
        self._application = application
        self._endpoints = endpoints
        self._server = server
        self._connection = connection
        self._stream = cast(Stream, connection.stream)
        self._received = 0
        self._delegate = httputil.HTTPMessageDelegate()  # ignores all calls until the head is read
        self._turns_key = ""

    def headers_received(
        self, start_line: httputil.RequestStartLine | httputil.ResponseStartLine, headers: httputil.HTTPHeaders
    ) -> Any:
        """Checks the headers, chooses the delegate and passes the head on to it."""
        self._stream.head_complete()
        if not has_body(headers):
            self._stream.connections.request_complete(self._stream)
        if self._has_too_large_headers(headers):
            self._refuse(HEADERS_TOO_LARGE)
            return None
        start_line = _to_origin_form(cast(httputil.RequestStartLine, start_line), headers)
        if start_line.version == "HTTP/1.1" and not HOST.fullmatch(headers.get("Host", ",")):
            raise httputil.HTTPInputError("Host")
        endpoint = self._endpoints.get(start_line.path.partition("?")[0])
        limit = UnauthenticatedLimit(self._services, self._connection, headers)
        self._turns_key = turns_key(limit.address, headers)
        if endpoint is None or start_line.method != "POST":
            refusal = None if self._has_valid_token(headers) else limit.take()
            if refusal is not None:
                return self._delay(refusal, start_line, headers, endpoint, limit)
        return self._pass_on(start_line, headers, endpoint, limit)

    def _has_too_large_headers(self, headers: httputil.HTTPHeaders) -> bool:
        """Whether the headers are over their limit. They are not if the whole head is within it."""
        limit = self._services.settings.max_headers
        return self._connection.head_length > limit and (
            sum(len(name) + len(value) for name, value in headers.get_all()) > limit
        )

    def _refuse(self, refusal: Refusal) -> None:
        """Responds and closes the connection."""
        problems.log("head", refusal)
        self._services.instruments.record_early_refusal(refusal)
        self._connection.write(closing_response(refusal))
        self._connection.finish()

    def _has_valid_token(self, headers: httputil.HTTPHeaders) -> bool:
        """Whether the request has a token that was valid when it was last used."""
        try:
            token = self._services.tokens.hash_bearer(headers.get("Authorization"))
        except Unauthorized:
            return False
        return self._services.rate_limiter.was_valid(token)

    async def _delay(
        self,
        refusal: Refusal,
        start_line: httputil.RequestStartLine,
        headers: httputil.HTTPHeaders,
        endpoint: Endpoint | None,
        limit: UnauthenticatedLimit,
    ) -> None:
        """Refuses the request after a delay.

        One with a token is not refused but passed on: the token may be valid, and used for the first time.
        """
        if not await limit.delay(is_body_awaited=has_body(headers)):
            return
        if "Authorization" not in headers:
            self._refuse(refusal)
            return
        passed_on = self._pass_on(start_line, headers, endpoint, limit)
        if passed_on is not None:
            await passed_on

    def _pass_on(
        self,
        start_line: httputil.RequestStartLine,
        headers: httputil.HTTPHeaders,
        endpoint: Endpoint | None,
        limit: UnauthenticatedLimit,
    ) -> Any:
        """Chooses the delegate and passes the head on to it."""
        if endpoint is not None:
            self._delegate = IngestRequest(self._services, self._connection, endpoint, limit)
        else:
            self._connection.set_body_timeout(self._services.settings.body_timeout.total_seconds())
            length = body_length(headers) or 0
            self._connection.discards_rest = "Expect" not in headers and length <= MAX_DISCARDED_BYTES
            self._delegate = self._application.start_request(self._server, self._connection)
        return self._delegate.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Any:
        """Passes a chunk of the body on. The next one of a large body is read in its turn."""
        self._received += len(chunk)
        if self._received > MAX_DISCARDED_BYTES and self._connection.is_answered:
            self._connection.close_unread()
            return None
        passed_on = self._delegate.data_received(chunk)
        return passed_on if self._received < READ_BYTES else self._take_turn(passed_on)

    async def _take_turn(self, passed_on: Awaitable[None] | None) -> None:
        if passed_on is not None:
            await passed_on
        try:
            await self._services.large_bodies.turn(self._turns_key, READ_BYTES)  # the next chunk has no more
        except Overloaded:
            self._stream.close()

    def finish(self) -> None:
        """Passes the end of the body on."""
        self._stream.connections.request_complete(self._stream)
        self._delegate.finish()
        self._connection.complete_body()

    def on_connection_close(self) -> None:
        """Passes the connection's end on."""
        self._delegate.on_connection_close()


def _to_origin_form(start_line: httputil.RequestStartLine, headers: httputil.HTTPHeaders) -> httputil.RequestStartLine:
    """The start line with path and query only. The host of a URL replaces the Host header."""
    match = ABSOLUTE_FORM.fullmatch(start_line.path)
    if match is None:
        return start_line
    headers["Host"] = match[1]
    return start_line._replace(path=match[2] if match[2].startswith("/") else f"/{match[2]}")
