"""An install without the SDK, with which tests can also send invalid requests."""

import atexit
import json
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from nacl.signing import SigningKey

from tests.support import plain_http

_client = plain_http.Client(timeout=60, limits=httpx.Limits(max_keepalive_connections=50))
atexit.register(_client.close)


@dataclass
class Install:
    """A key pair, an ID, and the data of a registration."""

    url: str
    app_name: str = "Ledger"
    app_version: str = "1.4.2"
    environment: str = "production"
    deployment_mode: str = "docker"
    os_arch: str = "linux/amd64"
    instance_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    key: SigningKey = field(default_factory=SigningKey.generate)

    @property
    def public_key(self) -> str:
        """64 hex digits."""
        return self.key.verify_key.encode().hex()

    def registration(self, **changes: Any) -> bytes:
        """The body of a registration."""
        payload = {
            "instance_id": self.instance_id,
            "public_key": self.public_key,
            "app_name": self.app_name,
            "app_version": self.app_version,
            "deployment_mode": self.deployment_mode,
            "environment": self.environment,
            "os_arch": self.os_arch,
        }
        return json.dumps(payload | changes).encode()

    def snapshot_body(self, metrics: Any, at: datetime | str | None = None, **more: Any) -> bytes:
        """The body of a snapshot. `at` defaults to now."""
        if not isinstance(at, str):
            at = (at or datetime.now(UTC)).isoformat().replace("+00:00", "Z")
        return json.dumps({"instance_id": self.instance_id, "timestamp": at, "metrics": metrics, **more}).encode()

    def signed(self, body: bytes) -> dict[str, str]:
        """The headers of a request with this body and its signature."""
        return {
            "Content-Type": "application/json",
            "X-Instance-ID": self.instance_id,
            "X-Signature": self.key.sign(body).signature.hex(),
        }

    def post(self, path: str, body: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
        """POSTs `body` with exactly these headers."""
        return _client.post(f"{self.url}{path}", content=body, headers=headers or {})

    def register(self, **changes: Any) -> httpx.Response:
        """Sends an unsigned registration, as the official clients do."""
        return self.post("/v1/register", self.registration(**changes), {"Content-Type": "application/json"})

    def register_signed(self, at: datetime | None = None) -> httpx.Response:
        """Sends a signed registration with a timestamp, as the Python SDK does. `at` defaults to now."""
        body = self.registration(timestamp=(at or datetime.now(UTC)).isoformat())
        return self.post("/v1/register", body, self.signed(body))

    def activate(self, at: datetime | None = None) -> httpx.Response:
        """Sends a signed activation: the official clients' constant body, or with `at` one with a timestamp."""
        body = b'{"action":"activate"}'
        if at is not None:
            body = json.dumps({"action": "activate", "timestamp": at.isoformat()}).encode()
        return self.post("/v1/activate", body, self.signed(body))

    def snapshot(self, metrics: Any, at: datetime | str | None = None, **more: Any) -> httpx.Response:
        """Sends a signed snapshot."""
        body = self.snapshot_body(metrics, at, **more)
        return self.post("/v1/snapshot", body, self.signed(body))

    def enroll(self, metrics: Any = None, ago: timedelta = timedelta()) -> "Install":
        """Registers, activates and sends a first snapshot; returns itself."""
        assert self.register().status_code in (200, 201)
        assert self.activate().status_code == 200
        assert self.snapshot({} if metrics is None else metrics, datetime.now(UTC) - ago).status_code == 202
        return self
