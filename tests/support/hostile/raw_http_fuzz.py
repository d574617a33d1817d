"""Hypothesis strategies for raw bytes near HTTP: mutated requests, unusual requests and random bytes."""

from hypothesis import strategies as st

ID = "c77af682-9aa4-412e-904a-c307d3a8a9c2"
METHODS = st.sampled_from(["POST", "GET", "PATCH", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "post"])
POSTED = st.sampled_from(
    ["register", "activate", "snapshot", "snapshots", "rotate", "erase", "disclose", "nothing", "snapshot/", ".."]
)
READ = st.sampled_from(
    [
        *("healthcheck", "ready", "admin/stats", "admin/applications", "admin/applications/x/kpis", "admin/feed"),
        *("admin/instances", "admin/instances", f"admin/instances/{ID}", "admin/instances/x", "admin/nothing", ""),
    ]
)
ADDRESSES = st.one_of(
    POSTED.map("POST /v1/{}".format),
    READ.map("GET /api/v1/{}".format),
    READ.map("GET /api/v1/{}".format),
    st.builds("{} /v1/{}".format, METHODS, POSTED),
    st.builds("{} /api/v1/{}".format, METHODS, READ),
    st.builds("{} {}".format, METHODS, st.sampled_from(["/", "//", "*", "/%73", "http://[", "shm.test:1"])),
    st.just(f"POST /api/v1/admin/instances/{ID}/revoke"),
)
NAMES = st.sampled_from(
    [
        *("limit", "limit", "after", "after", "status", "app", "q", "version", "environment", "since", "counted"),
        *("x", "%00", "%ff", "%1b%5b31m", ""),
    ]
)
VALUES = st.sampled_from(
    [
        *("1", "0", "-1", "1e400", "NaN", "x", "true", "active", "_", "", "%00", "%ff", "%ed%a0%80", "%zz", "%"),
        *("%5c%25_", "'--", "%1b%5b31m", "%e9%ac%b1", ";", "#", "+", "9" * 30, "9" * 5000, "x" * 2000),
        *(f"2024-01-01T00:00:00Z_{ID}", f"9999-12-31T23:59:59-23:59_{ID}", f"_{ID}", "2024-01-01T00:00:00Z_"),
    ]
)
QUERIES = st.lists(st.builds("{}={}".format, NAMES, VALUES), max_size=2).map(lambda found: "?" + "&".join(found))
ODD_HEADERS = st.sampled_from(
    [
        *("Connection: close", "Connection: keep-alive", "Connection: Upgrade", "Upgrade: websocket", "Origin: null"),
        *("Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 99", "Expect: 100-continue", "Expect: x", "TE: x"),
        *("Content-Type: multipart/form-data; boundary=", "Content-Type: application/x-www-form-urlencoded"),
        *("Content-Encoding: gzip", "Accept-Encoding: gzip", "Range: bytes=5-", "If-None-Match: *", "Cookie: \xff=;;"),
        *("Authorization: Bearer \xff", "Authorization: Basic eA==", "X-Forwarded-For: ::1%\xff,,", "X: " + "y" * 3000),
        *(f"X-Instance-ID: {ID}", "X-Instance-ID: x", "X-Signature: " + "0" * 128, "X-New-Signature: " + "0" * 128),
    ]
)
BAD_HEADERS = st.sampled_from(
    [
        *("Host:", "Host: [", "Content-Length: 3", "Content-Length: -1", "Content-Length: x", "Content-Length: 70000"),
        *(
            "Content-Length: 2, 2",
            "Content-Length: " + "9" * 20,
            "Content-Length: " + "9" * 5000,
            "Content-Length: \xb2",
        ),
        *("Transfer-Encoding: chunked", "Transfer-Encoding: gzip", "x", ": x", " x: y", "x : y", "x: \0"),
    ]
)
VERSIONS = st.sampled_from(["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "http/1.1", ""])
BODIES = st.sampled_from(
    [b"", b"{}", b"{", b"2\r\n{}\r\n0\r\n\r\n", b"0\r\n\r\n", b"-1\r\n", b"f" * 18 + b"\r\n", b"x" * 100_000]
)
NEW_BYTES = st.sampled_from([b"", b"\r\n", b"\n", b"\0", b": ", b" ", b",", b"\r\n\r\n"]) | st.binary(max_size=4)


@st.composite
def mutated(draw: st.DrawFn, whole: bytes) -> bytes:
    """The bytes with random changes, deletions, insertions and repetitions."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(whole)))
        end = draw(st.integers(start, min(len(whole), start + 40)))
        times = draw(st.sampled_from([0, 0, 1, 1, 2, 50]))
        whole = whole[:start] + whole[start:end] * times + draw(NEW_BYTES) + whole[end:]
    return whole


@st.composite
def odd_request(draw: st.DrawFn, *known: str) -> bytes:
    """A valid but unusual request. `known` are header lines that it may contain."""
    body = draw(st.sampled_from([b"", b"{}"]) | st.binary(max_size=20))
    lines = draw(st.lists(st.sampled_from(known) | ODD_HEADERS, max_size=4))
    first = f"{draw(ADDRESSES)}{draw(QUERIES)} HTTP/1.1"
    head = "\r\n".join([first, "Host: shm.test", *known[: draw(st.integers(0, 1))], *lines])
    return f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode("latin1") + body


@st.composite
def almost_http(draw: st.DrawFn) -> bytes:
    """A malformed request."""
    end = draw(st.sampled_from(["\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r", ""]))
    first = f"{draw(ADDRESSES)}{draw(QUERIES)} {draw(VERSIONS)}"
    lines = draw(st.lists(st.just("Host: shm.test") | ODD_HEADERS | BAD_HEADERS, max_size=8))
    return end.join([first, *lines, "", ""]).encode("latin1") + draw(BODIES | st.binary(max_size=50))


def random_bytes() -> st.SearchStrategy[bytes]:
    """Random bytes."""
    return st.binary(max_size=200) | st.binary(max_size=50).map(lambda some: some + b"\r\n\r\n")
