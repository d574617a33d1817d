"""Installs that send without end, as real ones do: what was not acknowledged is sent again, to any of the servers.

Whatever was sent and whatever was acknowledged is remembered, so that it can be held against the database afterwards.
Bounded: a sender makes at most `MOST` requests in a run, and no wait is longer than `LIMIT_S`.
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

MOST = 20_000  # requests of a sender in one run
LIMIT_S = 90  # for a condition to come true under load
ANSWER_LIMIT_S = 40  # for one request; a server that is alive and does not answer is a fault
NAP_S = 0.05  # of a sender that was refused or not answered

Key = tuple[str, datetime]
Metrics = Callable[[int], dict[str, Any]]

_decode = msgspec.json.Decoder(float_hook=Decimal).decode


def default_metrics(number: int) -> dict[str, Any]:
    """Every sort of value, and another one in each snapshot."""
    return {
        "n": number,
        "mail": {"sent": 3 * number},
        "wait_avg": number / 8,
        "beta": number % 2 == 0,
        "plan": f"plan{number % 3}",
        "tags": [number],
    }


class Load:
    """`senders` installs of one application on some servers, each with one request under way at any time."""

    def __init__(self, urls: Sequence[str], senders: int, metrics: Metrics = default_metrics) -> None:
        self._urls = urls
        self._metrics = metrics
        self._installs = [Install(urls[number % len(urls)]) for number in range(senders)]
        for install in self._installs:
            assert install.register().status_code == 201
            assert install.activate().status_code == 200
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._era = 0
        self._heard: set[tuple[str, str]] = set()
        self.sent: dict[Key, bytes] = {}
        self.acknowledged: list[Key] = []
        self.refusals: Counter[str] = Counter()
        self.faults: list[str] = []  # answers other than a 202 or an honest 503
        self.bytes_sent = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """All installs send as long as the context."""
        self._ended.clear()
        self.renew()
        with ThreadPoolExecutor(len(self._installs)) as pool:
            senders = [pool.submit(self._send, install) for install in self._installs]
            try:
                yield
            finally:
                self._ended.set()
            for sender in senders:
                sender.result()

    def renew(self) -> None:
        """From here on, only requests that begin now count for `goes_on`."""
        with self._lock:
            self._era += 1
            self._heard = set()

    def goes_on(self) -> bool:
        """Whether every install had a snapshot acknowledged by every server since `renew`."""
        return len(self._heard) == len(self._installs) * len(self._urls)

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Returns once `condition` holds."""
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < deadline, f"never came: {what}; refusals {self.refusals}; {self.faults[:3]}"
            time.sleep(0.005)

    def wait_for_more(self, count: int) -> None:
        """Returns once `count` more snapshots are acknowledged."""
        enough = len(self.acknowledged) + count
        self.wait_for(lambda: len(self.acknowledged) >= enough, f"{count} more acknowledged snapshots")

    def _send(self, install: Install) -> None:
        places = itertools.cycle(self._urls)
        lines = {url: http.client.HTTPConnection(urlsplit(url).netloc, timeout=ANSWER_LIMIT_S) for url in self._urls}
        number, body, at = 0, b"", datetime.now(UTC)
        for url in itertools.islice(places, MOST):
            if not body:
                number, at = number + 1, datetime.now(UTC)
                body = install.snapshot_body(self._metrics(number), at)
                self.sent[install.instance_id, at] = body
            if self._is_acknowledged(install, body, url, lines[url]):
                self.acknowledged.append((install.instance_id, at))
                body = b""
            elif self._ended.wait(NAP_S):
                break
            if self._ended.is_set():
                break
        for line in lines.values():
            line.close()

    def _is_acknowledged(self, install: Install, body: bytes, url: str, line: http.client.HTTPConnection) -> bool:
        """Sends a snapshot once. Anything but a 202 and a 503 that says when to come back is a fault."""
        era = self._era
        try:
            line.request("POST", "/v1/snapshot", body, install.signed(body))
            response = line.getresponse()
        except TimeoutError:
            line.close()
            self.faults.append(f"no answer within {ANSWER_LIMIT_S} s")
            return False
        except (OSError, http.client.HTTPException):
            line.close()
            return False
        try:
            said = response.read()
        except (OSError, http.client.HTTPException):  # killed in the middle of its answer, whose status counts
            line.close()
            said = b""
        with self._lock:
            self.bytes_sent += len(body)
            if response.status == http.client.ACCEPTED:
                if era == self._era:
                    self._heard.add((install.instance_id, url))
                return True
            if response.status == http.client.SERVICE_UNAVAILABLE and int(response.getheader("Retry-After", "0")) > 0:
                self.refusals[_code(said)] += 1
            else:
                self.faults.append(f"{response.status} {said[:200]!r}")
        return False


def _code(said: bytes) -> str:
    """The stable code of a refusal; nothing where the answer was cut off."""
    return str(_decode(said)["code"]) if said else ""


def assert_acknowledged_stored(load: Load, servers: Sequence[ServerProcess], database: str) -> None:
    """Every 202 is there exactly once, as it was sent; nothing else is there; every figure is that of what is there.

    Nobody may be sending.
    """
    assert load.faults == []
    rows = stored_snapshots(database)
    found = {(instance_id, at): metrics for instance_id, at, metrics in rows}
    assert len(found) == len(rows), "a snapshot is stored twice"
    assert set(load.acknowledged) - found.keys() == set(), "acknowledged, and not there"
    for key, metrics in found.items():
        assert _decode(metrics) == _decode(load.sent[key])["metrics"]
    for server in servers:
        assert_matches_oracle(server, database)


def stored_snapshots(database: str) -> list[tuple[str, datetime, str]]:
    """Every raw snapshot, as the table has it."""
    with closing(psycopg2.connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute("SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off")
        cursor.execute("SELECT instance_id::text, snapshot_at, metrics::text FROM snapshots")
        return cursor.fetchall()
