"""The base of all handlers: access checks, problem documents, and the count of requests in flight.

Each method is declared as an `operation`. The base dispatches it: it parses the request and encodes the response by
that declaration.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from http import HTTPStatus
from typing import Any, ClassVar, cast
from urllib.parse import urlencode

import msgspec
import tornado.web
from tornado.http1connection import HTTP1Connection
from tornado.iostream import StreamClosedError

from shm.auth.tokens import Principal, Role
from shm.core.errors import BadRequest, Forbidden, MethodNotAllowed, NotFound, PayloadTooLarge, Refusal, Unauthorized
from shm.server.http import problems
from shm.server.http.connection import body_length, has_body
from shm.server.http.operations import FEED_CURSOR, NEXT_PAGE, Header, Operation, Stream, operations_of
from shm.server.http.params import NoQuery, parse_body, parse_query
from shm.server.services import Services

# The API's number. It rises with each change that an older client, or a newer client of an older server, does not work
# with; an addition that clients may ignore does not. `shm_client` has the same number.
API_LEVEL = 1
API_LEVEL_HEADER = "X-API-Level"

PAGE_PARAMETERS = {"after", "before", "around", "offset"}  # of a list: they select the page

_encoder = msgspec.json.Encoder(decimal_format="number")


@tornado.web.stream_request_body
class Handler(tornado.web.RequestHandler):
    """The base of every handler."""

    operations: ClassVar[dict[str, Operation]]  # by method, in lower case
    principal: Principal | None = None  # of the request's token, if the operation requires one

    def __init_subclass__(cls) -> None:
        """Adds HEAD to each handler with GET, except for an upgrade to a websocket."""
        get = operations_of(cls).get("get")
        if get is not None and get.status is not HTTPStatus.SWITCHING_PROTOCOLS:
            cls.head = cls.get
        cls.operations = operations_of(cls)

    def initialize(self, services: Services) -> None:
        """Called by Tornado with the route's arguments."""
        self.services = services
        self._is_in_flight = False
        self._body = bytearray()
        self._received = 0

    async def prepare(self) -> None:
        """Called by Tornado before it reads the body: checks access, then the body's length.

        A request with a body counts as in flight once that is complete, so that a slow sender delays no drain.
        """
        if not has_body(self.request.headers):
            self.mark_in_flight()
        await self.check_access()
        if (body_length(self.request.headers) or 0) > self.services.settings.max_body:
            raise self._too_large()
        if has_body(self.request.headers) and self.operation().status is HTTPStatus.SWITCHING_PROTOCOLS:
            raise BadRequest("unexpected_body", "A request for a websocket has no body.")

    def data_received(self, chunk: bytes) -> None:
        """Called by Tornado for a chunk of the body. Keeps it if the operation has a body."""
        self._received += len(chunk)
        if self._finished:
            return
        if self._received > self.services.settings.max_body:  # a chunked body has no Content-Length
            self.refuse(self._too_large())
        elif self.operation().body is not None:
            self._body += chunk
            self.services.request_memory.add(self, len(chunk))

    def refuse(self, refusal: Refusal) -> None:
        """Refuses the request before its body is complete."""
        self._release_body()
        self.send_error(refusal.status, exc_info=(type(refusal), refusal, None))

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge("body_too_large", f"The body is larger than {self.services.settings.max_body} bytes.")

    def _release_body(self) -> None:
        self.services.request_memory.release(self)
        self._body.clear()

    def on_connection_close(self) -> None:
        """Called by Tornado if the client disconnects before its request is complete."""
        self._release_body()
        super().on_connection_close()

    def mark_in_flight(self) -> None:
        """Counts the request as in flight until its response is sent. A drain waits for requests in flight."""
        self._is_in_flight = True
        self.services.request_started()

    async def check_access(self) -> None:
        """Raises a Refusal while the server drains, or if the caller's role is insufficient."""
        self.services.reject_if_draining()
        await self.authorize(self.operation().role)

    def operation(self) -> Operation:
        """The declaration of the request's method. Raises MethodNotAllowed."""
        found = self.operations.get((self.request.method or "").lower())
        if found is None:
            raise MethodNotAllowed("method_not_allowed", "This path does not support the method.")
        return found

    async def authorize(self, required_role: Role) -> None:
        """Checks that the bearer token has the required role. Raises Unauthorized or Forbidden."""
        if required_role < Role.VIEWER:
            return
        self.principal = await self._authenticate()
        if self.principal.role < required_role:
            raise Forbidden("role_too_small", f"A token with the role {required_role.name.lower()} is required.")

    async def _authenticate(self) -> Principal:
        tokens, limits = self.services.tokens, self.services.rate_limiter
        headers = self.request.headers
        token = tokens.hash_bearer(headers.get("Authorization"))
        address = limits.hash_address(self.request.remote_ip or "", headers.get_list("X-Forwarded-For"))
        ban = limits.find_ban(address, token)
        if ban is not None and not await tokens.is_valid(token):
            raise ban
        principal = await tokens.authenticate(token)
        limits.record_attempt(address, token, succeeded=principal is not None)
        if principal is None:
            raise Unauthorized("bad_token", "The token is invalid.", {"WWW-Authenticate": "Bearer"})
        rate_limit = limits.take_token(token)
        if rate_limit is not None:
            for name, value in rate_limit.headers().items():
                self.set_header(name, value)
        return principal

    async def record_change(self, action: str, target: str, **details: object) -> None:
        """Adds a change by the request's token to the audit trail. Call it before the change."""
        assert self.principal is not None  # noqa: S101 - only admins change something
        await self.services.audit.record(self.principal.id, action, target, **details)

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> "asyncio.Future[None]":
        """Ends the request. It is in flight until its last byte is sent or its client has disconnected."""
        written = super().finish(chunk)
        written.add_done_callback(self._on_finished)
        return written

    def _on_finished(self, written: "asyncio.Future[None]") -> None:
        written.exception()  # a disconnected client is not an error
        if self._is_in_flight:
            self._is_in_flight = False
            self.services.request_finished()

    def set_default_headers(self) -> None:
        """Called by Tornado for every response."""
        for name, value in problems.FIXED_HEADERS.items():
            self.set_header(name, value)
        self.set_header(API_LEVEL_HEADER, str(API_LEVEL))

    async def dispatch_operation(
        self, declared: Operation, method: Callable[..., Awaitable[object]], path: dict[str, str]
    ) -> None:
        """Parses the request, calls the method and sends its response."""
        if self._finished:  # refused before its body was complete
            return
        if not self._is_in_flight:
            self.mark_in_flight()
        self.services.request_memory.complete(self)
        try:
            await self._dispatch(declared, method, path)
        finally:
            self._release_body()

    async def _dispatch(
        self, declared: Operation, method: Callable[..., Awaitable[object]], path: dict[str, str]
    ) -> None:
        arguments: dict[str, object] = {**path}
        query = parse_query(declared.query or NoQuery, self._query_arguments())
        if declared.query is not None:
            arguments["query"] = query
        if declared.body is not None:
            arguments["body"] = parse_body(declared.body, bytes(self._body))
        response = await method(self, **arguments)
        if declared.status is not HTTPStatus.SWITCHING_PROTOCOLS:
            await self._send_response(declared, response)

    def _query_arguments(self) -> dict[str, list[str]]:
        """The values of each query parameter, exactly: Tornado's method replaces control characters by spaces."""
        try:
            return {name: [value.decode() for value in values] for name, values in self.request.query_arguments.items()}
        except UnicodeDecodeError:
            raise BadRequest("bad_parameter", "A query parameter is not in UTF-8.") from None

    async def _send_response(self, declared: Operation, response: object) -> None:
        self.set_status(declared.status)
        if isinstance(response, Stream):
            await self._send_chunks(response)
        elif not declared.has_body:
            self.finish()
        else:
            self.set_header("Content-Type", self.choose_media_type(declared))
            self.finish(response if isinstance(response, bytes) else _encoder.encode(response))

    def choose_media_type(self, declared: Operation) -> str:
        """The media type of a response that is no stream."""
        return declared.media_types[0]

    async def _send_chunks(self, response: Stream) -> None:
        """Sends a response in chunks.

        An error before the first chunk gets an error status. A later error closes the connection, so that the client
        sees an incomplete response.
        """
        self.set_header("Content-Type", response.media_type)
        async with aclosing(response.chunks) as chunks:
            try:
                async for chunk in chunks:
                    self.write(chunk)
                    await self.flush()
                    if self.request.method == "HEAD":
                        break
            except StreamClosedError:  # the client disconnected, or read nothing for WRITE_TIMEOUT_S: no error
                self._close_connection()
            except Exception as error:
                if not self._headers_written:
                    raise
                problems.log(type(self).__name__, error)
                self._close_connection()
        if not self._finished:
            self.finish()

    def _close_connection(self) -> None:
        cast(HTTP1Connection, self.request.connection).close()

    def set_declared_header(self, header: Header, value: object) -> None:
        """Adds a header that the operation declares."""
        assert header in self.operation().headers, header  # noqa: S101 - else the document lacks it
        self.set_header(header.name, str(value))

    def set_feed_cursor(self, cursor: int) -> None:
        """Sets the header with the feed's cursor of the response's state."""
        self.set_declared_header(FEED_CURSOR, cursor)

    def set_next_link(self, after: str) -> None:
        """Sets the header with the link to the next page."""
        self.set_links(after, None)

    def set_links(self, after: str | None, before: str | None) -> None:
        """Sets the header with the links to the pages after and before this one: the same query at another place."""
        query = {name: values for name, values in self._query_arguments().items() if name not in PAGE_PARAMETERS}
        links = [
            f'<?{urlencode(query | {place: [token]}, doseq=True)}>; rel="{relation}"'
            for place, token, relation in (("after", after, "next"), ("before", before, "prev"))
            if token is not None
        ]
        if links:
            self.set_declared_header(NEXT_PAGE, ", ".join(links))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Sends an error as a problem document, without internals."""
        error = kwargs["exc_info"][1] if "exc_info" in kwargs else None
        refusal = problems.refusal_for(error, status_code)
        self.services.instruments.refusals.increment(refusal.code)
        self.set_header("Content-Type", problems.CONTENT_TYPE)
        for name, value in refusal.headers.items():
            self.set_header(name, value)
        if isinstance(refusal, MethodNotAllowed):
            self.set_header("Allow", ", ".join(name.upper() for name in self.operations))
        self.set_status(refusal.status)
        self.finish(problems.body_of(refusal))

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Logs an error without the request, which contains the client's address."""
        if not isinstance(value, tornado.web.HTTPError):
            problems.log(type(self).__name__, value)

    def compute_etag(self) -> str | None:
        """Returns no ETag: responses are not cached, so a hash of the body has no use."""
        return None


class NotFoundHandler(Handler):
    """The handler of all paths without a route."""

    def operation(self) -> Operation:
        """Raises NotFound."""
        raise NotFound("no_such_address", "This path does not exist.")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Sends an error. Tornado refuses methods that it does not know with 405, before it calls `prepare`."""
        if status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            status_code, kwargs = HTTPStatus.NOT_FOUND, {}
        super().write_error(status_code, **kwargs)
