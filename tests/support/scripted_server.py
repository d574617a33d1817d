"""A scripted server with a real socket. Without a script it answers as the SHM server does."""

import json
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from nacl.signing import VerifyKey

# Answers one request on the connection. Returns whether the connection stays open.
ResponseScript = Callable[[socket.socket], bool]


@dataclass(frozen=True)
class Request:
    """One received request."""

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


def reply(status: int, body: bytes = b"{}", **headers: str) -> ResponseScript:
    """A valid response."""
    lines = [f"HTTP/1.1 {status} Some Words", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return raw("\r\n".join(lines).encode() + b"\r\n\r\n" + body, keep=True)


def raw(content: bytes, *, keep: bool = False) -> ResponseScript:
    """Exactly these bytes; then the connection is closed unless `keep`."""

    def respond(connection: socket.socket) -> bool:
        connection.sendall(content)
        return keep

    return respond


def silence(connection: socket.socket) -> bool:
    """Never answers; ends when the client closes the connection."""
    connection.recv(1)
    return False


def endless(start: bytes, repeated: bytes) -> ResponseScript:
    """Sends `start` and then `repeated` until the client closes the connection."""

    def respond(connection: socket.socket) -> bool:
        connection.sendall(start)
        while True:
            connection.sendall(repeated)

    return respond


def tunnel(port: int) -> ResponseScript:
    """The response of a proxy to CONNECT: it relays bytes in both directions."""

    def relay(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while content := source.recv(65536):
                target.sendall(content)
            target.shutdown(socket.SHUT_WR)

    def respond(connection: socket.socket) -> bool:
        with socket.create_connection(("127.0.0.1", port)) as target:
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            upstream = threading.Thread(target=relay, args=(connection, target), daemon=True)
            upstream.start()
            relay(target, connection)
            upstream.join()
        return False

    return respond


def accept_backlog(request: Request) -> ResponseScript:
    """The response to a backlog: each snapshot is stored."""
    snapshots = request.json["snapshots"]
    assert isinstance(snapshots, list)
    return reply(202, json.dumps({"status": "ok", "snapshots": [{"status": "stored"}] * len(snapshots)}).encode())


DEFAULT_RESPONSES = {
    "/v1/register": reply(201),
    "/v1/activate": reply(200, b'{"status":"active"}'),
    "/v1/snapshot": reply(202),
}


@dataclass
class ScriptedServer:
    """The server. `scripts` has the next responses for a path, which precede the default responses."""

    url: str
    listener: socket.socket
    tls: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list)
    connections: list[socket.socket] = field(default_factory=list)
    scripts: dict[str, deque[ResponseScript]] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)
    threads: list[threading.Thread] = field(default_factory=list)

    def script(self, path: str, *responses: ResponseScript) -> None:
        """Sets the responses to the next requests for a path."""
        self.scripts.setdefault(path, deque()).extend(responses)

    @property
    def paths(self) -> list[str]:
        return [request.path for request in self.requests]

    def bodies(self, path: str) -> list[dict[str, object]]:
        """The JSON bodies of all requests for a path."""
        return [request.json for request in self.requests if request.path == path]

    @property
    def metrics(self) -> list[Any]:
        """The metrics of all snapshots but those of backlogs."""
        return [body["metrics"] for body in self.bodies("/v1/snapshot")]

    def wait_for(self, path: str, times: int = 1) -> Request:
        """Waits for the `times`-th request for a path and returns it."""
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
                while (request := _read_request(stream)) is not None:
                    with self.changed:
                        self.requests.append(request)
                        self.changed.notify_all()
                    scripted = self.scripts.get(request.path)
                    if scripted:
                        respond = scripted.popleft()
                    elif request.path == "/v1/snapshots":
                        respond = accept_backlog(request)
                    else:
                        respond = DEFAULT_RESPONSES.get(request.path, reply(404))
                    if not respond(connection):
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


def _read_request(stream: BinaryIO) -> Request | None:
    request_line = stream.readline()
    if not request_line:
        return None
    method, path, _ = request_line.decode("latin-1").split(" ", 2)
    headers: dict[str, str] = {}
    while (line := stream.readline().decode("latin-1").strip()) != "":
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = stream.read(int(headers.get("content-length", "0")))
    return Request(method, path, headers, body)


@contextmanager
def run_scripted_server(tls: ssl.SSLContext | None = None) -> Iterator[ScriptedServer]:
    """Runs a scripted server on a free port within the context."""
    listener = socket.create_server(("127.0.0.1", 0))
    scheme = "https" if tls else "http"
    scripted_server = ScriptedServer(f"{scheme}://localhost:{listener.getsockname()[1]}", listener, tls)
    acceptor = threading.Thread(target=scripted_server.listen, daemon=True)
    scripted_server.threads.append(acceptor)
    acceptor.start()
    try:
        yield scripted_server
    finally:
        scripted_server.close()
