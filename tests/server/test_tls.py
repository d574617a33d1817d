"""TLS of the server itself: installs, readers and feeds over it, a renewal without a restart, and what it refuses."""

import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import trustme
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

from shm.core.errors import ConfigurationError
from shm.core.settings import Settings
from shm.server.http.tls import ServerCertificate
from tests.support.clusters import wait_for
from tests.support.databases import fresh_database
from tests.support.installs import Install
from tests.support.server_process import ServerProcess
from tests.support.shm_command import run_shm
from tests.support.subscriber import Subscriber

AUTHORITY = trustme.CA()


def write_certificate(folder: Path, *, key_only: bool = False, certificate_only: bool = False) -> str:
    """Writes a new certificate for localhost, each file whole, and returns its serial number."""
    issued = AUTHORITY.issue_cert("localhost", "127.0.0.1")
    chain = b"".join(part.bytes() for part in issued.cert_chain_pems)
    files = {"key.pem": issued.private_key_pem.bytes(), "cert.pem": chain}
    skipped = {"cert.pem"} if key_only else {"key.pem"} if certificate_only else set()
    for name in files.keys() - skipped:
        (folder / f"{name}.new").write_bytes(files[name])
        (folder / f"{name}.new").replace(folder / name)
    decoded = ssl._ssl._test_decode_cert(str(folder / "cert.pem"))  # type: ignore[attr-defined]
    return str(decoded["serialNumber"])


class TlsServer(ServerProcess):
    """A server whose readiness is asked for over TLS."""

    def is_ready(self) -> bool:
        """Whether it and its database respond."""
        try:
            return httpx.get(f"{self.url}/api/v1/ready", verify=tls_context(), timeout=5).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the server's certificate."""
    return tmp_path_factory.mktemp("certificate")


