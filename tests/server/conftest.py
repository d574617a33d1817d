"""A server that hostile requests are sent to, and good installs beside them, for all tests of a file."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import psycopg2
import pytest

from shm.locks import Lock
from tests.conftest import admin_cursor, fresh_database
from tests.support import plain_http
from tests.support.installs import Install
from tests.support.raw_http import RawConnection
from tests.support.server_process import ServerProcess

WAIT_LIMIT_S = 20
BATCH = 'EXECUTE "intake.store"'  # is in the SQL of each
WAITING = """
    SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database JOIN pg_stat_activity a USING (pid)
    WHERE d.datname = current_database() AND l.locktype = 'advisory' AND NOT l.granted AND position(%s IN a.query) > 0
"""  # and so not what goes on in the background, which waits for the lock at times of its own


@dataclass(frozen=True)
class Target:
    """A server process and the DSN of its database."""

    server: ServerProcess
    database: str

    def shown(self, instance_id: str) -> Any:
        """The instance as the API shows it, its numbers as they are written."""
        head = f"GET /api/v1/admin/instances/{instance_id} HTTP/1.1\r\nHost: shm.test\r\n"
        token = f"Authorization: {self.server.headers['Authorization']}\r\n\r\n"
        with RawConnection(self.server.port) as reader:
            reader.send((head + token).encode())
            answer = reader.answer()
        assert answer is not None
        assert answer.status == 200, answer
        return json.loads(answer.body, parse_float=Decimal, parse_int=Decimal)

    @contextmanager
    def unharmed(self) -> Iterator[None]:
        """Afterwards the process lives, and its log has no fault of its own and no refusal by PostgreSQL in it."""
        before = len(self.server.log)
        yield
        log = self.server.log[before:]
        assert self.server.is_running, log
        assert "Traceback" not in log, log
        assert "passed the envelope but not the database" not in log, log


@pytest.fixture(scope="module")
def target(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """One server for a file's tests, on a database of its own. It takes snapshots of any age."""
    with fresh_database(postgres) as dsn:
        environment = {"SHM_DB_DSN": dsn, "SHM_MAX_SNAPSHOT_AGE": "36000d", "SHM_RETENTION": "36500d"}
        server = ServerProcess(tmp_path_factory.mktemp("target") / "data", environment)
        server.start()
        try:
            yield Target(server, dsn)
        finally:
            server.terminate()


@dataclass(frozen=True)
class Seeded:
    """A server process with instances of two applications and each status, and a token; `known` is for its paths."""

    server: ServerProcess
    known: dict[str, str]


@pytest.fixture(scope="module")
def seeded(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeded]:
    """One server for a file's tests, on a database of its own."""
    with fresh_database(postgres) as dsn:
        server = ServerProcess(tmp_path_factory.mktemp("seeded") / "data", {"SHM_DB_DSN": dsn})
        server.start()
        try:
            one = Install(server.url).arrived({"invoices": 3, "mail": {"sent": 1.5}, "beta": True, "locale": "fr"})
            Install(server.url, app_name="Kiosk").arrived({"list": [None]}, ago=timedelta(days=1))
            revoked = Install(server.url, app_name="Kiosk").arrived()
            decision = f"{server.url}/api/v1/admin/instances/{revoked.instance_id}/revoke"
            plain_http.post(decision, headers=server.headers).raise_for_status()
            Install(server.url).register()
            said = {"name": "a script", "role": "viewer"}
            token = plain_http.post(f"{server.url}/api/v1/admin/tokens", json=said, headers=server.headers).json()
            known = {"slug": "ledger", "app": "Ledger", "instance_id": one.instance_id, "decision": "approve"}
            yield Seeded(server, known | {"token_id": token["id"]})
        finally:
            server.terminate()


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Two good installs beside the hostile one: the first one's snapshot keeps the writer busy, the second waits."""

    first: Install
    second: Install
    database: psycopg2.extensions.cursor

    def hold_the_writer(self) -> None:
        """No batch is written until `let_go`."""
        self.database.execute("SELECT pg_advisory_lock(%s)", [Lock.WRITERS])

    def wait_for_the_writer(self) -> None:
        """Until a batch of the server waits for the lock."""
        deadline = time.monotonic() + WAIT_LIMIT_S
        while self._one(WAITING, BATCH) == 0:
            assert time.monotonic() < deadline, "no batch is being written"
            time.sleep(0.001)

    def let_go(self) -> None:
        """What waits is written."""
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


@pytest.fixture(scope="module")
def neighbours(target: Target) -> Iterator[Neighbours]:
    """The good installs of a file."""
    with admin_cursor(target.database) as cursor:
        yield Neighbours(Install(target.server.url).arrived(), Install(target.server.url).arrived(), cursor)


@pytest.fixture
def install(target: Target) -> Install:
    """The install that misbehaves: registered, active, and nothing stored of it yet."""
    install = Install(target.server.url)
    assert install.register().status_code == 201
    assert install.activate().status_code == 200
    return install
