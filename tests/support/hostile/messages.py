"""HTTP: wrong lengths, malformed chunks, wrong types, unusual methods and paths, and data that is not HTTP.

The server answers `bad_http` to a message whose end is unclear, and closes the connection: the data that follows may be
part of that message.
"""

from collections.abc import Callable

from tests.support.hostile.case import BAD_HTTP, ENDED, STORED, Case, Verdict, snapshot
from tests.support.installs import Install

UNKNOWN_PARAMETER: Verdict = (400, "unknown_parameter")
UNSIGNED: Verdict = (401, "missing_instance_id")
NOT_FOUND: Verdict = (404, "no_such_address")
WRONG_METHOD: Verdict = (405, "method_not_allowed")
TOO_LARGE: Verdict = (413, "body_too_large")
URL_TOO_LONG: Verdict = (414, "url_too_long")
HEADERS_TOO_LARGE: Verdict = (431, "headers_too_large")
CHUNKED = "Transfer-Encoding: chunked"
CHUNK = b"1000\r\n" + b" " * 4096 + b"\r\n"

# The header lines of an unsigned snapshot after its Host, and its body.
FRAMED: dict[str, tuple[tuple[str, ...], bytes, Verdict]] = {
    "a negative length": (("Content-Length: -1",), b"{}", BAD_HTTP),
    "a length with a plus": (("Content-Length: +2",), b"{}", BAD_HTTP),
    "a length in hex": (("Content-Length: 0x2",), b"{}", BAD_HTTP),
    "a length with a fraction": (("Content-Length: 2.0",), b"{}", BAD_HTTP),
    "a length with an underscore": (("Content-Length: 1_0",), b"{}", BAD_HTTP),
    "a length in superscript digits": (("Content-Length: ²",), b"{}", BAD_HTTP),
    "an empty length": (("Content-Length: ",), b"{}", BAD_HTTP),
    "a word as the length": (("Content-Length: two",), b"{}", BAD_HTTP),
    "two lengths that differ": (("Content-Length: 2", "Content-Length: 3"), b"{}", BAD_HTTP),
    "two lengths that differ, in one line": (("Content-Length: 2, 3",), b"{}", BAD_HTTP),
    "two lengths that agree": (("Content-Length: 2", "Content-Length: 2"), b"{}", UNSIGNED),
    "a length with a leading zero": (("Content-Length: 002",), b"{}", UNSIGNED),
    "a length of 10 digits": (("Content-Length: 9999999999",), b"{}", TOO_LARGE),
    "a length beyond the limit, and no body": (("Content-Length: 65537",), b"", TOO_LARGE),
    "a length shorter than the body": (("Content-Length: 1",), b"{}", UNSIGNED),
    "no length and no body": ((), b"", UNSIGNED),
    "no length and a body": ((), b"{}", UNSIGNED),
    "a length and chunks": (("Content-Length: 2", CHUNKED), b"2\r\n{}\r\n0\r\n\r\n", BAD_HTTP),
    "chunks and a length": ((CHUNKED, "Content-Length: 2"), b"2\r\n{}\r\n0\r\n\r\n", BAD_HTTP),
    "chunks twice": ((CHUNKED, CHUNKED), b"2\r\n{}\r\n0\r\n\r\n", BAD_HTTP),
    "chunks of gzip": (("Transfer-Encoding: gzip, chunked",), b"2\r\n{}\r\n0\r\n\r\n", BAD_HTTP),
    "gzip in place of chunks": (("Transfer-Encoding: gzip",), b"2\r\n{}\r\n0\r\n\r\n", BAD_HTTP),
    "identity in place of chunks": (("Transfer-Encoding: identity",), b"{}", BAD_HTTP),
    "chunks with a character before their name": (("Transfer-Encoding: \x0bchunked",), b"0\r\n\r\n", BAD_HTTP),
    "a chunk of a negative size": ((CHUNKED,), b"-2\r\n{}\r\n0\r\n\r\n", BAD_HTTP),
    "a chunk without a size": ((CHUNKED,), b"\r\n{}\r\n0\r\n\r\n", BAD_HTTP),
    "a chunk with 0x before its size": ((CHUNKED,), b"0x2\r\n{}\r\n0\r\n\r\n", BAD_HTTP),
    "a chunk of 64 bits and more": ((CHUNKED,), b"1ffffffffffffffff\r\n{}\r\n0\r\n\r\n", BAD_HTTP),
    "a chunk shorter than its data": ((CHUNKED,), b"1\r\n{}\r\n0\r\n\r\n", BAD_HTTP),
    "a chunk's size of a thousand digits": ((CHUNKED,), b"0" * 1000 + b"2\r\n{}\r\n0\r\n\r\n", BAD_HTTP),
    "a chunk that ends in a line feed": ((CHUNKED,), b"2\r\n{}\n0\r\n\r\n", BAD_HTTP),
    "a chunk with extensions": ((CHUNKED,), b'2 ; a;b=c ; d = "e;\\"f"\r\n{}\r\n0;last\r\n\r\n', UNSIGNED),
    "a chunk with an extension of 300 bytes": ((CHUNKED,), b"2;" + b"a" * 300 + b"\r\n{}\r\n0\r\n\r\n", BAD_HTTP),
    "a chunk with an extension without a name": ((CHUNKED,), b"2;\r\n{}\r\n0\r\n\r\n", BAD_HTTP),
    "a chunk with a line feed in its extension": ((CHUNKED,), b"2;a\nb\r\n{}\r\n0\r\n\r\n", BAD_HTTP),
    "a chunk with a line feed in a quoted extension": ((CHUNKED,), b'2;a="\n"\r\n{}\r\n0\r\n\r\n', BAD_HTTP),
    "a chunk with an extension before its size": ((CHUNKED,), b";a\r\n{}\r\n0\r\n\r\n", BAD_HTTP),
    "trailers after the last chunk": ((CHUNKED,), b"2\r\n{}\r\n0\r\nX: y\r\nContent-Length: 9\r\n\r\n", UNSIGNED),
    "a trailer after a last chunk with many zeros": ((CHUNKED,), b"2\r\n{}\r\n000;a\r\nX:\r\n\r\n", UNSIGNED),
    "a trailer without a colon": ((CHUNKED,), b"2\r\n{}\r\n0\r\nX\r\n\r\n", BAD_HTTP),
    "a trailer with a line feed": ((CHUNKED,), b"2\r\n{}\r\n0\r\nX: y\nY: y\r\n\r\n", BAD_HTTP),
    "a trailer that is folded": ((CHUNKED,), b"2\r\n{}\r\n0\r\nX: y\r\n y\r\n\r\n", BAD_HTTP),
    "a trailer of 300 bytes": ((CHUNKED,), b"2\r\n{}\r\n0\r\nX: " + b"y" * 300 + b"\r\n\r\n", BAD_HTTP),
    "a hundred trailers": ((CHUNKED,), b"2\r\n{}\r\n0\r\n" + b"X: y\r\n" * 100 + b"\r\n", BAD_HTTP),
    "chunks beyond the limit": ((CHUNKED,), CHUNK * 20 + b"0\r\n\r\n", TOO_LARGE),
    "chunks of two megabytes": ((CHUNKED,), CHUNK * 500 + b"0\r\n\r\n", TOO_LARGE),
    "a header without a colon": (("X", "Content-Length: 2"), b"{}", BAD_HTTP),
    "a header without a name": ((": x", "Content-Length: 2"), b"{}", BAD_HTTP),
    "a header with a space before its colon": (("X : x", "Content-Length: 2"), b"{}", BAD_HTTP),
    "a header with a space in its name": (("X Y: x", "Content-Length: 2"), b"{}", BAD_HTTP),
    "a header folded into two lines": (("X: x\r\n y", "Content-Length: 2"), b"{}", BAD_HTTP),
    "a header with NUL": (("X: x\0y", "Content-Length: 2"), b"{}", BAD_HTTP),
    "a header that ends in a line feed": (("X: x\nY: y", "Content-Length: 2"), b"{}", BAD_HTTP),
    "a length after a line feed in a header": (("X: x\nContent-Length: 2",), b"{}", BAD_HTTP),
    "a head that ends in line feeds": (("Content-Length: 2\n\n",), b"{}", BAD_HTTP),
    "a header with a carriage return": (("X: x\ry", "Content-Length: 2"), b"{}", BAD_HTTP),
    "a last header that ends in a second carriage return": (("Content-Length: 2", "X: x\r"), b"{}", BAD_HTTP),
    "a header of bytes that are not text": (("X: \xff\xfe\x80", "Content-Length: 2"), b"{}", UNSIGNED),
    "a header of 12,000 spaces": (("X: " + " " * 12_000 + "x", "Content-Length: 2"), b"{}", UNSIGNED),
    "1,000 headers": (tuple(f"X{n}: y" for n in range(1000)), b"", UNSIGNED),
    "a second Host": (("Host: other.test", "Content-Length: 2"), b"{}", BAD_HTTP),
    "a header of 17 KiB": (("X: " + "y" * 17_408, "Content-Length: 2"), b"{}", HEADERS_TOO_LARGE),
    "headers of 200 KB": (("X: " + "y" * 200_000, "Content-Length: 2"), b"{}", HEADERS_TOO_LARGE),
    "20,000 headers": (tuple(f"X{n}: y" for n in range(20_000)), b"", HEADERS_TOO_LARGE),
    "an unknown Expect": (("Expect: tea", "Content-Length: 2"), b"{}", UNSIGNED),
    "an upgrade to HTTP/2": (("Connection: Upgrade", "Upgrade: h2c", "Content-Length: 2"), b"{}", UNSIGNED),
}

