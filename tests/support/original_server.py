"""The original SHM server, as far as a client sees it: its answers, its words and its rate limits, in memory.

Errors are plain text, also for an address that it does not have. Registration and activation share a limit for each
address, snapshots have one for each install.
"""

import json
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

BURST = 2
REGISTRATIONS_A_MINUTE, SNAPSHOTS_A_MINUTE = 5, 1
MAX_CHARS = {"app_version": 50, "deployment_mode": 20, "environment": 20}  # the widths of its columns
MAX_AHEAD = timedelta(minutes=5)

Answer = tuple[int, str]  # a status and a body


@dataclass
class TokenBucket:
    """Holds BURST requests, and refills at its rate."""

    a_minute: int
    tokens: float = BURST
    at: datetime | None = None

    def take(self, now: datetime) -> int | None:
        """None if the request is let through, else the seconds of Retry-After."""
        elapsed_s = (now - self.at).total_seconds() if self.at else 0.0
        self.at = now
        self.tokens = min(BURST, self.tokens + elapsed_s * self.a_minute / 60)
        if self.tokens >= 1:
            self.tokens -= 1
            return None
        return max(1, math.floor((1 - self.tokens) * 60 / self.a_minute))


@dataclass
class Row:
    """A row of its table of instances."""

    public_key: str
    app_version: str
    status: str = "pending"


@dataclass
class OriginalServer:
    """`activates_again`: its newest release takes a second activation, those before answer 500."""

    now: Callable[[], datetime]
    activates_again: bool = True
    url: str = ""
    instances: dict[str, Row] = field(default_factory=dict)
    snapshots: list[tuple[datetime, dict[str, object]]] = field(default_factory=list)
    answers: list[tuple[str, int]] = field(default_factory=list)
    is_away: bool = False
    limits: dict[str, TokenBucket] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, path: str, instance_id: str, signature: str, body: bytes) -> tuple[int, str, dict[str, str]]:
        """The status, the body and further headers for a POST."""
        with self.lock:
            wait_s = None if self.is_away else self._limit(path, instance_id)
            if self.is_away:
                status, text = 502, "Bad Gateway\n"
            elif wait_s is not None:
                status, text = 429, "Too Many Requests\n"
            elif path == "/v1/register":
                status, text = self._register(body)
            elif path in ("/v1/activate", "/v1/snapshot"):
                status, text = self._signed(path, instance_id, signature, body)
            else:
                status, text = 404, "404 page not found\n"
            self.answers.append((path, status))
            return status, text, {} if wait_s is None else {"Retry-After": str(wait_s)}

    def _limit(self, path: str, instance_id: str) -> int | None:
        if path == "/v1/snapshot":
            bucket = self.limits.setdefault(instance_id, TokenBucket(SNAPSHOTS_A_MINUTE))
        elif path in ("/v1/register", "/v1/activate"):
            bucket = self.limits.setdefault("127.0.0.1", TokenBucket(REGISTRATIONS_A_MINUTE))
        else:
            return None
        return bucket.take(self.now())

    def _register(self, body: bytes) -> Answer:
        document = json.loads(body)
        known = self.instances.get(document["instance_id"])
        if any(len(document.get(name, "")) > limit for name, limit in MAX_CHARS.items()):
            return 400, "Registration failed\n"
        if known is None:
            self.instances[document["instance_id"]] = Row(document["public_key"], document["app_version"])
        else:
            known.app_version = document["app_version"]
        return 201, '{"message":"Registered","status":"ok"}\n'

    def _signed(self, path: str, instance_id: str, signature: str, body: bytes) -> Answer:
        row = self.instances.get(instance_id)
        if row is None or row.status == "revoked":
            return 403, "Unauthorized\n"
        try:
            VerifyKey(bytes.fromhex(row.public_key)).verify(body, bytes.fromhex(signature))
        except (ValueError, BadSignatureError):
            return 403, "Invalid signature\n"
        if path == "/v1/activate":
            if row.status == "active" and not self.activates_again:
                return 500, "Activation failed\n"
            row.status = "active"
            return 200, '{"message":"Instance activated successfully","status":"active"}\n'
        document = json.loads(body)
        timestamp = datetime.fromisoformat(document["timestamp"])
        if timestamp > self.now() + MAX_AHEAD:
            return 500, "Snapshot failed\n"
        self.snapshots.append((timestamp, document["metrics"]))
        return 202, '{"message":"Snapshot received","status":"ok"}\n'


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    original: OriginalServer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_POST(self) -> None:
        assert isinstance(self.server, _HttpServer)
        original = self.server.original
        body = self.rfile.read(int(self.headers["Content-Length"]))
        identity = self.headers.get("X-Instance-ID", ""), self.headers.get("X-Signature", "")
        status, text, headers = original.answer(self.path, *identity, body)
        self.send_response_only(status)
        headers |= {"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(text))}
        for name, value in {**headers, "Date": format_datetime(original.now(), usegmt=True)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *arguments: object) -> None:
        """Writes nothing."""


@contextmanager
def running_original_server(now: Callable[[], datetime], *, activates_again: bool = True) -> Iterator[OriginalServer]:
    """An original server on a free port, whose clock is `now`."""
    http = _HttpServer(("127.0.0.1", 0), _Handler)
    http.original = OriginalServer(now, activates_again, f"http://127.0.0.1:{http.server_address[1]}")
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield http.original
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
