"""A local stand-in for GitHub's API, which tells the stars of repositories."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class GitHubApi:
    """The answers by path, each a status with a JSON value or the target of a redirect, or all bytes; the requests.

    `headers` are those of every answer.
    """

    url: str
    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)  # paths with the Authorization header


@contextmanager
def github_api() -> Iterator[GitHubApi]:
    """A running stand-in."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            api.requests.append((self.path, self.headers.get("Authorization")))
            status, answer = api.answers.get(self.path, (404, {"message": "Not Found"}))
            if isinstance(answer, bytes):
                self.wfile.write(answer)
                return
            self.send_response(status)
            for name, value in api.headers.items():
                self.send_header(name, value)
            if isinstance(answer, str):
                self.send_header("Location", answer)
            body = json.dumps(answer).encode()
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Logs nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    api = GitHubApi(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
