"""Tornado's HTTP connection during one request, with changes to what it does around a body."""

import re
from asyncio import Future
from typing import cast

from tornado import httputil
from tornado.http1connection import HTTP1Connection

from shm.server.http.stream import Stream

MAX_DISCARDED_BYTES = 1024 * 1024  # bytes of a refused body that are read, so that its sender reads the response


LENGTH = re.compile(r"[0-9]{1,18}")


def has_body(headers: httputil.HTTPHeaders) -> bool:
    """Whether a body follows these headers of a request."""
    return "Transfer-Encoding" in headers or headers.get("Content-Length", "0") != "0"


def body_length(headers: httputil.HTTPHeaders) -> int | None:
    """The length of a body by its headers; None if it is chunked, or malformed: then Tornado refuses it."""
    length = headers.get("Content-Length", "")
    return int(length) if LENGTH.fullmatch(length) else None


class Connection(HTTP1Connection):
    """A connection that may respond before a body is complete.

    Tornado closes the connection then, and the sender may see the closed connection before it reads the response. So
    the rest of a body of moderate size is read and discarded first.
    """

    head_length = 0  # bytes of the request's head
    keeps_alive = False  # whether another request may follow
    discards_rest = False  # whether the rest of the body is read after an early response
    is_answered = False  # before the body was complete
    _is_body_complete = False

    @classmethod
    def convert(cls, connection: HTTP1Connection) -> "Connection":
        """Changes the class of a connection that Tornado has just made. Tornado has no setting for that class."""
        connection.__class__ = cls
        return cast(Connection, connection)

    def _can_keep_alive(
        self, start_line: httputil.RequestStartLine | httputil.ResponseStartLine, headers: httputil.HTTPHeaders
    ) -> bool:
        """Called by Tornado for the head of a request: whether the connection serves another one.

        With HTTP/1.0 it does not, because only the end of the connection ends a response of unknown length. Tornado
        would confirm a `Connection: keep-alive` that it finds in the headers, and ignores `close` beside other options.
        """
        options = {option.strip().lower() for each in headers.get_list("Connection") for option in each.split(",")}
        if start_line.version != "HTTP/1.1":
            headers.pop("Connection", None)
            return False
        self.keeps_alive = "close" not in options
        if not self.keeps_alive:
            headers["Connection"] = "close"
        return self.keeps_alive

    def _parse_headers(self, data: bytes) -> tuple[str, httputil.HTTPHeaders]:
        """Called by Tornado for the head of a request. Refuses a line that ends with LF alone.

        Another recipient, such as a proxy, may take it for a part of a header's value (RFC 9112, section 11.2).
        Tornado's own function accepts such lines, and takes twice as long to look for them.
        """
        if data.count(b"\n") != data.count(b"\r\n"):
            raise httputil.HTTPInputError("bare LF")
        self.head_length = len(data)
        start_line, *lines = data.decode("latin1").lstrip("\r\n").removesuffix("\r\n\r\n").split("\r\n")
        headers = httputil.HTTPHeaders()
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon:
                raise httputil.HTTPInputError("no colon in header line")
            headers.add(name, value.strip(" \t"))  # checks both
        return start_line, headers

    def finish(self) -> None:
        """Ends the response, after the rest of the body."""
        if self._is_body_complete or not self.discards_rest or self.stream.closed():
            super().finish()
            return
        self.is_answered = cast(Stream, self.stream).is_answered_early = True

    def write_headers(
        self,
        start_line: httputil.RequestStartLine | httputil.ResponseStartLine,
        headers: httputil.HTTPHeaders,
        chunk: bytes | None = None,
    ) -> "Future[None]":
        """Writes the head of a response, which says whether the connection closes after it."""
        if not (self._is_body_complete or self.discards_rest):
            headers["Connection"] = "close"
        return super().write_headers(start_line, headers, chunk)

    def complete_body(self) -> None:
        """The body is complete."""
        self._is_body_complete = True
        if self.is_answered:
            cast(Stream, self.stream).is_answered_early = False
            super().finish()

    def close_unread(self) -> None:
        """The rest of the body is too large to read: the connection closes once the response is written."""
        super().finish()
