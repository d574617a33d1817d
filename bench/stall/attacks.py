"""Attacks: each prepares an install, and then sends the requests that delay other installs most."""

import json
import subprocess
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from typing import Any

import psycopg2
from nacl.signing import SigningKey

from bench.support.errors import InvalidRun
from bench.support.server import RunningServer

BACKLOGS = 5  # as many as an install may send at once
MEMBERS = 100  # of a backlog: the limit
KEYS = 256  # of a snapshot: the limit
TIMEOUT_S = 1_200  # an erasure of a million snapshots takes minutes
ATTACKERS = 4  # strangers that act at the same time
DISCLOSURES = 40  # at the same time, of an install with five backlogs of the largest snapshots
LARGE_MEMBERS, LARGE_TEXTS, TEXT = 15, 60, "x" * 1_000  # of such a backlog, which has almost a mebibyte

GET_CONNECTIONS, GET_SECONDS = 400, 8  # below the limit of connections of an address; longer than the first burst

# Snapshots of one install, a second apart, as if they had been sent: the rollup processes them.
INSERT_HISTORY = """
WITH head AS (UPDATE feed_head SET cursor = cursor + 1 RETURNING cursor)
INSERT INTO snapshots (instance_id, snapshot_at, app_version, metrics, app_slug, cursor)
SELECT %(instance_id)s, now() - number * interval '1 second', '1.0', '{"n": 1}', 'stranger', head.cursor
FROM generate_series(1, %(rows)s) number, head"""


@dataclass(slots=True)
class ConnectedInstall:
    """An install with its own key and connection."""

    server: RunningServer
    instance_id: str
    key: SigningKey
    connection: HTTPConnection

    @classmethod
    def register(cls, server: RunningServer, app: str = "stranger") -> "ConnectedInstall":
        """A new active install."""
        key = SigningKey.generate()
        stranger = cls(server, str(uuid.uuid4()), key, HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S))
        registration = {"app_name": app, "app_version": "1.0", "public_key": key.verify_key.encode().hex()}
        stranger.post("/v1/register", registration)
        stranger.post("/v1/activate", {"timestamp": datetime.now(UTC).isoformat()})
        return stranger

    def post(self, path: str, body: dict[str, Any], expected: tuple[int, ...] = (200, 201, 202)) -> int:
        """Sends a signed request. Raises InvalidRun for any other status than the expected ones."""
        content = json.dumps({"instance_id": self.instance_id, **body}).encode()
        signature = self.key.sign(content).signature.hex()
        headers = {"X-Instance-ID": self.instance_id, "X-Signature": signature}
        self.connection.request("POST", path, content, headers)
        response = self.connection.getresponse()
        answer = response.read()
        if response.status not in expected:
            raise InvalidRun(f"{path}: {response.status} {answer[:200]!r}")
        return response.status

    def send_invented_keys(self, number: int) -> None:
        """Sends a backlog of snapshots, an hour apart, each with as many new keys as a snapshot may have."""
        now = datetime.now(UTC)
        members = [
            {
                "timestamp": (now - timedelta(hours=1 + number * MEMBERS + member)).isoformat(),
                "metrics": {f"k{uuid.uuid4().hex[:12]}": 1 for _ in range(KEYS)},
            }
            for member in range(MEMBERS)
        ]
        self.post("/v1/snapshots", {"snapshots": members}, expected=(202, 429, 503))

    def send_large_snapshots(self, number: int) -> None:
        """Sends a backlog of snapshots of the maximum size, a minute apart."""
        now = datetime.now(UTC)
        metrics = {f"text{each}": TEXT for each in range(LARGE_TEXTS)}
        members = [
            {
                "timestamp": (now - timedelta(minutes=1 + number * LARGE_MEMBERS + member)).isoformat(),
                "metrics": metrics,
            }
            for member in range(LARGE_MEMBERS)
        ]
        self.post("/v1/snapshots", {"snapshots": members})

    def disclose(self) -> None:
        """Requests everything that is stored on it, on a connection of its own."""
        other = replace(self, connection=HTTPConnection("127.0.0.1", self.server.port, timeout=TIMEOUT_S))
        other.post("/v1/disclose", {"action": "disclose", "timestamp": datetime.now(UTC).isoformat()})
        other.connection.close()

    def flood(self) -> None:
        """Sends as many backlogs of invented keys as an install may send at once."""
        for number in range(BACKLOGS):
            self.send_invented_keys(number)

    def erase(self) -> None:
        """Erases itself."""
        self.connection.close()  # the server has closed it if the rollup took long
        self.post("/v1/erase", {"action": "erase", "timestamp": datetime.now(UTC).isoformat()})


Attack = Callable[[], None]


def erase_invented_keys(server: RunningServer) -> Attack:
    """An install with 128,000 invented keys in its history erases itself."""
    stranger = _with_invented_keys(server)
    return stranger.erase


def erase_concurrently(server: RunningServer) -> list[Attack]:
    """Four such installs erase themselves at the same time."""
    return [_with_invented_keys(server).erase for _ in range(ATTACKERS)]


def flood_with_keys(server: RunningServer) -> list[Attack]:
    """Four installs send backlogs of invented keys."""

    return [ConnectedInstall.register(server).flood for _ in range(ATTACKERS)]


def disclose_at_once(server: RunningServer) -> list[Attack]:
    """An install with many large snapshots requests all of them many times at once."""
    stranger = ConnectedInstall.register(server)
    for number in range(BACKLOGS):
        stranger.send_large_snapshots(number)
    return [stranger.disclose for _ in range(DISCLOSURES)]


def erase_long_history(server: RunningServer, rows: int) -> Attack:
    """An install with this many snapshots erases itself."""
    stranger = ConnectedInstall.register(server)
    stranger.post("/v1/snapshot", {"timestamp": datetime.now(UTC).isoformat(), "metrics": {"n": 1}})
    with psycopg2.connect(server.dsn) as connection, connection.cursor() as cursor:
        cursor.execute(INSERT_HISTORY, {"instance_id": stranger.instance_id, "rows": rows})
    connection.close()
    return stranger.erase


def flood_with_gets(server: RunningServer) -> Attack:
    """A client without a token sends requests for an unknown path as fast as they are answered, with wrk."""

    def flood() -> None:
        command = ["wrk", "--threads", "1", "--connections", str(GET_CONNECTIONS), "--duration", f"{GET_SECONDS}s"]
        completed = subprocess.run([*command, f"{server.url}/nowhere"], capture_output=True, text=True, check=False)
        if completed.returncode != 0:
            raise InvalidRun(f"wrk ended with status {completed.returncode}: {completed.stderr.strip()}")

    return flood


def revoke_invented_keys(server: RunningServer) -> Attack:
    """An admin revokes an install with many invented keys."""
    stranger = _with_invented_keys(server)
    return lambda: _admin(server, "POST", f"instances/{stranger.instance_id}/revoke")


def delete_invented_keys(server: RunningServer) -> Attack:
    """An admin deletes an install with many invented keys."""
    stranger = _with_invented_keys(server)
    return lambda: _admin(server, "DELETE", f"instances/{stranger.instance_id}")


def _with_invented_keys(server: RunningServer) -> ConnectedInstall:
    stranger = ConnectedInstall.register(server)
    stranger.flood()
    return stranger


def _admin(server: RunningServer, method: str, path: str) -> None:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)
    connection.request(method, f"/api/v1/admin/{path}", headers={"Authorization": f"Bearer {server.token}"})
    response = connection.getresponse()
    response.read()
    connection.close()
    if response.status not in (200, 204):
        raise InvalidRun(f"{method} {path}: {response.status}")
