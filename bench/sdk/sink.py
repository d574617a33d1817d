"""The server of the measured SDKs: it accepts everything, or accepts connections and never answers."""

import socket
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import trustme

ANSWERS = {  # by the start of the path
    "/v1/register": (201, b'{"status":"ok"}'),
    "/v1/activate": (200, b'{"status":"active"}'),
    "/v1/": (202, b'{"status":"ok"}'),
    "/batch": (200, b'{"status":1}'),
    "/": (200, b"{}"),
}


class Sink(ThreadingHTTPServer):
    """Counts requests by their path. With a TLS context, its name is `localhost`."""

    daemon_threads = True

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
            self.url = f"https://localhost:{self.server_address[1]}"
        self.requests: Counter[str] = Counter()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        """Answers one request."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        assert isinstance(self.server, Sink)
        self.server.requests[self.path.partition("?")[0]] += 1
        status, body = next(answer for start, answer in ANSWERS.items() if self.path.startswith(start))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Writes nothing."""


@contextmanager
def running_sink(tls: ssl.SSLContext | None = None) -> Iterator[Sink]:
    """A server on a free port."""
    sink = Sink(tls)
    thread = threading.Thread(target=sink.serve_forever, daemon=True)
    thread.start()
    try:
        yield sink
    finally:
        sink.shutdown()
        sink.server_close()
        thread.join()


def create_tls(authority_file: Path) -> ssl.SSLContext:
    """The TLS context of a server, and the file of its certificate authority, which is written."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(authority_file))
    return context


@contextmanager
def silent_server() -> Iterator[str]:
    """The URL of a server that accepts connections and never answers, as behind a firewall that drops packets."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
