"""One request of an install and its response, directly on Tornado's HTTP connection.

Installs send thousands of requests for each request of a reader, to seven endpoints. RequestHandler is not used for
them: its overhead is as large as the cost of checking a signature. A body is read up to its size limit and within its
timeout. A request counts as in flight once its body is complete, so a drain waits for it then, and a slow or broken
sender does not delay a drain.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import cast

import msgspec
from tornado import httputil
from tornado.escape import parse_qs_bytes
from tornado.iostream import StreamClosedError

from shm.core.errors import BadRequest, MethodNotAllowed, PayloadTooLarge, Refusal, RequestTimeout
from shm.core.settings import Settings
from shm.server.http import problems
from shm.server.http.connection import MAX_DISCARDED_BYTES, Connection, body_length, has_body
from shm.server.http.stream import Stream, render_response
from shm.server.http.unauthenticated import UnauthenticatedLimit
from shm.server.large_bodies import LargeBodies
from shm.server.services import Services

TIMEOUT_CHECK_INTERVAL_S = 0.5  # between two checks of the requests whose body is not complete

JSON = {"Content-Type": "application/json"}
PROBLEM = {"Content-Type": problems.CONTENT_TYPE}

_encoder = msgspec.json.Encoder(decimal_format="number")


@dataclass(slots=True)
class Request:
    """An install's request: `body` is its exact bytes, `response_headers` are added to the response.

    `address`: that of the client as a keyed hash, for the limits of addresses; None if none applies.
    """

    headers: httputil.HTTPHeaders
    large_bodies: LargeBodies
    address: bytes | None = None
    body: bytes = b""
    response_headers: dict[str, str] = field(default_factory=dict)

    async def turn(self) -> None:
        """Waits for the turn of a large body. Called before the body is worked on, and again after each await."""
        await self.large_bodies.turn(turns_key(self.address, self.headers), len(self.body))


def turns_key(address: bytes | None, headers: httputil.HTTPHeaders) -> str:
    """Whose large bodies take turns: an address, or an instance where no limit of addresses applies."""
    return headers.get("X-Instance-ID", "") if address is None else address.hex()


@dataclass(frozen=True, slots=True)
class Response:
    """The response to an install: JSON, whole or in chunks."""

    body: bytes | AsyncIterator[bytes]
    status: HTTPStatus = HTTPStatus.OK


IngestHandler = Callable[[Services, Request], Awaitable[Response]]


SIGNATURE_HEADERS = ("X-Instance-ID", "X-Signature")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint's function, the limit of its body, and whether it counts against the address's rate limit.

    The other fields are for the OpenAPI document: the body and the response of `handle`, the signature headers, and its
    refusals in addition to the common ones. Without `body`, the body is any JSON object.
    """

    handle: IngestHandler
    operation_id: str  # in the OpenAPI document
    max_body: Callable[[Settings], int]
    is_limited_by_address: bool
    body: type[msgspec.Struct] | None
    response: type
    statuses: tuple[HTTPStatus, ...] = (HTTPStatus.OK,)
    signature_headers: tuple[str, ...] = SIGNATURE_HEADERS
    requires_signature: bool = True
    refuses: tuple[type[Refusal], ...] = ()


def encode(body: object) -> bytes:
    """Encodes a response as JSON."""
    return _encoder.encode(body)


async def enforce_body_timeouts(services: Services) -> None:
    """Refuses requests whose body is late, until cancelled. One loop costs less than a timer for each request."""
    while True:
        await asyncio.sleep(TIMEOUT_CHECK_INTERVAL_S)
        for request in list(services.pending_bodies):
            request.enforce_body_timeout(time.monotonic())


