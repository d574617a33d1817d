"""HTTP/1.1, as much of it as the SDK needs: requests with a body, and responses with a limit for every size.

The standard library's client parses header fields with its package for e-mail, which takes a megabyte of the host.
"""

import errno
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

MAX_HEAD_BYTES = 64 * 1024  # of a response, with the interim responses before it
MAX_LINE_BYTES = 1024  # within a chunked body
RECEIVE_BYTES = 16 * 1024
BODILESS_STATUSES = (204, 304)
SWITCHING_PROTOCOLS_STATUS = 101  # after it the connection speaks something else

STATUS_LINE = re.compile(rb"HTTP/1\.(\d) ([1-9]\d\d)(?: .*)?")
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DATE = re.compile(
    r"[a-z]+, (?P<day>\d\d?)[ -](?P<month>[a-z]{3})[ -](?P<year>\d{4}|\d\d) (?P<time>\d\d:\d\d:\d\d) "
    r"(?:gmt|utc|(?P<sign>[+-])(?P<offset>\d{4}))"
    r"|[a-z]{3} (?P<month_>[a-z]{3}) +(?P<day_>\d\d?) (?P<time_>\d\d:\d\d:\d\d) (?P<year_>\d{4})"
)


class InvalidResponseError(Exception):
    """What arrived is not a response of HTTP."""


class Head(NamedTuple):
    """The status and the header fields, by their names in lower case."""

    version: int  # of HTTP/1
    status: int
    headers: Mapping[str, str]


def encode_request(method: str, target: str, headers: Iterable[tuple[str, str]], body: bytes = b"") -> bytes:
    """A request. `target` and `headers` have no control characters."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


class ResponseReader:
    """Reads one response. `receive` returns up to so many bytes, and none at the end of the connection."""

    def __init__(self, receive: Callable[[int], bytes]) -> None:
        self._receive = receive
        self._buffer = bytearray()
        self.is_complete = False  # nothing of the response is left on the connection

    def read_head(self) -> Head:
        """The head of the response, after any interim ones. Raises ConnectionError if there is none."""
        left = MAX_HEAD_BYTES
        while True:
            line = self._read_line(left, is_first=True)
            left -= len(line)
            match = STATUS_LINE.fullmatch(line.rstrip())
            if match is None:
                raise InvalidResponseError("no status line")
            lines: list[str] = []
            while text := (line := self._read_line(left)).rstrip(b"\r\n"):
                left -= len(line)
                if text[:1] in b" \t" and lines:
                    lines[-1] += text.decode("latin-1")  # an old way to continue a field
                else:
                    lines.append(text.decode("latin-1"))
            if int(match[2]) == SWITCHING_PROTOCOLS_STATUS:
                raise InvalidResponseError("another protocol, which was not asked for")
            if int(match[2]) >= 200:  # the last response
                return Head(int(match[1]), int(match[2]), _parse_fields(lines))

    def read_body(self, head: Head, limit: int) -> bytes:
        """The body, cut at the limit."""
        codings = head.headers.get("transfer-encoding", "").lower()
        if head.status in BODILESS_STATUSES:
            body, is_whole = b"", True
        elif codings.rpartition(",")[2].strip() == "chunked":
            body, is_whole = self._read_chunks(limit)
            # With a length beside it, a proxy may have found the end elsewhere (RFC 9112, section 6.3).
            is_whole = is_whole and "content-length" not in head.headers
        elif not codings and "content-length" in head.headers:
            length = _parse_length(head.headers["content-length"])
            body, is_whole = self._read(min(length, limit)), length <= limit
        else:
            body, is_whole = self._read_until_closed(limit), False
        closes = "close" in head.headers.get("connection", "").lower() or head.version == 0
        self.is_complete = is_whole and not self._buffer and not closes
        return body

    def _read_chunks(self, limit: int) -> tuple[bytes, bool]:
        """The body, and whether it was read whole."""
        body = bytearray()
        while True:
            digits = self._read_line(MAX_LINE_BYTES).partition(b";")[0].strip()
            if not re.fullmatch(rb"[0-9A-Fa-f]{1,15}", digits):
                raise InvalidResponseError("no length of a chunk")
            length = int(digits, 16)
            if not length:
                break
            if len(body) + length > limit:
                return bytes(body + self._read(limit - len(body))), False
            body += self._read(length)
            if self._read_line(MAX_LINE_BYTES).strip():
                raise InvalidResponseError("no end of a chunk")
        left = MAX_HEAD_BYTES
        while (line := self._read_line(left)).strip():
            left -= len(line)
        return bytes(body), True

    def _read_until_closed(self, limit: int) -> bytes:
        while len(self._buffer) < limit and (received := self._receive(RECEIVE_BYTES)):
            self._buffer += received
        return self._take(min(limit, len(self._buffer)))

    def _read(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._fill()
        return self._take(count)

    def _read_line(self, limit: int, *, is_first: bool = False) -> bytes:
        """A line with its end."""
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched >= limit:
                break
            self._fill(may_be_closed=is_first and not searched)
        if not 0 <= end < limit:
            raise InvalidResponseError("a line or a head is too long")
        return self._take(end + 1)

    def _fill(self, *, may_be_closed: bool = False) -> None:
        received = self._receive(RECEIVE_BYTES)
        if not received:
            if may_be_closed:
                raise ConnectionResetError(errno.ECONNRESET, "the server has closed the connection")
            raise InvalidResponseError("the response is incomplete")
        self._buffer += received

    def _take(self, count: int) -> bytes:
        with memoryview(self._buffer) as view:
            taken = bytes(view[:count])
        del self._buffer[:count]
        return taken


def parse_date(header: str | None) -> datetime | None:
    """The time of a header, None if it is not a valid date of HTTP."""
    match = DATE.fullmatch((header or "").strip().lower())
    if match is None:
        return None
    members = {name.rstrip("_"): text for name, text in match.groupdict().items() if text is not None}
    year, offset = int(members["year"]), members.get("offset", "0000")
    if len(members["year"]) == 2:  # an old form
        year += 2000 if year < 70 else 1900  # as in POSIX
    try:
        hours, minutes, seconds = map(int, members["time"].split(":"))
        local = datetime(year, MONTHS.index(members["month"]) + 1, int(members["day"]), hours, minutes, seconds)
        east = timedelta(hours=int(offset[:2]), minutes=int(offset[2:]))
        return (local + east if members.get("sign") == "-" else local - east).replace(tzinfo=timezone.utc)
    except (ValueError, OverflowError):
        return None


def _parse_fields(lines: Iterable[str]) -> dict[str, str]:
    """The fields of a head. One that is repeated is a list."""
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name = name.strip().lower()
        if colon:
            fields[name] = f"{fields[name]}, {value.strip()}" if name in fields else value.strip()
    return fields


def _parse_length(header: str) -> int:
    """The length of a body; raises InvalidResponseError unless it is one number, however often."""
    lengths = {text.strip() for text in header.split(",")}
    (length, *others) = lengths
    if others or not re.fullmatch("[0-9]{1,18}", length):
        raise InvalidResponseError("no valid length")
    return int(length)