@pytest.fixture(scope="module")
def server(postgres: str, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with TLS."""
    write_certificate(folder)
    with fresh_database(postgres) as dsn:
        environment = {
            "SHM_DB_DSN": dsn,
            "SHM_TLS_CERT": str(folder / "cert.pem"),
            "SHM_TLS_KEY": str(folder / "key.pem"),
            "SHM_HEADER_TIMEOUT": "2s",
        }
        server = TlsServer(tmp_path_factory.mktemp("tls") / "data", environment)
        server.url = server.url.replace("http:", "https:")
        server.start()
        yield server
        assert server.terminate() == 0


def tls_context() -> ssl.SSLContext:
    """A client's context that trusts the authority of the tests."""
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


def serial_number(server: ServerProcess) -> str:
    """That of the certificate which a new connection gets."""
    with (
        socket.create_connection(("127.0.0.1", server.port), 10) as raw,
        tls_context().wrap_socket(raw, server_hostname="localhost") as connection,
    ):
        certificate = connection.getpeercert()
        assert certificate is not None
        return str(certificate["serialNumber"])


async def test_installs_readers_and_feeds_use_tls(server: ServerProcess) -> None:
    install = Install(server.url)
    async with httpx.AsyncClient(verify=tls_context(), base_url=server.url) as client:
        request = HTTPRequest(
            f"{server.url.replace('https', 'wss')}/api/v1/admin/feed", headers=server.headers, ssl_options=tls_context()
        )
        socket = await websocket_connect(request)
        feed = Subscriber(socket)
        await feed.until("hello")
        activation, snapshot = b'{"action":"activate"}', install.snapshot_body({"orders": 5})
        json = {"Content-Type": "application/json"}
        answers = [
            await client.post("/v1/register", content=install.registration(), headers=json),
            await client.post("/v1/activate", content=activation, headers=install.signed(activation)),
            await client.post("/v1/snapshot", content=snapshot, headers=install.signed(snapshot)),
        ]
        assert [answer.status_code for answer in answers] == [201, 200, 202]
        while install.instance_id not in feed.instances:
            await feed.message()
        socket.close()
        large = await client.post("/v1/snapshot", content=b"x" * 100_000, headers=install.signed(b""))
        assert large.json()["code"] == "body_too_large"
    assert "SHM is listening on https://" in server.log


def test_a_renewed_certificate_is_used_without_a_restart(server: ServerProcess, folder: Path) -> None:
    """Also if its files are replaced one after the other, between which the last pair stays."""
    with httpx.Client(verify=tls_context(), base_url=server.url) as open_before:
        assert open_before.get("/api/v1/healthcheck").status_code == 200
        before = serial_number(server)
        renewed = write_certificate(folder)
        wait_for(lambda: serial_number(server) == renewed, "the renewed certificate")
        assert renewed != before
        write_certificate(folder, certificate_only=True)
        wait_for(lambda: "the renewed certificate cannot be used yet" in server.log, "the log")
        assert serial_number(server) == renewed
        last = write_certificate(folder)
        wait_for(lambda: serial_number(server) == last, "the last certificate")
        assert open_before.get("/api/v1/healthcheck").status_code == 200
    assert server.log.count("loaded the renewed certificate") == 2


def test_clients_without_tls_or_a_handshake_are_disconnected(server: ServerProcess) -> None:
    """They cost a connection for no longer than SHM_HEADER_TIMEOUT, and the log has no address of theirs."""
    with socket.create_connection(("127.0.0.1", server.port), 30) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        with suppress(ConnectionResetError):
            assert b"HTTP/1.1" not in plain.recv(4096)
    with socket.create_connection(("127.0.0.1", server.port), 30) as silent:
        assert silent.recv(4096) == b""
    unusable = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unusable.check_hostname, unusable.verify_mode = False, ssl.CERT_NONE
    unusable.maximum_version = ssl.TLSVersion.TLSv1_2
    unusable.set_ciphers("AES128-SHA")  # not for the kind of the certificate's key
    with socket.create_connection(("127.0.0.1", server.port), 30) as raw, pytest.raises(ssl.SSLError):
        unusable.wrap_socket(raw)
    assert serial_number(server)
    assert "127.0.0.1'" not in server.log
    assert "Traceback" not in server.log


def test_the_doctor_asks_over_tls(server: ServerProcess, folder: Path) -> None:
    arguments = ("--port", str(server.port), "--data-dir", str(server.data_dir))
    environment = {"SHM_TLS_CERT": str(folder / "cert.pem"), "SHM_TLS_KEY": str(folder / "key.pem")}
    done = run_shm("doctor", *arguments, **environment)
    assert f"the server at https://127.0.0.1:{server.port} is ready" in done.stdout


def test_unusable_files_are_said_in_a_sentence(tmp_path: Path) -> None:
    write_certificate(tmp_path)
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    assert ServerCertificate(certificate, key).context.minimum_version is ssl.TLSVersion.TLSv1_2
    with pytest.raises(ConfigurationError, match="belong together"):
        Settings.load({"SHM_TLS_CERT": str(certificate)})
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        ServerCertificate(tmp_path / "none", key)
    with pytest.raises(ConfigurationError, match="cannot be used"):
        ServerCertificate(key, certificate)
    os.mkfifo(tmp_path / "pipe")
    for files in ((tmp_path / "pipe", key), (certificate, tmp_path / "pipe"), (tmp_path, key)):
        with pytest.raises(ConfigurationError, match="is no regular file"):
            ServerCertificate(*files)
    with pytest.raises(ConfigurationError, match="cannot be read: File name too long"):  # a status that cannot be read
        ServerCertificate(tmp_path / ("x" * 300), key)
    write_certificate(tmp_path, key_only=True)
    with pytest.raises(ConfigurationError, match="cannot be used"):
        ServerCertificate(certificate, key)
    openssl = ["openssl", "genrsa", "-aes256", "-passout", "pass:secret", "-out", str(key), "2048"]
    subprocess.run(openssl, check=True, capture_output=True)
    with pytest.raises(ConfigurationError, match="passphrase"):
        ServerCertificate(certificate, key)
    refused = run_shm("serve", "--port", "0", "--tls-cert", str(certificate), "--tls-key", str(tmp_path / "none"))
    assert refused.returncode == 1
    assert refused.stderr.startswith("shm: The certificate")