# Complete messages.
RAW: dict[str, tuple[bytes, tuple[Verdict, ...]]] = {
    "no Host": (b"POST /v1/snapshot HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", (BAD_HTTP,)),
    "an invalid Host": (b"POST /v1/snapshot HTTP/1.1\r\nHost: a b\\\r\nContent-Length: 2\r\n\r\n{}", (BAD_HTTP,)),
    "a request line of one word": (b"GARBAGE\r\n\r\n", (BAD_HTTP,)),
    "a request line that ends in a second carriage return": (
        b"POST /v1/snapshot HTTP/1.1\r\r\nHost: shm.test\r\nContent-Length: 2\r\n\r\n{}",
        (BAD_HTTP,),
    ),
    "HTTP/0.9": (b"GET /\r\n\r\n", (BAD_HTTP,)),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\nHost: shm.test\r\n\r\n", (BAD_HTTP,)),
    "the beginning of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (BAD_HTTP,)),
    "HTTP/1.0 without a Host": (b"POST /v1/snapshot HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}", (UNSIGNED,)),
    "no path": (b"GET  HTTP/1.1\r\nHost: shm.test\r\n\r\n", (BAD_HTTP,)),
    "a path with a space": (b"GET /a b HTTP/1.1\r\nHost: shm.test\r\n\r\n", (BAD_HTTP,)),
    "a path with NUL": (b"GET /a\0b HTTP/1.1\r\nHost: shm.test\r\n\r\n", (BAD_HTTP,)),
    "a path of bytes that are not text": (b"GET /\xff\xfe HTTP/1.1\r\nHost: shm.test\r\n\r\n", (NOT_FOUND, BAD_HTTP)),
    "a path with invalid escapes": (b"GET /%zz%ff%00 HTTP/1.1\r\nHost: shm.test\r\n\r\n", (NOT_FOUND,)),
    "the URL of another machine": (b"GET http://[::1/ HTTP/1.1\r\nHost: shm.test\r\n\r\n", ((200, None), BAD_HTTP)),
    "a path with two slashes": (b"GET //[/v1 HTTP/1.1\r\nHost: shm.test\r\n\r\n", (NOT_FOUND, BAD_HTTP)),
    "a path with dot segments": (b"GET /v1/../../etc/passwd HTTP/1.1\r\nHost: shm.test\r\n\r\n", (NOT_FOUND,)),
    "a path of 20 KB": (b"GET /" + b"a" * 20_480 + b" HTTP/1.1\r\nHost: shm.test\r\n\r\n", (NOT_FOUND,)),
    "a path of 40 KB": (b"GET /" + b"a" * 40_960 + b" HTTP/1.1\r\nHost: shm.test\r\n\r\n", (URL_TOO_LONG,)),
    "a path of 40 KB after an empty line": (
        b"\r\nGET /" + b"a" * 40_960 + b" HTTP/1.1\r\nHost: shm.test\r\n\r\n",
        (URL_TOO_LONG,),
    ),
    "a query of 40 KB": (
        b"GET /api/v1/admin/stats?" + b"a" * 40_960 + b" HTTP/1.1\r\nHost: shm.test\r\n\r\n",
        (URL_TOO_LONG,),
    ),
    "an invalid query": (
        b"POST /v1/snapshot?a=%ff&%00=\xff&a=&&;= HTTP/1.1\r\nHost: shm.test\r\nContent-Length: 2\r\n\r\n{}",
        (UNKNOWN_PARAMETER, BAD_HTTP),
    ),
    "a method in lower case": (b"post /v1/snapshot HTTP/1.1\r\nHost: shm.test\r\n\r\n", (WRONG_METHOD, BAD_HTTP)),
    "an unknown method": (b"BREW /v1/snapshot HTTP/1.1\r\nHost: shm.test\r\n\r\n", (WRONG_METHOD,)),
    "a method of 5,000 letters": (b"X" * 5000 + b" /v1/snapshot HTTP/1.1\r\nHost: shm.test\r\n\r\n", (WRONG_METHOD,)),
    "GET": (b"GET /v1/snapshot HTTP/1.1\r\nHost: shm.test\r\n\r\n", (WRONG_METHOD,)),
    "GET with a body": (
        b"GET /v1/snapshot HTTP/1.1\r\nHost: shm.test\r\nContent-Length: 2\r\n\r\n{}",
        (WRONG_METHOD,),
    ),
    "CONNECT": (b"CONNECT shm.test:443 HTTP/1.1\r\nHost: shm.test\r\n\r\n", (NOT_FOUND,)),
    "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\nHost: shm.test\r\n\r\n", (NOT_FOUND,)),
    "TRACE of an unknown path": (b"TRACE /nowhere HTTP/1.1\r\nHost: shm.test\r\n\r\n", (NOT_FOUND,)),
    "an unknown method of an unknown path": (b"BREW /nowhere HTTP/1.1\r\nHost: shm.test\r\n\r\n", (NOT_FOUND,)),
    "a method in lower case of an unknown path": (
        b"get /nowhere HTTP/1.1\r\nHost: shm.test\r\nContent-Length: 2\r\n\r\n{}",
        (NOT_FOUND,),
    ),
    "the URL of no machine": (b"GET http:///api/v1/healthcheck HTTP/1.1\r\nHost: shm.test\r\n\r\n", (NOT_FOUND,)),
    "two megabytes to an unknown path": (
        b"POST /nowhere HTTP/1.1\r\nHost: shm.test\r\nContent-Length: 2000000\r\n\r\n" + b"x" * 2_000_000,
        (NOT_FOUND, TOO_LARGE),
    ),
    "a form to an unknown path": (
        b"POST /nowhere HTTP/1.1\r\nHost: shm.test\r\nContent-Type: multipart/form-data\r\nContent-Length: 2\r\n\r\n{}",
        (NOT_FOUND, (400, "bad_request")),
    ),
    "an invalid websocket handshake": (
        b"GET /api/v1/admin/feed HTTP/1.1\r\nHost: shm.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: \xff\r\nSec-WebSocket-Version: 13\r\n\r\n\xff\xff",
        ((401, "missing_token"),),
    ),
    "a token of bytes that are not text": (
        b"GET /api/v1/admin/stats HTTP/1.1\r\nHost: shm.test\r\nAuthorization: Bearer \xff\xfe\r\n\r\n",
        ((401, "bad_token"),),
    ),
    "a token of 12,000 characters": (
        b"GET /api/v1/admin/stats HTTP/1.1\r\nHost: shm.test\r\nAuthorization: Bearer " + b"x" * 12_000 + b"\r\n\r\n",
        ((401, "bad_token"),),
    ),
}

