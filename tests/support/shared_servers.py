"""What the tests of a module share: a server with its database, and two installs that let a test block its writer.

`module_server` starts the servers; the fixtures `target`, `seeded` and `honest_installs` of conftest return these.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import psycopg2

from shm.db.advisory_locks import Lock
from tests.support.installs import Install
from tests.support.raw_http import RawConnection
from tests.support.server_process import ServerProcess

WAIT_TIMEOUT_S = 60

BATCH = 'EXECUTE "intake.store_batch"'  # part of the SQL of each batch

# Excludes the background jobs, which wait for the same lock.
WAITING = """
    SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database JOIN pg_stat_activity a USING (pid)
    WHERE d.datname = current_database() AND l.locktype = 'advisory' AND NOT l.granted AND position(%s IN a.query) > 0
"""


@dataclass(frozen=True)
class ServerWithDatabase:
    """A server process and the DSN of its database."""

    server: ServerProcess
    database: str

    def fetch_instance(self, instance_id: str) -> Any:
        """The instance from the API, with numbers as decimals."""
        head = f"GET /api/v1/admin/instances/{instance_id} HTTP/1.1\r\nHost: shm.test\r\n"
        token = f"Authorization: {self.server.headers['Authorization']}\r\n\r\n"
        with RawConnection(self.server.port) as reader:
            reader.send((head + token).encode())
            answer = reader.answer()
        assert answer is not None
        assert answer.status == 200, answer
        return json.loads(answer.body, parse_float=Decimal, parse_int=Decimal)

    @contextmanager
    def assert_no_fault(self) -> Iterator[None]:
        """Asserts at its end that the process runs and that its log has no traceback and no rejection by PostgreSQL."""
        before = len(self.server.log)
        yield
        log = self.server.log[before:]
        assert self.server.is_running, log
        assert "Traceback" not in log, log
        assert "refused a snapshot that had passed validation" not in log, log


@dataclass(frozen=True)
class SeededServer:
    """A server with instances of two applications and of each status, and a token; `known` has values for its paths."""

    server: ServerProcess
    known: dict[str, str]


@dataclass(frozen=True, slots=True)
class HonestInstalls:
    """Two honest installs: a snapshot of the first occupies the batch writer, one of the second waits in the queue."""

    first: Install
    second: Install
    database: psycopg2.extensions.cursor

    def block_writer(self) -> None:
        """Blocks all batches until `release_writer`."""
        self.database.execute("SELECT pg_advisory_lock(%s)", [Lock.WRITERS])

    def wait_until_batch_blocked(self) -> None:
        """Returns once a batch of the server waits for the lock."""
        deadline = time.monotonic() + WAIT_TIMEOUT_S
        while self._fetch_value(WAITING, BATCH) == 0:
            assert time.monotonic() < deadline, "no batch waits for the lock"
            time.sleep(0.001)

    def release_writer(self) -> None:
        """Unblocks waiting batches."""
        self.database.execute("SELECT pg_advisory_unlock(%s)", [Lock.WRITERS])

    def stored(self, install: Install, metrics: str | None = None) -> int:
        """The number of stored snapshots of an install, with `metrics` only those with these metrics."""
        found = "SELECT count(*) FROM snapshots WHERE instance_id = %s AND metrics = coalesce(%s::jsonb, metrics)"
        count: int = self._fetch_value(found, install.instance_id, metrics)
        return count

    def count_batches(self, other_metrics: bytes, install: Install) -> int:
        """The number of batches with snapshots of an install or the second install's snapshot with these metrics."""
        count: int = self._fetch_value(
            "SELECT count(DISTINCT received_at) FROM snapshots"  # its default is the time of the transaction
            " WHERE instance_id = %s OR (instance_id = %s AND metrics = %s::jsonb)",
            *(install.instance_id, self.second.instance_id, other_metrics.decode()),
        )
        return count

    def key_of(self, install: Install) -> str:
        """The stored public key of an install."""
        key: str = self._fetch_value(
            "SELECT encode(public_key, 'hex') FROM instances WHERE instance_id = %s", install.instance_id
        )
        return key

    def _fetch_value(self, sql: str, *parameters: object) -> Any:
        self.database.execute(sql, parameters)
        (value,) = self.database.fetchone() or (None,)
        return value
