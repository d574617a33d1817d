"""The stream of a connection, with changes to Tornado's handling of HTTP errors and writes."""

import asyncio
import math
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any, cast

from tornado.httputil import HTTPInputError
from tornado.iostream import IOStream, SSLIOStream, StreamClosedError, UnsatisfiableReadError

from shm.core.errors import BadRequest, HeadersTooLarge, Refusal, RequestTimeout, UrlTooLong
from shm.core.instruments import Instruments
from shm.server.connections import Connections
from shm.server.http import problems
from shm.server.request_memory import RequestMemory

FIXED_LINES = "".join(f"{name}: {value}\r\n" for name, value in problems.FIXED_HEADERS.items())

MAX_CHUNKS = 1_024  # of a body: each takes as long as a small request, however short it is

MAX_CHUNK_HEAD_BYTES = 256  # of the line before a chunk: its size, and extensions, which nothing uses; of a trailer

# The line before a chunk with extensions (RFC 9112, section 7.1.1). A line that differs from it is refused: another
# server on the path of the request might find the end of the line elsewhere.
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
EXTENDED_CHUNK_HEAD = re.compile(
    rb"([0-9A-Fa-f]+)(?:[\t ]*;[\t ]*" + _TOKEN + rb"(?:[\t ]*=[\t ]*(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?)+\r\n"
)

LAST_CHUNK_HEAD = re.compile(rb"0+\r\n")

MAX_TRAILERS = 64  # fields after the last chunk, which nothing uses

# Such a field (RFC 9112, section 7.1.2): name, colon, value.
TRAILER = re.compile(_TOKEN + rb":[\t -~\x80-\xff]*\r\n")

TORNADO_400 = b"HTTP/1.1 400 Bad Request\r\n\r\n"  # Tornado's whole response to unreadable HTTP


def render_response(status: HTTPStatus, headers: dict[str, str], body: bytes, length: int | None = None) -> bytes:
    """A response as bytes. Its headers come from the server only and contain no text of a client.

    Tornado's HTTPHeaders would take as long as parsing a snapshot. `length`: that of the body, which HEAD omits.
    """
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    length = len(body) if length is None else length
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\n{FIXED_LINES}{lines}Content-Length: {length}\r\n\r\n"
    return head.encode("latin-1") + body


def closing_response(refusal: Refusal) -> bytes:
    """A refusal as bytes, with the header that closes the connection."""
    headers = {"Content-Type": problems.CONTENT_TYPE, **refusal.headers, "Connection": "close"}
    return render_response(refusal.status, headers, problems.body_of(refusal))


URL_TOO_LONG = UrlTooLong("url_too_long", "The path and its query are too long.")
HEADERS_TOO_LARGE = HeadersTooLarge("headers_too_large", "The headers are larger than SHM_MAX_HEADERS allows.")
BAD_HTTP = BadRequest("bad_http", "The request is not valid HTTP: its request line, a header or its body is malformed.")
HEAD_TOO_SLOW = RequestTimeout("too_slow", "The request's headers did not arrive within SHM_HEADER_TIMEOUT.")


