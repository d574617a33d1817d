"""A SHM server within a test, with a real socket and real signatures. It records what it has received."""

import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from shm_sdk.clock import get_clock
from shm_sdk.testing.protocol import Document, Install, Protocol, StoredSnapshot

REPORT_TIMEOUT_S = 5.0  # for a report that is due; it needs some milliseconds
POLL_S = 0.01


@dataclass(frozen=True)
class ReceivedRequest:
    """A request and the status of its answer."""

    path: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    status: int


class ShmServer:
    """The server of the fixture `shm_server`."""

    def __init__(self) -> None:
        self._protocol = Protocol(lambda: get_clock().now())
        self._lock = threading.Lock()  # the protocol is not thread-safe
        self._outage: int | None = None
        self._http = _HttpServer(("127.0.0.1", 0), _Handler)
        self._http.shm = self
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self.requests: list[ReceivedRequest] = []

    @property
    def installs(self) -> list[Install]:
        """The installs, in the order of their registration."""
        with self._lock:
            return list(self._protocol.installs.values())

    @property
    def snapshots(self) -> list[StoredSnapshot]:
        """The snapshots of all installs, oldest first."""
        stored = [snapshot for install in self.installs for snapshot in install.snapshots]
        return sorted(stored, key=lambda snapshot: snapshot.timestamp)

    @property
    def metrics(self) -> Document:
        """The metrics of the newest snapshot, empty without one."""
        return self.snapshots[-1].metrics if self.snapshots else {}

    def fail(self, status: int | None = 503) -> None:
        """Answers every request with this status from now on, until `fail(None)`."""
        self._outage = status

    def require_approval(self) -> None:
        """New installs are pending, as with a vendor that approves them by hand."""
        self._protocol.approves = False

    def assert_reported(self, timeout: float = REPORT_TIMEOUT_S, /, **metrics: object) -> StoredSnapshot:
        """The newest snapshot with these metrics; waits for it. `mail__sent=3` is `{"mail": {"sent": 3}}`."""
        deadline = time.monotonic() + timeout
        while True:
            snapshots = self.snapshots
            for snapshot in reversed(snapshots):
                if all(_find(snapshot.metrics, name.split("__")) == value for name, value in metrics.items()):
                    return snapshot
            if time.monotonic() >= deadline:
                newest = snapshots[-1].metrics if snapshots else "nothing"
                statuses = [f"{request.path} {request.status}" for request in self.requests[-5:]]
                raise AssertionError(f"no snapshot has {metrics}; the newest has {newest}; last requests: {statuses}")
            time.sleep(POLL_S)

    def assert_nothing_sent(self) -> None:
        """No request has arrived."""
        if self.requests:
            raise AssertionError(f"requests arrived: {[request.path for request in self.requests]}")

    def receive(self, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, Document]:
        """Answers one request."""
        with self._lock:
            status, document = (
                (self._outage, {"status": self._outage, "code": "database_unavailable"})
                if self._outage
                else self._protocol.answer(path, headers, body)
            )
            self.requests.append(ReceivedRequest(path, headers, body, status))
            return status, document

    def serve(self) -> None:
        """Serves until `close`."""
        self._http.serve_forever(poll_interval=POLL_S)

    def close(self) -> None:
        """Ends `serve` and closes the socket."""
        self._http.shutdown()
        self._http.server_close()


@contextmanager
def running_server() -> Iterator[ShmServer]:
    """A server on a free port, within the context."""
    server = ShmServer()
    thread = threading.Thread(target=server.serve, name="shm-test-server", daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join()


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # the SDK keeps its connection open
    shm: ShmServer

    def handle_error(self, request: object, client_address: object) -> None:
        """Writes nothing where the SDK has closed the connection, as at the end of its process."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_POST(self) -> None:
        """Answers one request."""
        assert isinstance(self.server, _HttpServer)  # noqa: S101
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        status, document = self.server.shm.receive(self.path, headers, body)
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if status < 400 else "application/problem+json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Writes nothing: `requests` has everything."""


def _find(metrics: object, path: list[str]) -> object:
    for name in path:
        metrics = metrics.get(name, _MISSING) if isinstance(metrics, dict) else _MISSING
    return metrics


_MISSING = object()
