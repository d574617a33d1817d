"""Checks of an address from outside: the server's own, or the public one of its proxy."""

import socket
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from urllib.parse import urlsplit

import msgspec
from tornado.httpclient import AsyncHTTPClient, HTTPError, HTTPRequest, HTTPResponse
from tornado.simple_httpclient import HTTPTimeoutError
from tornado.websocket import WebSocketError, websocket_connect

from shm.server.checks.certificate import check_validity
from shm.server.checks.finding import Finding, Level

TIMEOUT_S = 10.0
PROBLEM = "application/problem+json"


async def check_own_address(host: str, port: int, *, has_tls: bool = False) -> Finding:
    """Whether a server of SHM answers at its own address, and whether it is ready."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    url = f"{'https' if has_tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
    try:
        response = await _fetch(f"{url}/api/v1/ready", _any_certificate())
    except ConnectionRefusedError:
        return Finding(Level.NOTE, "server", f"no server answers at {url}", "`shm serve` starts it.")
    except (OSError, HTTPError) as error:
        return Finding(
            Level.ERROR,
            "server",
            f"the program at {url} does not answer as SHM does: {_reason(error)}",
            "If it is `shm serve`, see its log, and give `shm doctor` the same SHM_TLS_CERT. If it is another program, "
            "stop it, or choose another port with PORT.",
        )
    if response.code == 200:
        return Finding(Level.OK, "server", f"the server at {url} is ready")
    if response.headers.get("Content-Type", "").startswith(PROBLEM):
        return Finding(Level.ERROR, "server", f"the server at {url} is not ready: {_detail(response)}", "See its log.")
    return Finding(
        Level.ERROR,
        "server",
        f"another program answers at {url}",
        "Choose another port with PORT, or stop that program.",
    )


async def check_public_address(url: str, token: str | None) -> AsyncIterator[Finding]:
    """Whether a proxy passes all that installs and readers send. With a token, also whether it passes the feed."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        yield Finding(Level.ERROR, "url", f"{url} is no address", "Give one such as https://metrics.example.com.")
        return
    url, tls = url.rstrip("/"), ssl.create_default_context()
    try:
        if parts.scheme == "https":
            yield _check_certificate(parts.hostname, parts.port or 443, tls)
        else:
            remedy = "Installs and readers should use https: tokens are in every request."
            yield Finding(Level.WARNING, "tls", f"{url} has no TLS", remedy)
        health = await _fetch(f"{url}/api/v1/healthcheck", tls)
    except (OSError, HTTPError) as error:
        remedy = "Check the name, the certificate, the proxy and the firewalls in between."
        yield Finding(Level.ERROR, "url", f"{url} does not answer: {_reason(error)}", remedy)
        return
    yield _passes("/api/", "readers", health.code == 200 and health.body.startswith(b'{"status":'))
    empty = await _fetch(f"{url}/v1/snapshot", tls, method="POST", body="")
    yield _passes("/v1/", "installs", empty.headers.get("Content-Type", "").startswith(PROBLEM))
    badge = await _fetch(f"{url}/badge/none/instances", tls)
    yield _passes("/badge/", "READMEs", badge.headers.get("Content-Type", "").startswith("image/svg"))
    yield _check_metrics(await _fetch(f"{url}/metrics", tls))
    if token is not None and parts.scheme == "https":
        yield await _check_feed(url, tls, token)


def _passes(path: str, users: str, passed: bool) -> Finding:
    if passed:
        return Finding(Level.OK, "proxy", f"{path} reaches the server")
    remedy = f"Let the proxy pass {path} unchanged, as the examples in deploy/ do: {users} need it."
    return Finding(Level.ERROR, "proxy", f"{path} does not reach the server", remedy)


def _check_metrics(response: HTTPResponse) -> Finding:
    if response.code != 200 or b"shm_build_info" not in response.body:
        return Finding(Level.OK, "proxy", "/metrics is not public")
    remedy = "Pass only /v1/, /api/ and /badge/, or unset SHM_METRICS_PUBLIC."
    return Finding(Level.WARNING, "proxy", "everybody can read the server's metrics at /metrics", remedy)


async def _check_feed(url: str, tls: ssl.SSLContext, token: str) -> Finding:
    request = HTTPRequest(
        f"wss{url.removeprefix('https')}/api/v1/admin/feed",
        headers={"Authorization": f"Bearer {token}"},
        ssl_options=tls,
        connect_timeout=TIMEOUT_S,
        request_timeout=TIMEOUT_S,
    )
    try:
        connection = await websocket_connect(request)
    except (OSError, HTTPError, WebSocketError) as error:
        remedy = "Let the proxy pass the headers Upgrade and Connection of /api/v1/admin/feed."
        return Finding(Level.ERROR, "feed", f"the change feed cannot be opened: {_reason(error)}", remedy)
    connection.close()
    return Finding(Level.OK, "feed", "the change feed opens through the proxy")


def _check_certificate(host: str, port: int, tls: ssl.SSLContext) -> Finding:
    with (
        socket.create_connection((host, port), TIMEOUT_S) as raw,
        tls.wrap_socket(raw, server_hostname=host) as connection,
    ):
        certificate = connection.getpeercert() or {}
    expires = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC)
    return check_validity(f"the certificate of {host}", expires)


def _any_certificate() -> ssl.SSLContext:
    """For the server's own address, which is not the name of its certificate."""
    tls = ssl.create_default_context()
    tls.check_hostname = False
    tls.verify_mode = ssl.CERT_NONE
    return tls


async def _fetch(
    url: str, tls: ssl.SSLContext | None = None, method: str = "GET", body: str | None = None
) -> HTTPResponse:
    """A response of any status. Raises OSError and HTTPError."""
    request = HTTPRequest(
        url,
        method,
        body=body,
        ssl_options=tls,
        connect_timeout=TIMEOUT_S,
        request_timeout=TIMEOUT_S,
        follow_redirects=False,
    )
    return await AsyncHTTPClient().fetch(request, raise_error=False)


def _detail(response: HTTPResponse) -> str:
    try:
        return str(msgspec.json.decode(response.body)["detail"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return f"status {response.code}"


def _reason(error: Exception) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return f"its certificate is not valid: {error.verify_message}"
        case HTTPTimeoutError():
            return f"no response within {TIMEOUT_S:.0f} s"
        case OSError() if error.strerror:
            return error.strerror
    return str(error) or type(error).__name__
