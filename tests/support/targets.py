"""Servers that the tests of a module share, and well-behaved installs to run beside a hostile one."""

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

WAIT_LIMIT_S = 20


BATCH = 'EXECUTE "intake.store_batch"'  # is in the SQL of each


WAITING = """
    SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database JOIN pg_stat_activity a USING (pid)
    WHERE d.datname = current_database() AND l.locktype = 'advisory' AND NOT l.granted AND position(%s IN a.query) > 0
"""  # and so not what goes on in the background, which waits for the lock at times of its own


@dataclass(frozen=True)
class Target:
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
class Seeded:
    """A server process with instances of two applications and each status, and a token; `known` is for its paths."""

    server: ServerProcess
    known: dict[str, str]


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Two good installs beside the hostile one: the first one's snapshot keeps the writer busy, the second waits."""

    first: Install
    second: Install
    database: psycopg2.extensions.cursor

    def block_writer(self) -> None:
        """No batch is written until `release_writer`."""
        self.database.execute("SELECT pg_advisory_lock(%s)", [Lock.WRITERS])

    def wait_until_batch_blocked(self) -> None:
        """Waits until a batch of the server waits for the lock."""
        deadline = time.monotonic() + WAIT_LIMIT_S
        while self._one(WAITING, BATCH) == 0:
            assert time.monotonic() < deadline, "no batch is being written"
            time.sleep(0.001)

    def release_writer(self) -> None:
        """Lets waiting batches be written."""
        self.database.execute("SELECT pg_advisory_unlock(%s)", [Lock.WRITERS])

    def stored(self, install: Install, metrics: str | None = None) -> int:
        """How many snapshots of an install are in the database, with these metrics."""
        found = "SELECT count(*) FROM snapshots WHERE instance_id = %s AND metrics = coalesce(%s::jsonb, metrics)"
        count: int = self._one(found, install.instance_id, metrics)
        return count

    def batches(self, beside: bytes, install: Install) -> int:
        """How many batches hold an install's snapshots and the second neighbour's with these metrics."""
        count: int = self._one(
            "SELECT count(DISTINCT received_at) FROM snapshots"  # its default is the transaction's own time
            " WHERE instance_id = %s OR (instance_id = %s AND metrics = %s::jsonb)",
            *(install.instance_id, self.second.instance_id, beside.decode()),
        )
        return count

    def key_of(self, install: Install) -> str:
        """The public key that the database has of an install."""
        key: str = self._one(
            "SELECT encode(public_key, 'hex') FROM instances WHERE instance_id = %s", install.instance_id
        )
        return key

    def _one(self, sql: str, *parameters: object) -> Any:
        self.database.execute(sql, parameters)
        (value,) = self.database.fetchone() or (None,)
        return value
