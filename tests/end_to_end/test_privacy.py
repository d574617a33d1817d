"""No address, host name, token or body of an install comes to stand in a log."""

import socket
from collections.abc import Callable

import httpx

from tests.installs import Install
from tests.server_process import ServerProcess

RUBBISH = [
    b"GARBAGE\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: secret-host.example\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/snapshot HTTP/1.1\r\nHost: secret-host.example\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n",
    b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 30_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nBad Header\r\n\r\n",
    b"\x16\x03\x01\x02\x00",
]


def test_errors_of_every_kind_leave_no_trace_of_who_made_them(serve: Callable[..., ServerProcess]) -> None:
    server = serve()
    address = "127.0.0.77"  # a client address that stands nowhere else
    for rubbish in RUBBISH:
        with socket.create_connection(("127.0.0.1", server.port), 10, source_address=(address, 0)) as raw:
            raw.sendall(rubbish)
            raw.settimeout(10)
            raw.shutdown(socket.SHUT_WR)
            while raw.recv(4096):
                pass
    transport = httpx.HTTPTransport(local_address=address)
    with httpx.Client(transport=transport) as client:
        install = Install(server.url, app_name="secret-application")
        client.post(f"{server.url}/v1/register", content=install.registration())
        body = install.snapshot_body({"secret-key": "\0"})
        client.post(f"{server.url}/v1/snapshot", content=body, headers=install.signed(body))
        client.get(f"{server.url}/secret-path?token=secret-token", headers={"Authorization": "Bearer secret-token"})
        client.get(f"{server.url}/api/v1/admin/stats", headers={"Authorization": "Bearer secret-token"})
    assert server.terminate() == 0
    for trace in (address, "secret", socket.gethostname() + " ", "Traceback", install.instance_id):
        assert trace not in server.log, server.log
