"""Servers that lie, stall and babble: each costs one report, and none the host."""

import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from shm_sdk import Client, Result
from shm_sdk.transport import LARGEST_ANSWER
from tests.support.peer import Conduct, Peer, endless, raw, reply, running_peer, silence, tunnel

MakeClient = Callable[..., Client]
PATIENCE = 0.5  # seconds that a report may take here

OK_HEAD = b"HTTP/1.1 200 OK\r\n"


def drip(connection: socket.socket) -> bool:
    """A byte now and then: each arrives well within any timeout for a single read."""
    import time

    connection.sendall(OK_HEAD)
    while True:
        connection.sendall(b"X")
        time.sleep(0.05)


@pytest.mark.parametrize(
    "conduct",
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
    ids=lambda conduct: conduct.__qualname__,
)
def test_no_answer_however_strange_raises_or_holds_the_host(client: MakeClient, peer: Peer, conduct: Conduct) -> None:
    telemetry = client()
    peer.will("/v1/snapshot", conduct)
    outcome = telemetry.report_now(timeout=PATIENCE)
    assert outcome.result in (Result.FAILED, Result.REFUSED)
    assert telemetry.report_now().sent  # and the next one, on a fresh connection, gets through


def test_a_server_that_hangs_up_on_a_new_connection_is_an_outage(client: MakeClient, peer: Peer) -> None:
    peer.will("/v1/register", raw(b""))
    assert client().report_now().result is Result.FAILED
    assert len(peer.connections) == 1


@pytest.mark.parametrize("body", [b"", b"[" * 60_000, b'{"status":', b'{"status":["pending"]}', b"\xff", b"9" * 9000])
def test_a_body_that_is_no_json_is_as_good_as_none(client: MakeClient, peer: Peer, body: bytes) -> None:
    peer.will("/v1/activate", reply(200, body))
    assert client().report_now().sent


def test_no_more_of_an_answer_is_read_than_its_bound(client: MakeClient, peer: Peer) -> None:
    telemetry = client()
    peer.will("/v1/register", reply(201, b" " * (LARGEST_ANSWER + 1)))
    assert telemetry.report_now().sent
    assert len(peer.connections) == 2  # the rest of the long answer went with its connection


def test_a_server_that_is_not_there_is_an_outage(client: MakeClient) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        outcome = client(server_url=f"http://127.0.0.1:{reserved.getsockname()[1]}").report_now()
    assert (outcome.result, outcome.status) == (Result.FAILED, None)
    assert outcome.reason == "the server cannot be reached: Connection refused"


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example", "256.256.256.256", "[::1]:1"])
def test_a_name_that_leads_nowhere_is_an_outage(client: MakeClient, host: str) -> None:
    assert client(server_url=f"http://{host}").report_now(timeout=PATIENCE).result is Result.FAILED


def test_a_server_that_accepts_and_says_nothing_ends_with_the_timeout(client: MakeClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        assert client(server_url=url).report_now(timeout=PATIENCE).reason.endswith("no answer in time")


@dataclass(frozen=True)
class Tls:
    """What a server for `localhost` proves itself with, and the file of the authority that vouches for it."""

    context: ssl.SSLContext
    authority: str


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    file = tmp_path_factory.mktemp("tls") / "authority.pem"
    authority.cert_pem.write_to_path(str(file))
    return Tls(context, str(file))


REPORT = "import sys, shm_sdk; print(shm_sdk.Client(sys.argv[1], 'Ledger', '1', data_dir=sys.argv[2]).report_now())"


def report_in_a_process(url: str, data_dir: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", REPORT, url, str(data_dir)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_certificate_that_nobody_vouches_for_gets_no_request(tls: Tls, tmp_path: Path) -> None:
    with running_peer(tls.context) as peer:
        assert "unable to get local issuer certificate" in report_in_a_process(peer.url, tmp_path)
        assert peer.requests == []


def test_a_certificate_that_the_machine_trusts_is_enough(tls: Tls, tmp_path: Path) -> None:
    with running_peer(tls.context) as peer:
        assert "Result.SENT" in report_in_a_process(peer.url, tmp_path, SSL_CERT_FILE=tls.authority)
        assert len(peer.connections) == 1


def test_a_certificate_for_another_name_gets_no_request(tls: Tls, tmp_path: Path) -> None:
    with running_peer(tls.context) as peer:
        url = peer.url.replace("localhost", "127.0.0.1")
        assert "Result.FAILED" in report_in_a_process(url, tmp_path, SSL_CERT_FILE=tls.authority)
        assert peer.requests == []


def test_plain_http_goes_through_the_environments_proxy(client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_peer() as proxy:
        for path, status in (("register", 201), ("activate", 200), ("snapshot", 202)):
            proxy.will(f"http://metrics.example.com:8080/v1/{path}", reply(status))
        monkeypatch.setenv("http_proxy", proxy.url.replace("://", "://some%20one:secret@"))
        assert client(server_url="http://metrics.example.com:8080").report_now().sent
        assert {request.headers["host"] for request in proxy.requests} == {"metrics.example.com:8080"}
        assert {request.headers["proxy-authorization"] for request in proxy.requests} == {"Basic c29tZSBvbmU6c2VjcmV0"}


def test_https_goes_through_a_tunnel_in_which_the_proxy_sees_nothing(tls: Tls, tmp_path: Path) -> None:
    with running_peer(tls.context) as server, running_peer() as proxy:
        port = server.listener.getsockname()[1]
        proxy.will(f"localhost:{port}", tunnel(port))
        said = report_in_a_process(server.url, tmp_path, SSL_CERT_FILE=tls.authority, https_proxy=proxy.url)
        assert "Result.SENT" in said
        assert server.paths == ["/v1/register", "/v1/activate", "/v1/snapshot"]
        assert [(request.method, request.path) for request in proxy.requests] == [("CONNECT", f"localhost:{port}")]


def test_a_proxy_that_wants_a_password_is_an_outage(client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_peer() as proxy:
        proxy.will("metrics.example.com:443", reply(407))
        monkeypatch.setenv("https_proxy", proxy.url)
        outcome = client(server_url="https://metrics.example.com").report_now()
        assert outcome.reason == "the server cannot be reached: the proxy opens no tunnel"
        assert [(request.method, request.path) for request in proxy.requests] == [
            ("CONNECT", "metrics.example.com:443")
        ]


def test_no_proxy_leads_around_the_proxy(client: MakeClient, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "localhost")
    assert client().report_now().sent


def test_a_proxy_of_a_kind_we_do_not_speak_is_not_passed_by(
    client: MakeClient, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1080")
    assert client().report_now().result is Result.FAILED
    assert peer.connections == []
