"""HTTP/1.1 of the SDK, held to the standard library's client and date parser."""

import http.client
import io
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm_sdk.http_messages import (
    MAX_HEAD_BYTES,
    InvalidResponseError,
    ResponseReader,
    encode_request,
    parse_date,
)

MAX_BYTES = 1000
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def receiver(content: bytes, size: int) -> Callable[[int], bytes]:
    """A connection on which so many bytes arrive at a time."""
    stream = io.BytesIO(content)
    return lambda count: stream.read(min(count, size))


def read(content: bytes, size: int = 7, limit: int = MAX_BYTES) -> tuple[int, bytes, bool]:
    reader = ResponseReader(receiver(content, size))
    head = reader.read_head()
    return head.status, reader.read_body(head, limit), reader.is_complete


class Socket:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self.content)


def read_by_the_library(content: bytes) -> tuple[int, bytes]:
    response = http.client.HTTPResponse(Socket(content))  # type: ignore[arg-type]
    response.begin()
    return response.status, response.read()


RESPONSES = [
    b"HTTP/1.1 202 Accepted\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 202\r\ncontent-length:5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",
    b"HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n",
    CHUNKED + b"5\r\nhello\r\n6;name=value\r\n world\r\n0\r\n\r\n",
    CHUNKED + b"1\r\na\r\n0\r\nTrailer: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 1\r\n\r\nx",
]


@pytest.mark.parametrize("size", [1, 7, 1 << 14])
@pytest.mark.parametrize("content", RESPONSES)
def test_a_response_is_read_as_by_the_standard_library(content: bytes, size: int) -> None:
    assert read(content, size)[:2] == read_by_the_library(content)


@given(body=st.binary(max_size=400), cuts=st.lists(st.integers(1, 60), max_size=9), size=st.integers(1, 200))
def test_any_body_may_come_in_any_chunks(body: bytes, cuts: list[int], size: int) -> None:
    content, start = CHUNKED, 0
    for length in [*cuts, len(body)]:
        chunk = body[start : start + length]
        start += len(chunk)
        content += b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunk else b""
    assert read(content + b"0\r\n\r\n", size) == (200, body, True)
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    assert read(whole, size) == (200, body, True)


@given(st.binary(max_size=200), st.integers(1, 50))
def test_any_bytes_are_a_response_or_an_error(content: bytes, size: int) -> None:
    for start in (b"", b"HTTP/1.1 200 OK\r\n", CHUNKED, CHUNKED + b"5\r\n"):
        try:
            read(start + content, size)
        except (InvalidResponseError, ConnectionError):
            continue


@pytest.mark.parametrize(
    ("content", "is_complete"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive, Close\r\n\r\n{}", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n", False),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n{}", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000, False),
        (CHUNKED + b"1388\r\n" + b"x" * 5000 + b"\r\n0\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 5000, False),
    ],
)
def test_a_connection_is_used_again_only_after_a_whole_response(content: bytes, is_complete: bool) -> None:
    _, body, is_actual = read(content, size=1 << 14)
    assert is_actual is is_complete
    assert len(body) in (2, MAX_BYTES)


@pytest.mark.parametrize(
    "content",
    [
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 099 X\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-",
        CHUNKED + b"-1\r\nx\r\n",
        CHUNKED + b"2\r\nxyz\r\n",
        CHUNKED + b"f" * 5000,
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * MAX_HEAD_BYTES,
        b"HTTP/1.1 100 Continue\r\n\r\n" * MAX_HEAD_BYTES,
    ],
    ids=range(13),
)
def test_what_is_no_response_is_an_error(content: bytes) -> None:
    with pytest.raises(InvalidResponseError):
        read(content, size=1 << 14)


def test_a_connection_that_is_closed_before_a_response_is_named() -> None:
    with pytest.raises(ConnectionError):
        read(b"")


def test_a_request_has_its_fields_and_its_body() -> None:
    request = encode_request("POST", "/v1/snapshot", [("Host", "localhost")], b"{}")
    assert request == b"POST /v1/snapshot HTTP/1.1\r\nHost: localhost\r\n\r\n{}"


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Mon, 6 Jan 2025 00:00:00 UTC",
        "Sun, 06 Nov 1994 08:49:37 +0130",
        "Sun, 06 Nov 1994 08:49:37 -0800",
        "Thu, 29 Feb 2024 23:59:59 GMT",
    ],
)
def test_a_date_is_read_as_by_the_standard_library(text: str) -> None:
    assert parse_date(text) == parsedate_to_datetime(text)


def test_a_date_in_the_form_of_asctime() -> None:
    assert parse_date("Sun Nov  6 08:49:37 1994") == datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "soon",
        "120",
        "Sun, 31 Feb 2024 08:49:37 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, 06 Nov 1994 25:49:37 GMT",
        "Fri, 31 Dec 9999 23:59:59 -0800",
        "Sun, 06 Abc 1994 08:49:37 GMT",
    ],
)
def test_what_is_no_date_is_none(text: str | None) -> None:
    assert parse_date(text) is None
