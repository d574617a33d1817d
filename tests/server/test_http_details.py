"""Details of HTTP as the RFCs have them: HTTP/1.0, options of Connection, links, origins."""

from collections.abc import Callable

import pytest

from shm.server.handlers.ingest import ENDPOINTS
from tests.support import plain_http
from tests.support.clusters import wait_for
from tests.support.installs import Install
from tests.support.parameters import long_rows_after
from tests.support.raw_http import RawConnection
from tests.support.server_process import ServerProcess
from tests.support.shared_servers import ServerWithDatabase

FEED = (
    "GET /api/v1/admin/feed HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: {origin}\r\nHost: {host}\r\nAuthorization: {token}\r\n\r\n"
)


def request(server: ServerProcess, version: str, path: str, connection: str) -> bytes:
    """A GET request of the admin."""
    token = server.headers["Authorization"]
    return (
        f"GET {path} HTTP/{version}\r\nHost: shm.test\r\nConnection: {connection}\r\nAuthorization: {token}\r\n\r\n"
    ).encode()


@pytest.mark.parametrize("path", ["/api/v1/admin/export?format=jsonl", "/api/v1/admin/stats", "/nowhere"])
def test_http_1_0_with_keep_alive_ends_with_the_connection(
    target: ServerWithDatabase, install: Install, path: str
) -> None:
    with target.assert_no_fault(), RawConnection(target.server.port) as connection:
        connection.send(request(target.server, "1.0", path, "keep-alive"))
        answer = connection.answer()
        assert answer is not None
        assert answer.headers.get("connection", "close") == "close"
        assert "transfer-encoding" not in answer.headers
        assert connection.ended()
        if "export" in path:
            assert install.instance_id.encode() in answer.body


def test_close_beside_other_options_closes_the_connection(target: ServerWithDatabase) -> None:
    with RawConnection(target.server.port) as connection:
        connection.send(request(target.server, "1.1", "/api/v1/healthcheck", "TE, Close"))
        answer = connection.answer()
        assert answer is not None
        assert answer.headers["connection"] == "close"
        assert connection.ended()


@pytest.mark.parametrize(
    ("origin", "host", "accepted"),
    [
        ("https://shm.test", "shm.test:443", True),
        ("https://shm.test:443", "shm.test", True),
        ("http://shm.test", "shm.test:80", True),
        ("http://shm.test:80", "SHM.test", True),
        ("https://shm.test:8443", "shm.test:8443", True),
        ("http://[::1]", "[::1]:80", True),
        ("https://shm.test", "shm.test:80", False),
        ("https://shm.test", "shm.test:8443", False),
        ("https://shm.test:8443", "shm.test", False),
        ("https://shm.test:443", "other.test", False),
        ("https://shm.test:99999", "shm.test", False),
        ("null", "shm.test", False),
    ],
)
def test_an_origin_may_omit_the_default_port(
    target: ServerWithDatabase, origin: str, host: str, accepted: bool
) -> None:
    with target.assert_no_fault(), RawConnection(target.server.port) as connection:
        token = target.server.headers["Authorization"]
        connection.send(FEED.format(origin=origin, host=host, token=token).encode())
        assert connection.has_more(10)
        assert connection.starts_with(b"HTTP/1.1 101 " if accepted else b"HTTP/1.1 403 ")


def test_the_next_link_is_relative_to_the_request(target: ServerWithDatabase, install: Install) -> None:
    """A proxy may have added a prefix to its path."""
    Install(target.server.url).enroll()
    answer = target.server.get("instances?limit=1")
    assert answer.links["next"]["url"].startswith("?limit=1&after=")
    behind_proxy = answer.url.copy_with(path=f"/prefix{answer.url.path}")
    joined = behind_proxy.join(answer.links["next"]["url"])
    assert joined.path == "/prefix/api/v1/admin/instances"
    assert joined.query == answer.url.join(answer.links["next"]["url"]).query
    second = target.server.get("instances" + answer.links["next"]["url"]).json()
    assert second[0]["instance_id"] != answer.json()[0]["instance_id"]


@pytest.mark.parametrize(("host", "workers"), long_rows_after(1, [("[::]", "2"), ("::", "1")]))
def test_the_host_of_all_ipv6_addresses_is_of_both_families(
    serve: Callable[..., ServerProcess], host: str, workers: str
) -> None:
    server = serve(SHM_HOST=host, SHM_WORKERS=workers)
    for host in ("127.0.0.1", "[::1]"):
        assert plain_http.get(f"http://{host}:{server.port}/api/v1/healthcheck").status_code == 200
    wait_for(lambda: f"shm console --server http://127.0.0.1:{server.port}" in server.log, "the printed URL")
    assert f"listening on http://[::]:{server.port}" in server.log


@pytest.mark.parametrize("path", [*ENDPOINTS])
@pytest.mark.parametrize("query", ["x=1", "x", "app=ledger&app=x", "%00=%ff"])
def test_the_protocol_has_no_query_parameters(
    target: ServerWithDatabase, install: Install, path: str, query: str
) -> None:
    with target.assert_no_fault(), RawConnection(target.server.port) as connection:
        body = install.snapshot_body({"a": 1})
        headers = "".join(f"{name}: {value}\r\n" for name, value in install.signed(body).items())
        head = f"POST {path}?{query} HTTP/1.1\r\nHost: shm.test\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
        connection.send(head.encode() + body)
        assert connection.verdict() == (400, "unknown_parameter")


@pytest.mark.parametrize("path", ["/api/v1/healthcheck", "/api/v1/ready", "/api/openapi.json", "/metrics"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_path_without_parameters_refuses_any(target: ServerWithDatabase, path: str, method: str) -> None:
    with RawConnection(target.server.port) as connection:
        token = f"Authorization: {target.server.headers['Authorization']}\r\n"
        connection.send(f"{method} {path}?x=1 HTTP/1.1\r\nHost: shm.test\r\n{token}\r\n".encode())
        assert connection.starts_with(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("http://shm.test/api/v1/healthcheck", 200),
        ("HTTP://other.test:8080/api/v1/healthcheck", 200),
        ("https://[::1]/api/v1/healthcheck", 200),
        ("http://shm.test/api/v1/healthcheck?x=1", 400),
        ("http://shm.test/api/v1/admin/stats", 401),
        ("http://shm.test/v1/register", 405),
        ("http://shm.test", 200),
        ("http://a b/api/v1/healthcheck", 400),
        ("ftp://shm.test/api/v1/healthcheck", 404),
    ],
)
def test_a_request_target_may_be_a_url(target: ServerWithDatabase, url: str, status: int) -> None:
    with target.assert_no_fault(), RawConnection(target.server.port) as connection:
        connection.send(f"GET {url} HTTP/1.1\r\nHost: shm.test\r\n\r\n".encode())
        answer = connection.answer()
        assert answer is not None
        assert answer.status == status