class IngestRequest(httputil.HTTPMessageDelegate):
    """One request on a connection. Tornado calls its public methods in the order of their definition."""

    def __init__(
        self, services: Services, connection: Connection, endpoint: Endpoint, limit: UnauthenticatedLimit
    ) -> None:
        self._services = services
        self._limit = limit
        self._connection = connection
        self._stream = cast(Stream, connection.stream)
        self._endpoint = endpoint
        self._max_body = endpoint.max_body(services.settings)
        self._body = bytearray()
        self._received = 0
        self._is_answered = False
        self._started_at = time.monotonic()

    def headers_received(
        self, start_line: httputil.RequestStartLine | httputil.ResponseStartLine, headers: httputil.HTTPHeaders
    ) -> Awaitable[None] | None:
        """Starts the request, or refuses it before its body is read."""
        self._request = Request(headers, self._services.large_bodies, self._limit.address)
        self._services.pending_bodies.add(self)
        start_line = cast(httputil.RequestStartLine, start_line)
        self._is_http_1_0 = start_line.version != "HTTP/1.1"
        self._is_head = start_line.method == "HEAD"
        length = body_length(headers) or 0
        try:
            self._admit(start_line, length)
        except Refusal as refusal:
            closing = length > MAX_DISCARDED_BYTES or "Expect" in headers
            if self._is_over_budget(refusal):
                return self._refuse_delayed(refusal, closing=closing)
            self._refuse_early(refusal, closing=closing)
        return None

    def _is_over_budget(self, refusal: Refusal) -> bool:
        """Takes from the address's budget for a refused request. Returns whether it has used that up."""
        is_clients_fault = refusal.status < HTTPStatus.INTERNAL_SERVER_ERROR
        return is_clients_fault and self._limit.take() is not None

    async def _refuse_delayed(self, refusal: Refusal, *, closing: bool) -> None:
        if await self._limit.delay(is_body_awaited=has_body(self._request.headers)):
            self._refuse_early(refusal, closing=closing)

    def data_received(self, chunk: bytes) -> None:
        """Collects a chunk of the body, within the limits."""
        self._received += len(chunk)
        if self._is_answered:
            if self._received > MAX_DISCARDED_BYTES:
                self._connection.finish()
            return
        if self._received > self._max_body:  # a chunked body has no Content-Length
            self._refuse_early(self._too_large(), closing=self._received > MAX_DISCARDED_BYTES)
            return
        self._body += chunk
        self._services.request_memory.add(self, len(chunk))

    def refuse(self, refusal: Refusal) -> None:
        """Refuses the request before its body is complete. Called by the budget of requests in memory."""
        self._refuse_early(refusal, closing=False)

    def finish(self) -> None:
        """Handles the request: its body is complete."""
        if self._is_answered:
            self._release_body()
            self._stream.is_answered_early = False
            self._connection.finish()
            return
        self._request.body = bytes(self._body)
        self._body.clear()
        self._services.request_memory.complete(self)
        self._services.pending_bodies.discard(self)
        self._started_at = time.monotonic()  # the response time excludes the time of sending the body
        self._stream.is_answering = True
        self._services.start_request(self._handle())

    def on_connection_close(self) -> None:
        """The client closed the connection before its body was complete, or sent invalid HTTP."""
        self._release_body()

    def _release_body(self) -> None:
        """Ends the timeout of the body and frees its memory."""
        self._services.pending_bodies.discard(self)
        self._services.request_memory.release(self)
        self._body.clear()

    def _refuse_early(self, refusal: Refusal, *, closing: bool) -> None:
        """Responds before the body is complete.

        The rest of the body is read and discarded. `closing` ends the connection instead; the sender may then see the
        closed connection before it reads the response.
        """
        self._services.request_memory.release(self)
        self._body.clear()
        if closing:
            self._services.pending_bodies.discard(self)
            refusal.headers["Connection"] = "close"
        if not self._is_answered:
            problems.log(self._endpoint.handle.__name__, refusal)
            self._services.instruments.refusals.increment(refusal.code)
            self._write(refusal.status, PROBLEM | refusal.headers, problems.body_of(refusal))
        self._stream.is_answered_early = not closing
        if closing:
            self._connection.finish()

    def _admit(self, start_line: httputil.RequestStartLine, length: int) -> None:
        services = self._services
        services.reject_if_draining()
        if start_line.method != "POST":
            raise MethodNotAllowed("method_not_allowed", "This path does not support the method.", {"Allow": "POST"})
        for name in parse_qs_bytes(start_line.path.partition("?")[2], keep_blank_values=True):
            raise BadRequest("unknown_parameter", f"The parameter {name!r:.40} is unknown; this path has none.")
        if self._endpoint.is_limited_by_address:
            rate_limit = services.rate_limiter.take_address(self._request.address)
            if rate_limit is not None:
                self._request.response_headers = rate_limit.headers()
        if length > self._max_body:
            raise self._too_large()

    def _too_large(self) -> Refusal:
        return PayloadTooLarge("body_too_large", f"The body is larger than {self._max_body} bytes.")

    def enforce_body_timeout(self, now: float) -> None:
        """Refuses the request if its body is not complete within the timeout."""
        timeout_s = self._services.settings.body_timeout.total_seconds()
        if now - self._started_at > timeout_s:
            self._refuse_early(
                RequestTimeout("too_slow", f"The body did not arrive within {timeout_s:g} s."), closing=True
            )

    async def _handle(self) -> None:
        try:
            with self._services.large_bodies.in_progress(self._request.address, len(self._request.body)):
                response = await self._endpoint.handle(self._services, self._request)
            if isinstance(response.body, bytes):
                await self._finish(response.status, {**JSON, **self._request.response_headers}, response.body)
            else:
                await self._write_chunks(response.status, response.body, self._request.response_headers)
        except StreamClosedError:  # the client closed the connection, which is not an error
            self._connection.close()  # otherwise Tornado waits forever for the end of this response
        except asyncio.CancelledError:  # the drain timeout is over
            self._connection.close()
            raise
        except Exception as error:
            problems.log(self._endpoint.handle.__name__, error)
            if self._is_answered:  # a streamed response: the client sees that a closed one is incomplete
                self._connection.close()
            else:
                refusal = problems.refusal_for(error)
                self._services.instruments.refusals.increment(refusal.code)
                if self._is_over_budget(refusal):
                    self._request.body = b""
                    self._services.request_memory.release(self)
                    await self._limit.delay(is_body_awaited=False)
                await self._finish(refusal.status, PROBLEM | refusal.headers, problems.body_of(refusal))
        finally:
            self._services.request_memory.release(self)

    async def _write_chunks(
        self, status: HTTPStatus, chunks: AsyncIterator[bytes], response_headers: dict[str, str]
    ) -> None:
        async for chunk in chunks:
            if self._is_answered:
                written = self._connection.write(chunk)
            else:  # after the first chunk, so that an early failure still gets an error status
                self._start_response(status)
                line = httputil.ResponseStartLine("HTTP/1.1", status.value, status.phrase)
                head = httputil.HTTPHeaders({**problems.FIXED_HEADERS, **JSON, **response_headers})
                written = self._connection.write_headers(line, head, chunk)
            await written  # raises StreamClosedError once the client has read nothing for WRITE_TIMEOUT_S
        self._connection.finish()
        if self._is_http_1_0:  # without chunked encoding, the connection's end marks the end of the response
            self._connection.close()

    async def _finish(self, status: HTTPStatus, headers: dict[str, str], body: bytes) -> None:
        written = self._write(status, headers, body)
        self._connection.finish()
        if not written.done():
            await written

    def _write(self, status: HTTPStatus, headers: dict[str, str], body: bytes) -> "asyncio.Future[None]":
        self._start_response(status)
        if not self._connection.keeps_alive:
            headers["Connection"] = "close"
        return self._connection.write(render_response(status, headers, b"" if self._is_head else body, len(body)))

    def _start_response(self, status: HTTPStatus) -> None:
        """Records that the response starts."""
        self._is_answered = True
        self._stream.is_answering = False
        self._services.instruments.record_response(
            self._endpoint.handle.__name__, status.value, time.monotonic() - self._started_at
        )
