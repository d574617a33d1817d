"""Installs that send snapshots continuously and resend each one that was not acknowledged, to any of the servers.

Sent and acknowledged snapshots are recorded, for a comparison with the database afterwards.
Bounded: a sender makes at most `MAX_REQUESTS` requests in a run, and no wait is longer than `WAIT_TIMEOUT_S`.
"""

import http.client
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import msgspec
import psycopg2

from tests.support.installs import Install
from tests.support.oracle import assert_matches_oracle
from tests.support.server_process import ServerProcess

MAX_REQUESTS = 20_000  # requests of a sender in one run
WAIT_TIMEOUT_S = 90  # for a condition to come true under load
RESPONSE_TIMEOUT_S = 60  # for one request; a running server that does not respond is a fault
RETRY_PAUSE_S = 0.05  # of a sender after a refusal or a missing response

Key = tuple[str, datetime]
Metrics = Callable[[int], dict[str, Any]]

_decode = msgspec.json.Decoder(float_hook=Decimal).decode


def default_metrics(number: int) -> dict[str, Any]:
    """Metrics of every kind, with different values in each snapshot."""
    return {
        "n": number,
        "mail": {"sent": 3 * number},
        "wait_avg": number / 8,
        "beta": number % 2 == 0,
        "plan": f"plan{number % 3}",
        "tags": [number],
    }


class Load:
    """`senders` installs of one application on some servers, each with one request in flight at any time."""

    def __init__(
        self,
        urls: Sequence[str],
        senders: int,
        metrics: Metrics = default_metrics,
        rest_s: float = 0.0,
        retry_pause_s: float = RETRY_PAUSE_S,
    ) -> None:
        self.senders = senders
        self._urls = urls
        self._rest_s = rest_s  # the pause of a sender after each acknowledged snapshot
        self._retry_pause_s = retry_pause_s
        self._metrics = metrics
        self._installs = [Install(urls[number % len(urls)]) for number in range(senders)]
        for install in self._installs:
            assert install.register().status_code == 201
            assert install.activate().status_code == 200
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._progress_number = 0
        self._acknowledged_pairs: set[tuple[str, str]] = set()
        self.sent: dict[Key, bytes] = {}
        self.acknowledged: list[Key] = []
        self.refusals: Counter[str] = Counter()
        self.faults: list[str] = []  # responses other than 202, 502 of a proxy, and 503 with Retry-After
        self.bytes_sent = 0
        self.max_attempts = 0  # requests for one snapshot until it was acknowledged

    @contextmanager
    def running(self) -> Iterator[None]:
        """All installs send during the context."""
        self._stopped.clear()
        self.reset_progress()
        with ThreadPoolExecutor(len(self._installs)) as pool:
            senders = [pool.submit(self._send, install) for install in self._installs]
            try:
                yield
            finally:
                self._stopped.set()
            for sender in senders:
                sender.result()

    def reset_progress(self) -> None:
        """Restarts `has_progress`: it counts only requests that begin after this call."""
        with self._lock:
            self._progress_number += 1
            self._acknowledged_pairs = set()

    def has_progress(self) -> bool:
        """Whether every install had a snapshot acknowledged by every server since `reset_progress`."""
        return len(self._acknowledged_pairs) == len(self._installs) * len(self._urls)

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Returns once `condition` is true; fails after `WAIT_TIMEOUT_S`."""
        deadline = time.monotonic() + WAIT_TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline, f"timed out waiting for {what}: {self.refusals}; {self.faults[:3]}"
            time.sleep(0.005)

    def wait_for_more(self, count: int) -> None:
        """Returns once `count` more snapshots are acknowledged."""
        goal = len(self.acknowledged) + count
        self.wait_for(lambda: len(self.acknowledged) >= goal, f"{count} more acknowledged snapshots")

    def _send(self, install: Install) -> None:
        urls = itertools.cycle(self._urls)
        connections = {
            url: http.client.HTTPConnection(urlsplit(url).netloc, timeout=RESPONSE_TIMEOUT_S) for url in self._urls
        }
        number, body, at, attempts = 0, b"", datetime.now(UTC), 0
        for url in itertools.islice(urls, MAX_REQUESTS):
            if not body:
                number, at = number + 1, datetime.now(UTC)
                body = install.snapshot_body(self._metrics(number), at)
                self.sent[install.instance_id, at] = body
                attempts = 0
            attempts += 1
            if self._is_acknowledged(install, body, url, connections[url]):
                self.acknowledged.append((install.instance_id, at))
                self.max_attempts = max(self.max_attempts, attempts)
                body = b""
                if self._rest_s:
                    self._stopped.wait(self._rest_s)
            elif self._stopped.wait(self._retry_pause_s):
                break
            if self._stopped.is_set():
                break
        for connection in connections.values():
            connection.close()

    def _is_acknowledged(self, install: Install, body: bytes, url: str, connection: http.client.HTTPConnection) -> bool:
        """Sends a snapshot once. Any response but 202, 502 and 503 with Retry-After is recorded as a fault."""
        progress_number = self._progress_number
        try:
            connection.request("POST", "/v1/snapshot", body, install.signed(body))
            response = connection.getresponse()
        except TimeoutError:
            connection.close()
            self.faults.append(f"no response within {RESPONSE_TIMEOUT_S} s")
            return False
        except (OSError, http.client.HTTPException):
            connection.close()
            return False
        try:
            content = response.read()
        except (OSError, http.client.HTTPException):  # the server was killed during its response, whose status counts
            connection.close()
            content = b""
        with self._lock:
            self.bytes_sent += len(body)
            if response.status == http.client.ACCEPTED:
                if progress_number == self._progress_number:
                    self._acknowledged_pairs.add((install.instance_id, url))
                return True
            if (
                response.status == http.client.BAD_GATEWAY
            ):  # of a proxy whose server was killed: no server sends it to installs
                self.refusals["bad_gateway"] += 1
            elif response.status == http.client.SERVICE_UNAVAILABLE and int(response.getheader("Retry-After", "0")) > 0:
                self.refusals[_code(content)] += 1
            else:
                self.faults.append(f"{response.status} {content[:200]!r}")
        return False


def _code(content: bytes) -> str:
    """The stable code of a refusal; empty if the response was cut off."""
    return str(_decode(content)["code"]) if content else ""


def assert_acknowledged_stored(load: Load, servers: Sequence[ServerProcess], database: str) -> None:
    """Asserts that each acknowledged snapshot is stored once and unchanged, and that every figure matches the oracle.

    The load must not be running.
    """
    assert load.faults == []
    rows = stored_snapshots(database)
    stored = {(instance_id, at): metrics for instance_id, at, metrics in rows}
    assert len(stored) == len(rows), "a snapshot is stored twice"
    assert set(load.acknowledged) - stored.keys() == set(), "acknowledged, but not stored"
    for key, metrics in stored.items():
        assert _decode(metrics) == _decode(load.sent[key])["metrics"]
    for server in servers:
        assert_matches_oracle(server, database)


def stored_snapshots(database: str) -> list[tuple[str, datetime, str]]:
    """Every row of the snapshots table."""
    with closing(psycopg2.connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute("SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off")
        cursor.execute("SELECT instance_id::text, snapshot_at, metrics::text FROM snapshots")
        return cursor.fetchall()
