"""Generators of what nobody thought of: JSON-like texts made of nasty pieces, and bytes that are nearly HTTP."""

from hypothesis import strategies as st

IN_STRINGS = st.sampled_from(
    [
        *("a", "b", "key", ".", "..", " ", "", "é", "鬱", "\U0001f600", "\u202e", "\u0080", "\uffff", "\u2028"),
        *("%s", "'", "$1", "--", "x" * 63, "x" * 64, "x" * 129, "sys_", "_pct", "__proto__", "sys_ephemeral"),
        *(r"\"", r"\\", r"\/", r"\b", r"\n", r"\t", r"\u0061", r"\u001b]52;c;", r"\ud83d\ude00", r"\uffff", r"\u007f"),
    ]
)
BAD_IN_STRINGS = st.sampled_from(
    [r"\u0000", r"\ud800", r"\udc00\ud800", r"\x", r"\u12", "\x00", "\n", "\x1f", "\\", '"', "x" * 1025]
)
PLAIN_NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?", fullmatch=True)
NASTY_NUMBERS = st.sampled_from(
    [
        *("-0", "-0.0", "0e0", "1E+2", "1.50", "1e308", "1.7976931348623157e308", "5e-324", "9007199254740993"),
        *("18446744073709551616", "-9223372036854775809", "1" * 309, "0." + "0" * 300 + "1", "1e-307"),
        *("1e309", "1e400", "1e-400", "1e200000", "1e" + "9" * 30, "1" * 1000, "1" * 5000, "0." + "1" * 400),
        *("NaN", "Infinity", "-Infinity", "01", "+1", ".5", "1.", "0x1", "1e", "--1", "-", "True", "undefined"),
    ]
)
WORDS = st.sampled_from(["true", "false", "null", "{}", "[]"])
DEEP = st.integers(1, 12).map(lambda levels: '{"a":' * levels + "1" + "}" * levels)
DEEP_ARRAYS = st.integers(1, 12).map(lambda levels: "[" * levels + "]" * levels)
MANY = st.integers(240, 270).map(lambda values: f"[{','.join('0' * values)}]")
GOOD_SPACES = st.sampled_from(["", "", " ", "\r\n\t"])
SPACES = GOOD_SPACES | st.sampled_from(["\f", "\u00a0", "/**/", ","])
TEARS = st.sampled_from(
    [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\x00", b"\xef\xbb\xbf", b'"', b"}", b"{", b",", b"[" * 2000]
)


def strings(*, bad: bool) -> st.SearchStrategy[str]:
    """A string of JSON, its quotes included."""
    pieces = IN_STRINGS | BAD_IN_STRINGS if bad else IN_STRINGS
    return st.lists(pieces, max_size=4).map(lambda found: f'"{"".join(found)}"')


def values(*, bad: bool) -> st.SearchStrategy[str]:
    """A value of JSON, or nearly one."""
    leaves = st.one_of(PLAIN_NUMBERS, strings(bad=bad), WORDS)
    if bad:
        leaves = st.one_of(leaves, NASTY_NUMBERS, DEEP, DEEP_ARRAYS, MANY)
    return st.recursive(leaves, lambda inner: arrays(inner) | objects(inner, bad=bad), max_leaves=12)


def arrays(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """An array of JSON."""
    return st.lists(inner, max_size=4).map(lambda found: f"[{','.join(found)}]")


def objects(inner: st.SearchStrategy[str], *, bad: bool) -> st.SearchStrategy[str]:
    """An object of JSON; its keys repeat now and then."""
    members = st.builds("{1}{0}{1}:{1}{2}".format, strings(bad=bad), SPACES if bad else GOOD_SPACES, inner)
    return st.lists(members, max_size=5).map(lambda found: f"{{{','.join(found)}}}")


@st.composite
def torn(draw: st.DrawFn, text: st.SearchStrategy[str]) -> bytes:
    """A text in UTF-8, now and then with something in it that breaks it."""
    whole = draw(text).encode()
    for tear in draw(st.lists(TEARS, max_size=1)):
        place = draw(st.integers(0, len(whole)))
        whole = whole[:place] + tear + whole[place:]
    return whole


def metrics() -> st.SearchStrategy[bytes]:
    """The metrics of a snapshot: half of them such as can be kept, the rest whatever."""
    good = objects(values(bad=False), bad=False)
    return good.map(str.encode) | torn(objects(values(bad=True), bad=True) | values(bad=True))


REGISTERED = ("instance_id", "public_key", "app_name", "app_version", "deployment_mode", "environment", "os_arch", "x")


def fields(*names: str) -> st.SearchStrategy[dict[str, bytes]]:
    """JSON texts for some fields of an object, most of them strings."""
    value = strings(bad=False).map(str.encode) | torn(values(bad=True))
    return st.dictionaries(st.sampled_from(names), value, max_size=4)


@st.composite
def mutated(draw: st.DrawFn, whole: bytes) -> bytes:
    """Bytes with some of them changed, left out, put in or repeated."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(whole)))
        end = draw(st.integers(start, min(len(whole), start + 40)))
        new = draw(
            st.sampled_from([b"", b"\r\n", b"\n", b"\0", b": ", b" ", b",", b"\r\n\r\n"]) | st.binary(max_size=4)
        )
        times = draw(st.sampled_from([0, 0, 1, 1, 2, 50]))
        whole = whole[:start] + whole[start:end] * times + new + whole[end:]
    return whole


METHODS = st.sampled_from(
    ["POST", "POST", "GET", "GET", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "post", "", "X" * 300]
)
PATHS = st.sampled_from(
    [
        *("/v1/snapshot", "/v1/register", "/v1/activate", "/v1/snapshots", "/v1/rotate", "/v1/erase", "/v1/disclose"),
        *("/api/v1/healthcheck", "/api/v1/ready", "/api/v1/admin/stats", "/api/v1/admin/applications"),
        *(
            "/api/v1/admin/instances",
            "/api/v1/admin/applications/x/kpis",
            "/api/v1/admin/feed",
            "/",
            "*",
            "//",
            "",
            "/a b",
        ),
    ]
)
QUERIES = st.sampled_from(
    [
        *(
            "",
            "",
            "?",
            "?limit=5",
            "?limit=-1",
            "?limit=1e400",
            "?limit=" + "9" * 5000,
            "?limit=1&limit=2",
            "?status=x",
        ),
        *("?status=" + "x" * 2000, "?after=x", "?after=9999-12-31T23:59:59-23:59_c77af682-9aa4-412e-904a-c307d3a8a9c2"),
        *(
            "?q=%ff",
            "?q=%00",
            "?app=%00",
            "?app=%ed%a0%80",
            "?q=%",
            "?%ff=1",
            "?since=-1",
            "?since=" + "9" * 30,
            "?a;b",
        ),
        *("?counted=maybe", "?version=%5c", "?environment=" + "%e9%ac%b1" * 300, "\xff", "#x", "?\x1b[31m"),
    ]
)
VERSIONS = st.sampled_from(
    ["HTTP/1.1"] * 6 + ["HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "HTTP/0.9", "http/1.1", "", "HTTP/1.1 x"]
)
HEADERS = st.sampled_from(
    [
        *("Host: shm.test", "Host:", "Host: [", "Content-Length: 2", "Content-Length: 3", "Content-Length: -1"),
        *(
            "Content-Length: 0",
            "Content-Length: x",
            "Content-Length: 70000",
            "Content-Length: 2, 2",
            "Content-Length: ²",
        ),
        *("Transfer-Encoding: chunked", "Transfer-Encoding: gzip", "Connection: close", "Connection: keep-alive"),
        *(
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Key: x",
            "Sec-WebSocket-Version: 13",
            "Origin: null",
        ),
        *("Expect: 100-continue", "Expect: x", "Content-Type: multipart/form-data", "Content-Encoding: gzip", "TE: x"),
        *("Content-Type: application/x-www-form-urlencoded", "Authorization: Bearer \xff", "Authorization: Basic eA=="),
        *("X-Instance-ID: x", "X-Instance-ID: c77af682-9aa4-412e-904a-c307d3a8a9c2", "X-Signature: " + "0" * 128),
        *(
            "X-Signature: x",
            "X-New-Signature: " + "0" * 128,
            "X-Forwarded-For: ::1%\xff,,",
            "Cookie: \xff=;;",
            "x",
            ": x",
        ),
        *(
            " x: y",
            "x : y",
            "x: \x00",
            "x: " + "y" * 3000,
            "Accept-Encoding: gzip",
            "Range: bytes=5-",
            "If-None-Match: *",
        ),
    ]
)
BODIES = st.sampled_from(
    [
        b"",
        b"{}",
        b"{",
        b"\0\0",
        b"2\r\n{}\r\n0\r\n\r\n",
        b"0\r\n\r\n",
        b"-1\r\n",
        b"ffffffffffffffffff\r\n",
        b"x" * 100_000,
    ]
)


@st.composite
def nearly_http(draw: st.DrawFn, *known: str) -> bytes:
    """A request, or something like it; `known` are header lines that stand in it more often than others."""
    end = draw(st.sampled_from(["\r\n"] * 8 + ["\n", "\r", ""]))
    line = f"{draw(METHODS)} {draw(PATHS)}{draw(QUERIES)} {draw(VERSIONS)}"
    lines = draw(st.lists(st.sampled_from(known) | HEADERS, max_size=8))
    return end.join([line, *lines, "", ""]).encode("latin1") + draw(BODIES | st.binary(max_size=50))


def garbage() -> st.SearchStrategy[bytes]:
    """Bytes."""
    return st.binary(max_size=200) | st.binary(max_size=50).map(lambda some: some + b"\r\n\r\n")