# Incomplete messages: the client closes its side, and the server may do the same.
TRUNCATED: dict[str, bytes] = {
    "nothing": b"",
    "line ends": b"\r\n\r\n\r\n",
    "a NUL": b"\0",
    "the start of a TLS handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)),
    "half a line": b"POST /v1/snap",
    "half a header": b"POST /v1/snapshot HTTP/1.1\r\nHost: shm",
    "headers without a body": b"POST /v1/snapshot HTTP/1.1\r\nHost: shm.test\r\nContent-Length: 2\r\n\r\n",
    "half a body": b"POST /v1/snapshot HTTP/1.1\r\nHost: shm.test\r\nContent-Length: 10\r\n\r\n{}",
    "half a chunk": b"POST /v1/snapshot HTTP/1.1\r\nHost: shm.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}",
    "chunks without the last": (
        b"POST /v1/snapshot HTTP/1.1\r\nHost: shm.test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"
    ),
    "a body after Expect: 100-continue that is not sent": (
        b"POST /v1/snapshot HTTP/1.1\r\nHost: shm.test\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    ),
}

# Unusual header lines of a valid snapshot, which is stored: the replaced and the new text.
UNUSUAL_HEADERS: dict[str, tuple[str, str]] = {
    "no content type": ("Content-Type: application/json\r\n", ""),
    "the content type of a form": ("application/json", "multipart/form-data; boundary="),
    "the content type of another form": ("application/json", "application/x-www-form-urlencoded"),
    "an invalid content type": ("application/json", "\xff;;charset=utf-16"),
    "two content types": ("Content-Type:", "Content-Type: text/html\r\nContent-Type:"),
    "another Host": ("Host: shm.test", "Host: [::1]:99999"),
    "HTTP/1.0": ("HTTP/1.1", "HTTP/1.0"),
    "an empty query": ("/v1/snapshot", "/v1/snapshot?"),
    "a URL": ("/v1/snapshot", "http://shm.test/v1/snapshot"),
    "a URL of another host": ("/v1/snapshot", "HTTPS://[::1]:1/v1/snapshot"),
    "Expect: 100-continue": ("Host:", "Expect: 100-continue\r\nHost:"),
    "headers in upper case": ("Content-Length", "CONTENT-LENGTH"),
    "a line feed before it": ("POST", "\r\nPOST"),
    "a cookie": ("Host:", 'Cookie: \xff=;;"\\\r\nHost:'),
    "forwarded addresses": (
        "Host:",
        "X-Forwarded-For: \xff,,::1%\xc0\r\nX-Real-IP: '\r\nForwarded: ;;\r\nHost:",
    ),
}


def with_framing(lines: tuple[str, ...], body: bytes) -> Callable[[Install], bytes]:
    """A POST request to /v1/snapshot with these header lines and Host."""
    head = "\r\n".join(("POST /v1/snapshot HTTP/1.1", "Host: shm.test", *lines, "", ""))
    return lambda install: head.encode("latin1") + body


def exactly(data: bytes) -> Callable[[Install], bytes]:
    """These bytes, independent of the install."""
    return lambda install: data


def with_replacement(old: str, new: str) -> Callable[[Install], bytes]:
    """A valid snapshot with a replacement in its head."""
    return lambda install: snapshot(install, b'{"a":1}').replace(old.encode(), new.encode("latin1"), 1)


def chunked(size: int) -> Callable[[Install], bytes]:
    """A valid snapshot in chunks of this size."""

    def raw(install: Install) -> bytes:
        head, _, body = snapshot(install, b'{"a":1}').partition(b"\r\n\r\n")
        head = head.partition(b"\r\nContent-Length")[0] + b"\r\n" + CHUNKED.encode()
        chunks = (body[start : start + size] for start in range(0, len(body), size))
        return b"\r\n".join([head, b"", *(b"%x\r\n%s" % (len(chunk), chunk) for chunk in chunks), b"0", b"", b""])

    return raw


def lines_ended_by(end: bytes) -> Callable[[Install], bytes]:
    """A valid snapshot whose header lines end with `end`."""
    return lambda install: end.join(snapshot(install, b'{"a":1}').split(b"\r\n"))


CASES: tuple[Case, ...] = (
    *(Case(f"HTTP: {name}", with_framing(lines, body), (verdict,)) for name, (lines, body, verdict) in FRAMED.items()),
    *(
        Case(
            f"HTTP: a length of {digits} digits",
            with_framing(("Content-Length: " + "9" * digits,), b"{}"),
            (TOO_LARGE, BAD_HTTP),
        )
        for digits in (20, 1000, 5000)
    ),
    *(Case(f"HTTP: {name}", exactly(data), verdicts) for name, (data, verdicts) in RAW.items()),
    *(
        Case(f"HTTP: truncated: {name}", exactly(data), (ENDED, BAD_HTTP), waits=True)
        for name, data in TRUNCATED.items()
    ),
    *(
        Case(f"HTTP: a valid snapshot with {name}", with_replacement(*change), (STORED,), shows={"a": 1})
        for name, change in UNUSUAL_HEADERS.items()
    ),
    *(
        Case(f"HTTP: a valid snapshot in chunks of {size} bytes", chunked(size), (STORED,), shows={"a": 1})
        for size in (1, 7, 1000)
    ),
    Case(
        "HTTP: a valid snapshot with lines that end in a line feed",
        lines_ended_by(b"\n"),
        (STORED, BAD_HTTP),
        shows={"a": 1},
    ),
)
