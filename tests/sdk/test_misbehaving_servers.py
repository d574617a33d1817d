"""Servers that send invalid, slow or endless responses: each fails one report and does not affect the host."""

import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from shm_sdk import Client, Result
from shm_sdk.transport import MAX_RESPONSE_BYTES
from tests.support.scripted_server import (
    ResponseScript,
    ScriptedServer,
    endless,
    raw,
    reply,
    run_scripted_server,
    silence,
    tunnel,
)
from tests.support.sdk_hosts import report_in_subprocess
from tests.support.tls import Tls

MakeClient = Callable[..., Client]
TIMEOUT_S = 0.5  # of a report in these tests

OK_HEAD = b"HTTP/1.1 200 OK\r\n"


def drip(connection: socket.socket) -> bool:
    """Sends a byte every 50 ms, which is within any timeout of a single read."""
    import time

    connection.sendall(OK_HEAD)
    while True:
        connection.sendall(b"X")
        time.sleep(0.05)


@pytest.mark.parametrize(
    "script",
    [
        silence,
        drip,
        raw(b"\0\xff\xfe\r\n\r\n"),
        raw(b"SSH-2.0-OpenSSH_9.6\r\n"),
        raw(b"HTTP/1.1 abc OK\r\n\r\n"),
        raw(b"HTTP/1.1 200"),
        raw(OK_HEAD + b"Content-Length: nonsense\r\n\r\n"),
        raw(OK_HEAD + b"Content-Length: -1\r\n\r\n", keep=True),
        raw(OK_HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
        raw(OK_HEAD + b"Header: " + b"x" * 70_000 + b"\r\n\r\n"),
        raw(OK_HEAD + b"".join(b"H%d: x\r\n" % number for number in range(200)) + b"\r\n"),
        endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        endless(b"", b"x" * 1000),
        endless(OK_HEAD, b"H: x\r\n"),
        endless(OK_HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        endless(OK_HEAD + b"Content-Length: 999999999999999\r\n\r\n", b"x" * 1000),
        reply(200, b"<html>the login page of a hotel</html>"),
        reply(500),
        reply(999),
    ],
    ids=lambda script: script.__qualname__,
)
def test_an_invalid_response_fails_one_report(
    client: MakeClient, scripted_server: ScriptedServer, script: ResponseScript
) -> None:
    telemetry = client()
    scripted_server.script("/v1/snapshot", script)
    outcome = telemetry.report_now(timeout=TIMEOUT_S)
    assert outcome.result in (Result.FAILED, Result.REFUSED)
    assert telemetry.report_now().sent  # the next report uses a new connection


def test_a_server_that_closes_a_new_connection_fails_the_report(
    client: MakeClient, scripted_server: ScriptedServer
) -> None:
    scripted_server.script("/v1/register", raw(b""))
    assert client().report_now().result is Result.FAILED
    assert len(scripted_server.connections) == 1


@pytest.mark.parametrize("path", ["register", "activate", "snapshot"])
@pytest.mark.parametrize(
    "body",
    [
        b"<html>Please log in</html>",
        b"[" * 60_000,
        b'{"status":',
        b"\xff",
        b"9" * 9000,
        b"[]",
        '{"status":"active"}'.encode("utf-16"),
    ],
    ids=["HTML", "nested", "cut", "not UTF-8", "a number", "an array", "UTF-16"],
)
def test_an_answer_of_another_server_is_an_outage(
    client: MakeClient, scripted_server: ScriptedServer, body: bytes, path: str
) -> None:
    """The login page of a hotel says 200 or 202 to everything, and has stored nothing."""
    telemetry = client()
    scripted_server.script(f"/v1/{path}", reply({"register": 201, "activate": 200, "snapshot": 202}[path], body))
    assert telemetry.report_now().result is Result.FAILED
    assert telemetry.report_now().sent
    taken = {
        str(entry["timestamp"]) for body in scripted_server.bodies("/v1/snapshots") for entry in snapshots_of(body)
    }
    assert len(taken) == 2  # what was not stored is sent again, with the next one


def snapshots_of(body: dict[str, object]) -> list[dict[str, object]]:
    snapshots = body["snapshots"]
    assert isinstance(snapshots, list)
    return snapshots


def test_an_answer_without_a_body_is_accepted(client: MakeClient, scripted_server: ScriptedServer) -> None:
    for path, status in (("register", 201), ("activate", 200), ("snapshot", 202)):
        scripted_server.script(f"/v1/{path}", reply(status, b""))
    assert client().report_now().sent


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_an_error_page_is_an_outage(client: MakeClient, scripted_server: ScriptedServer, status: int) -> None:
    """Of a proxy, not of the server: the install does not register again, and the snapshot waits."""
    telemetry = client()
    assert telemetry.report_now().sent
    scripted_server.script("/v1/snapshot", reply(status, b"<html>this page is blocked</html>"))
    assert telemetry.report_now().result is Result.FAILED
    assert telemetry.report_now().sent
    assert scripted_server.paths == [*("/v1/register", "/v1/activate", "/v1/snapshot"), "/v1/snapshot", "/v1/snapshots"]


def test_a_redirect_to_https_on_the_same_host_is_followed(tls: Tls, tmp_path: Path) -> None:
    with run_scripted_server(tls.context) as secure, run_scripted_server() as plain:
        for path in ("register", "activate", "snapshot"):
            plain.script(f"/v1/{path}", reply(308, Location=f"{secure.url}/v1/{path}"))
        assert "Result.SENT" in report_in_subprocess(plain.url, tmp_path, SSL_CERT_FILE=tls.authority)
        assert plain.paths == ["/v1/register"]
        assert secure.paths == ["/v1/register", "/v1/activate", "/v1/snapshot"]


def test_a_response_is_read_up_to_its_limit(client: MakeClient, scripted_server: ScriptedServer) -> None:
    telemetry = client()
    scripted_server.script("/v1/register", reply(201, b"{}" + b" " * MAX_RESPONSE_BYTES))
    assert telemetry.report_now().sent
    assert len(scripted_server.connections) == 2  # the first one was closed with the rest of the long response


def test_a_refused_connection_fails_the_report(client: MakeClient) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        outcome = client(server_url=f"http://127.0.0.1:{reserved.getsockname()[1]}").report_now()
    assert (outcome.result, outcome.status) == (Result.FAILED, None)
    assert outcome.reason == "the server cannot be reached: Connection refused"


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example", "256.256.256.256", "[::1]:1"])
def test_an_unresolvable_host_fails_the_report(client: MakeClient, host: str) -> None:
    assert client(server_url=f"http://{host}").report_now(timeout=TIMEOUT_S).result is Result.FAILED


def test_a_server_that_never_answers_ends_with_the_timeout(client: MakeClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert client(server_url=url).report_now(timeout=TIMEOUT_S).reason.endswith("no answer in time")


def test_an_untrusted_certificate_gets_no_request(tls: Tls, tmp_path: Path) -> None:
    with run_scripted_server(tls.context) as scripted_server:
        assert "unable to get local issuer certificate" in report_in_subprocess(scripted_server.url, tmp_path)
        assert scripted_server.requests == []


def test_a_trusted_certificate_is_accepted(tls: Tls, tmp_path: Path) -> None:
    with run_scripted_server(tls.context) as scripted_server:
        assert "Result.SENT" in report_in_subprocess(scripted_server.url, tmp_path, SSL_CERT_FILE=tls.authority)
        assert len(scripted_server.connections) == 1


def test_a_certificate_for_another_name_gets_no_request(tls: Tls, tmp_path: Path) -> None:
    with run_scripted_server(tls.context) as scripted_server:
        url = scripted_server.url.replace("localhost", "127.0.0.1")
        assert "Result.FAILED" in report_in_subprocess(url, tmp_path, SSL_CERT_FILE=tls.authority)
        assert scripted_server.requests == []


def test_plain_http_uses_the_environments_proxy(client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with run_scripted_server() as proxy:
        for path, status in (("register", 201), ("activate", 200), ("snapshot", 202)):
            proxy.script(f"http://metrics.example.com:8080/v1/{path}", reply(status))
        monkeypatch.setenv("http_proxy", proxy.url.replace("://", "://some%20one:secret@"))
        assert client(server_url="http://metrics.example.com:8080").report_now().sent
        assert {request.headers["host"] for request in proxy.requests} == {"metrics.example.com:8080"}
        assert {request.headers["proxy-authorization"] for request in proxy.requests} == {"Basic c29tZSBvbmU6c2VjcmV0"}


def test_https_uses_a_tunnel_through_the_proxy(tls: Tls, tmp_path: Path) -> None:
    with run_scripted_server(tls.context) as server, run_scripted_server() as proxy:
        port = server.listener.getsockname()[1]
        proxy.script(f"localhost:{port}", tunnel(port))
        output = report_in_subprocess(server.url, tmp_path, SSL_CERT_FILE=tls.authority, https_proxy=proxy.url)
        assert "Result.SENT" in output
        assert server.paths == ["/v1/register", "/v1/activate", "/v1/snapshot"]
        assert [(request.method, request.path) for request in proxy.requests] == [("CONNECT", f"localhost:{port}")]


def test_a_proxy_that_requires_a_password_fails_the_report(client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with run_scripted_server() as proxy:
        proxy.script("metrics.example.com:443", reply(407))
        monkeypatch.setenv("https_proxy", proxy.url)
        outcome = client(server_url="https://metrics.example.com").report_now()
        assert outcome.reason == "the server cannot be reached: the proxy refuses the tunnel"
        assert [(request.method, request.path) for request in proxy.requests] == [
            ("CONNECT", "metrics.example.com:443")
        ]


def test_no_proxy_bypasses_the_proxy(client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "localhost")
    assert client().report_now().sent


def test_an_unsupported_proxy_is_not_bypassed(
    client: MakeClient, scripted_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1080")
    assert client().report_now().result is Result.FAILED
    assert scripted_server.connections == []


@pytest.mark.parametrize("clock_error", [timedelta(hours=-9), timedelta(), timedelta(hours=9)])
def test_a_date_to_retry_after_is_by_the_servers_clock(
    client: MakeClient, scripted_server: ScriptedServer, clock_error: timedelta
) -> None:
    """That of this machine may be wrong by hours: it would not wait, or for hours."""
    now = datetime.now(UTC) + clock_error
    dates = {
        "Date": format_datetime(now, usegmt=True),
        "Retry_After": format_datetime(now + timedelta(minutes=2), True),
    }
    scripted_server.script("/v1/snapshot", reply(503, b"{}", **dates))
    assert client().report_now().retry_after == 120


@pytest.mark.parametrize("text", ["soon", "-5", "1.5", "", "9" * 400 + " s"])
def test_an_invalid_retry_after_is_ignored(client: MakeClient, scripted_server: ScriptedServer, text: str) -> None:
    scripted_server.script("/v1/snapshot", reply(503, Retry_After=text))
    assert client().report_now().retry_after is None
