"""A connection's stream as an HTTP server wants it, where Tornado's does otherwise."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any, cast

from tornado.iostream import IOStream, UnsatisfiableReadError

from shm.core.errors import BadRequest, HeadersTooLarge, Refusal
from shm.core.instruments import Instruments
from shm.core.setting_types import MAX_HEADERS_BYTES
from shm.server.http import problems

FIXED_LINES = "".join(f"{name}: {value}\r\n" for name, value in problems.FIXED_HEADERS.items())

TORNADO_400 = b"HTTP/1.1 400 Bad Request\r\n\r\n"  # all that Tornado says of HTTP that it cannot read


def render_response(status: HTTPStatus, headers: dict[str, str], body: bytes, length: int | None = None) -> bytes:
    """An answer as it goes onto the wire. Its headers are ours: nothing that a client said is in them.

    Tornado's way through HTTPHeaders takes as long as reading a snapshot. `length`: of the body that a HEAD leaves out.
    """
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    length = len(body) if length is None else length
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\n{FIXED_LINES}{lines}Content-Length: {length}\r\n\r\n"
    return head.encode("latin-1") + body


def closing_response(refusal: Refusal) -> bytes:
    """A refusal as it goes onto the wire, with which the connection ends."""
    headers = {"Content-Type": problems.CONTENT_TYPE, "Connection": "close"}
    return render_response(refusal.status, headers, problems.body_of(refusal))


HEADERS_TOO_LARGE = HeadersTooLarge("headers_too_large", "The headers are larger than SHM_MAX_HEADERS allows.")
BAD_HTTP = BadRequest("bad_http", "This is no HTTP that can be read: its first line, a header, or its body.")


class Stream(IOStream):
    """Whoever sends what cannot be read is told so, in the shape of all refusals; answers go out at once and whole."""

    instruments: Instruments
    is_answering = False  # set while a request waits for its answer
    is_answered_early = False  # set while the rest of a body comes whose request has its answer

    @classmethod
    def adopt(cls, stream: IOStream, instruments: Instruments) -> None:
        """Makes one of ours of a stream that Tornado has just made, for which it asks nobody."""
        stream.__class__ = cls
        cast(Stream, stream).instruments = instruments
        IOStream.set_nodelay(stream, True)

    def set_nodelay(self, value: bool) -> None:
        """Stays as it is: Tornado would switch it on and off around each answer, which is two system calls."""

    def write(self, data: bytes | memoryview) -> "asyncio.Future[None]":
        """Tornado's bare answer becomes a problem like any other."""
        if data != TORNADO_400:
            return super().write(data)
        if self.is_answered_early:  # one answer is enough
            return super().write(b"")
        problems.log("HTTP", BAD_HTTP)
        self.instruments.record_early_refusal(BAD_HTTP)
        return super().write(closing_response(BAD_HTTP))

    def set_close_callback(self, callback: Callable[[], None] | None) -> None:
        """Not while an answer is awaited: a client that has closed its side may still read, and writing will show."""
        if not self.is_answering:
            super().set_close_callback(callback)

    def close(self, exc_info: Any = False) -> None:
        """Where Tornado gives up reading, because there is no end to it, the sender is told before."""
        if isinstance(exc_info, UnsatisfiableReadError) and not (
            self.closed() or self.writing() or self.is_answered_early
        ):
            refusal = HEADERS_TOO_LARGE if str(MAX_HEADERS_BYTES) in str(exc_info) else BAD_HTTP
            problems.log("HTTP", refusal)
            self.instruments.record_early_refusal(refusal)
            with suppress(OSError):
                self.socket.send(closing_response(refusal))
        super().close(exc_info)
        if self.error is not None:  # else its frames hold the stream, and it them, until the collector comes
            self.error.__traceback__ = None