class Stream(IOStream):
    """A stream that answers unreadable HTTP with a problem document, and sends each response at once (TCP_NODELAY)."""

    instruments: Instruments
    connections: Connections
    request_memory: RequestMemory
    address: bytes | None  # of the peer, as a keyed hash; None for a trusted proxy
    waiting_since = deadline = write_deadline = 0.0  # belong to `connections`
    chunks = 0  # of the present body
    is_last_chunk = False  # set while the last chunk of a body is read
    is_reading_head = True  # set until a request's head is complete
    has_head_begun = False  # set from the first byte of a request's head
    is_answering = False  # set while a request waits for its response
    is_answered_early = False  # set while the rest of a body is read after the response
    is_shared = False  # set for a feed: all subscribers are sent the same bytes, which the feed's buffer bounds

    @classmethod
    def convert(
        cls,
        stream: IOStream,
        instruments: Instruments,
        connections: Connections,
        request_memory: RequestMemory,
        address: bytes | None,
    ) -> None:
        """Changes the class of a stream that Tornado has just made. Tornado has no setting for that class."""
        stream.__class__ = TlsStream if isinstance(stream, SSLIOStream) else cls
        stream = cast(Stream, stream)
        stream.instruments, stream.connections, stream.request_memory = instruments, connections, request_memory
        stream.address = address
        connections.add(stream, address)
        IOStream.set_nodelay(stream, True)

    def set_nodelay(self, value: bool) -> None:
        """Does nothing: Tornado switches the option on and off around each response, which costs two system calls."""

    def read_until_regex(self, regex: bytes, max_bytes: int | None = None) -> Awaitable[bytes]:
        """Called by Tornado for the head of each request.

        Raises StreamClosedError if the connection is closed: requests that arrived with the one before, whose responses
        nobody can read, are not handled.
        """
        if self.closed():
            raise StreamClosedError(self.error)
        self.connections.expect_request(self)
        self.is_reading_head, self.has_head_begun = True, False
        if self._read_buffer_size:  # received with the request before
            self._receive_head(self._read_buffer_size)
        return super().read_until_regex(regex, max_bytes)

    def read_until(self, delimiter: bytes, max_bytes: int | None = None) -> Awaitable[bytes]:
        """Called by Tornado for the head of each chunk of a body. Refuses a body of too many chunks.

        Removes the chunk's extensions, which Tornado does not know.
        """
        self.chunks += 1
        if self.chunks > MAX_CHUNKS:
            raise HTTPInputError("too many chunks")
        return self._read_chunk_head()

    async def _read_chunk_head(self) -> bytes:
        head = await super().read_until(b"\r\n", MAX_CHUNK_HEAD_BYTES)
        extended = EXTENDED_CHUNK_HEAD.fullmatch(head)
        if extended is not None:
            head = extended[1] + b"\r\n"
        self.is_last_chunk = LAST_CHUNK_HEAD.fullmatch(head) is not None
        return head

    def read_bytes(self, num_bytes: int, partial: bool = False) -> Awaitable[bytes]:
        """Called by Tornado for a body. After the last chunk it reads the end of a line: discards trailers before."""
        if not self.is_last_chunk:
            return super().read_bytes(num_bytes, partial)
        self.is_last_chunk = False
        return self._discard_trailers()

    async def _discard_trailers(self) -> bytes:
        for _ in range(MAX_TRAILERS + 1):
            line = await super().read_until(b"\r\n", MAX_CHUNK_HEAD_BYTES)
            if line == b"\r\n":
                return line
            if TRAILER.fullmatch(line) is None:
                break
        raise HTTPInputError("trailers")

    def read_from_fd(self, buf: bytearray | memoryview) -> int | None:
        """Called by Tornado to read from the socket. Counts the bytes of a head, and notices the first one."""
        length = super().read_from_fd(buf)
        if length and self.is_reading_head:
            self._receive_head(length)
        return length

    def _receive_head(self, length: int) -> None:
        if not self.has_head_begun:
            self.has_head_begun = True
            self.connections.head_started(self)
        self.request_memory.add(self, length)

    def head_complete(self) -> None:
        """The head of a request is complete."""
        self.is_reading_head, self.chunks, self.is_last_chunk = False, 0, False
        self.request_memory.release(self)
        self.connections.head_complete(self)

    def refuse(self, refusal: Refusal) -> None:
        """Refuses a request whose head is not complete: after the present read, which may complete it."""
        self.request_memory.release(self)
        asyncio.get_running_loop().call_soon(self._refuse_head, refusal)

    def _refuse_head(self, refusal: Refusal) -> None:
        if self.is_reading_head and not self.closed():
            self._send_refusal(refusal)
            self.close()

    def _send_refusal(self, refusal: Refusal) -> None:
        """Sends a refusal before the connection closes, unless a response is being sent."""
        if self.writing():
            return
        problems.log("HTTP", refusal)
        self.instruments.record_early_refusal(refusal)
        with suppress(OSError):
            self.socket.send(closing_response(refusal))

    def close_waiting(self) -> None:
        """Closes the connection while it waits for its client, with a response if a head has begun."""
        if self.has_head_begun and self.deadline != math.inf and not self.closed():
            self._send_refusal(HEAD_TOO_SLOW)
        self.close()

    def write(self, data: bytes | memoryview) -> "asyncio.Future[None]":
        """Writes data, and replaces Tornado's bare 400 with a problem document."""
        if data != TORNADO_400:
            written = super().write(data)
            if self.writing():
                self.connections.write_blocked(self, 0 if self.is_shared else len(data))
            return written
        if self.is_answered_early:  # the request has its response already
            return super().write(b"")
        problems.log("HTTP", BAD_HTTP)
        self.instruments.record_early_refusal(BAD_HTTP)
        return super().write(closing_response(BAD_HTTP))

    def _handle_write(self) -> None:
        """Called by Tornado to write to the socket. Notices whether the client reads."""
        before = self._total_write_done_index
        super()._handle_write()
        if not self.writing():
            self.connections.write_complete(self)
        elif self._total_write_done_index > before:
            self.connections.write_progressed(self)

    def set_close_callback(self, callback: Callable[[], None] | None) -> None:
        """Does nothing while a request is handled: a client that closed its side may still read the response.

        A write fails if it does not.
        """
        if not self.is_answering:
            super().set_close_callback(callback)

    def close(self, exc_info: Any = False) -> None:
        """Closes the stream. If Tornado reached a size limit before the end of a part, sends a refusal first."""
        if isinstance(exc_info, UnsatisfiableReadError) and not (self.closed() or self.is_answered_early):
            self._send_refusal(self._too_large())
        was_closed = self.closed()
        super().close(exc_info)
        if not was_closed:
            self.connections.remove(self)
            self.request_memory.release(self)
        if self.error is not None:  # else a cycle of its frames and the stream lasts until the GC runs
            self.error.__traceback__ = None

    def _too_large(self) -> Refusal:
        """The refusal for a part of a request beyond its size limit."""
        if not self.is_reading_head:
            return BAD_HTTP
        is_request_line_complete = b"\n" in self._read_buffer.lstrip(b"\r\n")  # an empty line may precede it
        return HEADERS_TOO_LARGE if is_request_line_complete else URL_TOO_LONG


class TlsStream(Stream, SSLIOStream):
    """The same over TLS. The handshake is a part of the wait for the first request, and has its time limit."""
