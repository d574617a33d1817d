"""A server made of a real socket, which answers well until a test tells it to misbehave."""

import json
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import BinaryIO

from nacl.signing import VerifyKey

# What to do with one request: write to the connection, and say whether it may be used again.
Conduct = Callable[[socket.socket], bool]


@dataclass(frozen=True)
class Request:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def json(self) -> dict[str, object]:
        document = json.loads(self.body)
        assert isinstance(document, dict)
        return document

    def is_signed_by(self, public_key: str) -> bool:
        VerifyKey(bytes.fromhex(public_key)).verify(self.body, bytes.fromhex(self.headers["x-signature"]))
        return True


def reply(status: int, body: bytes = b"{}", **headers: str) -> Conduct:
    """A proper answer."""
    lines = [f"HTTP/1.1 {status} Some Words", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return raw("\r\n".join(lines).encode() + b"\r\n\r\n" + body, keep=True)


def raw(content: bytes, *, keep: bool = False) -> Conduct:
    """Exactly these bytes; then the connection is closed unless `keep`."""

    def conduct(connection: socket.socket) -> bool:
        connection.sendall(content)
        return keep

    return conduct


def silence(connection: socket.socket) -> bool:
    """Never answers; ends when the other side gives up."""
    connection.recv(1)
    return False


def endless(start: bytes, again: bytes) -> Conduct:
    """Answers without an end, until the other side gives up."""

    def conduct(connection: socket.socket) -> bool:
        connection.sendall(start)
        while True:
            connection.sendall(again)

    return conduct


def tunnel(port: int) -> Conduct:
    """What a proxy does after CONNECT: relays bytes in both directions without looking at them."""

    def carry(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while content := source.recv(65536):
                target.sendall(content)
            target.shutdown(socket.SHUT_WR)

    def conduct(connection: socket.socket) -> bool:
        with socket.create_connection(("127.0.0.1", port)) as target:
            connection.sendall(b"HTTP/1.1 200 Go on\r\n\r\n")
            there = threading.Thread(target=carry, args=(connection, target), daemon=True)
            there.start()
            carry(target, connection)
            there.join()
        return False

    return conduct


WELL_BEHAVED = {
    "/v1/register": reply(201),
    "/v1/activate": reply(200, b'{"status":"active"}'),
    "/v1/snapshot": reply(202),
}


@dataclass
class Peer:
    """The server. `script` holds what comes next for a path, before the good answers."""

    url: str
    listener: socket.socket
    tls: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list)
    connections: list[socket.socket] = field(default_factory=list)
    script: dict[str, deque[Conduct]] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)
    threads: list[threading.Thread] = field(default_factory=list)

    def will(self, path: str, *conducts: Conduct) -> None:
        """Sets what the next requests for a path meet."""
        self.script.setdefault(path, deque()).extend(conducts)

    @property
    def paths(self) -> list[str]:
        return [request.path for request in self.requests]

    def wait_for(self, path: str, times: int = 1) -> Request:
        """The `times`-th request for a path, once it has come."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.paths.count(path) >= times, timeout=60), self.paths
        return [request for request in self.requests if request.path == path][times - 1]

    def listen(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            thread = threading.Thread(target=self.serve, args=(connection,), daemon=True)
            self.threads.append(thread)
            thread.start()

    def serve(self, connection: socket.socket) -> None:
        with suppress(OSError, ssl.SSLError), connection:
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
            with connection, connection.makefile("rb") as stream:
                while (request := _read(stream)) is not None:
                    with self.changed:
                        self.requests.append(request)
                        self.changed.notify_all()
                    scripted = self.script.get(request.path)
                    conduct = scripted.popleft() if scripted else WELL_BEHAVED.get(request.path, reply(404))
                    if not conduct(connection):
                        return

    def close(self) -> None:
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(30)


def _read(stream: BinaryIO) -> Request | None:
    first = stream.readline()
    if not first:
        return None
    method, path, _ = first.decode("latin-1").split(" ", 2)
    headers: dict[str, str] = {}
    while (line := stream.readline().decode("latin-1").strip()) != "":
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = stream.read(int(headers.get("content-length", "0")))
    return Request(method, path, headers, body)


@contextmanager
def running_peer(tls: ssl.SSLContext | None = None) -> Iterator[Peer]:
    """A peer that listens on a port of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    scheme = "https" if tls else "http"
    peer = Peer(f"{scheme}://localhost:{listener.getsockname()[1]}", listener, tls)
    acceptor = threading.Thread(target=peer.listen, daemon=True)
    peer.threads.append(acceptor)
    acceptor.start()
    try:
        yield peer
    finally:
        peer.close()
