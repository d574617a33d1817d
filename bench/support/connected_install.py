"""An install that signs its requests when it sends them, each on its own connection."""

import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPConnection
from typing import Any, Self

from nacl.signing import SigningKey

from bench.support.errors import InvalidRun
from bench.support.server import RunningServer

TIMEOUT_S = 1_200  # an erasure of a million snapshots takes minutes


@dataclass(slots=True)
class ConnectedInstall:
    """An install with its own key and connection."""

    server: RunningServer
    instance_id: str
    key: SigningKey
    connection: HTTPConnection

    @classmethod
    def register(cls, server: RunningServer, app: str = "attacker") -> Self:
        """A new active install."""
        key = SigningKey.generate()
        install = cls(server, str(uuid.uuid4()), key, HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S))
        registration = {"app_name": app, "app_version": "1.0", "public_key": key.verify_key.encode().hex()}
        install.post("/v1/register", registration)
        install.post("/v1/activate", {"timestamp": datetime.now(UTC).isoformat()})
        return install

    def post(self, path: str, body: dict[str, Any], expected: tuple[int, ...] = (200, 201, 202)) -> int:
        """Sends a signed request. Raises InvalidRun for any other status than the expected ones."""
        return self.send(path, *self.sign(body), expected)

    def sign(self, body: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
        """The content of a request and its headers."""
        content = json.dumps({"instance_id": self.instance_id, **body}).encode()
        return content, {"X-Instance-ID": self.instance_id, "X-Signature": self.key.sign(content).signature.hex()}

    def send(self, path: str, content: bytes, headers: dict[str, str], expected: tuple[int, ...]) -> int:
        """Sends a request that was signed before. Raises as `post`."""
        self.connection.request("POST", path, content, headers)
        response = self.connection.getresponse()
        answer = response.read()
        if response.status not in expected:
            raise InvalidRun(f"{path}: {response.status} {answer[:200]!r}")
        return response.status
