"""Details of HTTP as the RFCs have them: HTTP/1.0, options of Connection, links, origins."""

from collections.abc import Callable

import pytest

from tests.support import plain_http
from tests.support.installs import Install
from tests.support.raw_http import RawConnection
from tests.support.server_process import ServerProcess
from tests.support.targets import Target

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
def test_http_1_0_with_keep_alive_ends_with_the_connection(target: Target, install: Install, path: str) -> None:
    with target.assert_no_fault(), RawConnection(target.server.port) as connection:
        connection.send(request(target.server, "1.0", path, "keep-alive"))
        answer = connection.answer()
        assert answer is not None
        assert answer.headers.get("connection", "close") == "close"
        assert "transfer-encoding" not in answer.headers
        assert connection.ended()
        if "export" in path:
            assert install.instance_id.encode() in answer.body


def test_close_beside_other_options_closes_the_connection(target: Target) -> None:
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
def test_an_origin_may_omit_the_default_port(target: Target, origin: str, host: str, accepted: bool) -> None:
    with target.assert_no_fault(), RawConnection(target.server.port) as connection:
        token = target.server.headers["Authorization"]
        connection.send(FEED.format(origin=origin, host=host, token=token).encode())
        assert connection.has_more(10)
        assert connection.starts_with(b"HTTP/1.1 101 " if accepted else b"HTTP/1.1 403 ")


def test_the_next_link_is_relative_to_the_request(target: Target, install: Install) -> None:
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


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_host_of_all_ipv6_addresses_is_of_both_families(serve: Callable[..., ServerProcess], workers: str) -> None:
    server = serve(SHM_HOST="::", SHM_WORKERS=workers)
    for host in ("127.0.0.1", "[::1]"):
        assert plain_http.get(f"http://{host}:{server.port}/api/v1/healthcheck").status_code == 200
    assert f"shm console --server http://127.0.0.1:{server.port}" in server.log
    assert f"listening on http://[::]:{server.port}" in server.log
