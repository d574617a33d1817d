"""Attacks: each prepares an install, and then sends the requests that delay other installs most."""

import subprocess
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection

import psycopg2

from bench.support.connected_install import TIMEOUT_S, ConnectedInstall
from bench.support.errors import InvalidRun
from bench.support.server import RunningServer

BACKLOGS = 5  # as many as an install may send at once
MEMBERS = 100  # of a backlog: the limit
KEYS = 256  # of a snapshot: the limit
ATTACKERS = 4  # installs that act at the same time
DISCLOSURES = 40  # at the same time, of an install with five backlogs of the largest snapshots
LARGE_MEMBERS, LARGE_TEXTS, TEXT = 15, 60, "x" * 1_000  # of such a backlog, which has almost a mebibyte

REFUSED_BACKLOGS, REFUSED_MEMBERS = 100, 250_000  # at the same time, of almost a mebibyte: more members than allowed

GET_CONNECTIONS, GET_SECONDS = 400, 8  # below the limit of connections of an address; longer than the first burst

# Snapshots of one install, a second apart, as if they had been sent: the rollup processes them.
INSERT_HISTORY = """
WITH head AS (UPDATE feed_head SET cursor = cursor + 1 RETURNING cursor)
INSERT INTO snapshots (instance_id, snapshot_at, app_version, metrics, app_slug, cursor)
SELECT %(instance_id)s, now() - number * interval '1 second', '1.0', '{"n": 1}', 'attacker', head.cursor
FROM generate_series(1, %(rows)s) number, head"""


class Attacker(ConnectedInstall):
    """An install that sends the requests that cost most."""

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

    def send_all_keys(self) -> None:
        """Sends a backlog of snapshots, an hour apart, each with the same keys, as many as a snapshot may have."""
        now = datetime.now(UTC)
        metrics = {f"key{number}": number for number in range(KEYS)}
        times = [(now - timedelta(hours=member)).isoformat() for member in range(MEMBERS)]
        self.post("/v1/snapshots", {"snapshots": [{"timestamp": at, "metrics": metrics} for at in times]})

    def send_most_keys(self) -> None:
        """Sends a snapshot with as many keys as one may have."""
        metrics = {f"key{number}": number for number in range(KEYS)}
        self.post("/v1/snapshot", {"timestamp": datetime.now(UTC).isoformat(), "metrics": metrics})

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
    attacker = _with_invented_keys(server)
    return attacker.erase


def erase_concurrently(server: RunningServer) -> list[Attack]:
    """Four such installs erase themselves at the same time."""
    return [_with_invented_keys(server).erase for _ in range(ATTACKERS)]


def flood_with_keys(server: RunningServer) -> list[Attack]:
    """Four installs send backlogs of invented keys."""

    return [Attacker.register(server).flood for _ in range(ATTACKERS)]


def disclose_at_once(server: RunningServer) -> list[Attack]:
    """An install with many large snapshots requests all of them many times at once."""
    attacker = Attacker.register(server)
    for number in range(BACKLOGS):
        attacker.send_large_snapshots(number)
    return [attacker.disclose for _ in range(DISCLOSURES)]


def send_refused_backlogs(server: RunningServer) -> list[Attack]:
    """An install sends backlogs of the maximum size that take the longest to read, many at once."""
    attacker = Attacker.register(server)
    content, headers = attacker.sign({"snapshots": [{}] * REFUSED_MEMBERS})

    def send() -> None:
        other = replace(attacker, connection=HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S))
        other.send("/v1/snapshots", content, headers, expected=(400, 408, 429))
        other.connection.close()

    return [send] * REFUSED_BACKLOGS


def erase_long_history(server: RunningServer, rows: int) -> Attack:
    """An install with this many snapshots erases itself."""
    attacker = Attacker.register(server)
    attacker.post("/v1/snapshot", {"timestamp": datetime.now(UTC).isoformat(), "metrics": {"n": 1}})
    with psycopg2.connect(server.dsn) as connection, connection.cursor() as cursor:
        cursor.execute(INSERT_HISTORY, {"instance_id": attacker.instance_id, "rows": rows})
    connection.close()
    return attacker.erase


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
    attacker = _with_invented_keys(server)

    def revoke() -> None:
        request_as_admin(server, "POST", f"instances/{attacker.instance_id}/revoke")

    return revoke


def delete_invented_keys(server: RunningServer) -> Attack:
    """An admin deletes an install with many invented keys."""
    attacker = _with_invented_keys(server)

    def delete() -> None:
        request_as_admin(server, "DELETE", f"instances/{attacker.instance_id}")

    return delete


def _with_invented_keys(server: RunningServer) -> Attacker:
    attacker = Attacker.register(server)
    attacker.flood()
    return attacker


def request_as_admin(server: RunningServer, method: str, path: str, body: bytes | None = None) -> bytes:
    """Sends a request with the admin token and returns the answer. Raises InvalidRun for a refusal."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)
    connection.request(method, f"/api/v1/admin/{path}", body, {"Authorization": f"Bearer {server.token}"})
    response = connection.getresponse()
    answer = response.read()
    connection.close()
    if response.status not in (200, 202, 204):
        raise InvalidRun(f"{method} {path}: {response.status} {answer[:200]!r}")
    return answer
