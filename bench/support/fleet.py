"""Installs with their own keys, and their snapshots: signed before a measurement, each sent once."""

import json
import multiprocessing
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count, islice
from pathlib import Path
from typing import Any

import nacl.bindings
import psycopg2

from shm.db.statements import expand_parts

SEED_SQL = expand_parts((Path(__file__).parent / "fleet.sql").read_text(encoding="utf-8"))
FIRST_SNAPSHOT_AGE = timedelta(days=7)  # within the 30 days that a server accepts; no bench reaches the present

# About 20 metrics, with the system metrics that clients add: a body of 700 bytes.
METRICS = {
    "sys_os": "linux",
    "sys_arch": "amd64",
    "sys_cpu_cores": 8,
    "sys_mode": "docker",
    "sys_go_version": "go1.27.3",
    "app_mem_alloc_mb": 118.25,
    "app_goroutines": 64,
    "app_uptime_h": 211.5,
    "invoices_paid": 911,
    "revenue_eur": 99120.55,
    "users_active": 37,
    "users_total": 112,
    "projects_open": 18,
    "projects_archived": 240,
    "mail": {"sent": 5120, "bounced": 12, "queue_seconds": 0.42},
    "storage_used_percent": 61.5,
    "beta": True,
    "single_sign_on": False,
    "locale": "fr",
    "theme": "high-contrast",
    "database": "postgresql-17",
    "plan": "self-hosted-team",
}


Metrics = Callable[[int], dict[str, Any]]  # of a snapshot, by its number


def usual_metrics(number: int) -> dict[str, Any]:
    """Metrics of a usual application, of which one changes."""
    return {"invoices_sent": number} | METRICS


@dataclass(frozen=True, slots=True)
class Install:
    """An ID and its key pair; `secret` in libsodium's format."""

    instance_id: str
    public: bytes
    secret: bytes


@dataclass(frozen=True, slots=True)
class SignedRequests:
    """Signed requests in files `<path>.0`, `<path>.1`, ...: one for each of wrk's threads."""

    path: Path
    parts: int

    def delete(self) -> None:
        """Deletes the files."""
        for part in range(self.parts):
            self.path.with_name(f"{self.path.name}.{part}").unlink()


class Fleet:
    """Active installs of one application. They take turns in sending; snapshots of one install are `interval` apart."""

    def __init__(self, size: int, metrics: Metrics = usual_metrics, interval: timedelta = timedelta(seconds=1)) -> None:
        self.installs = [make_install() for _ in range(size)]
        self._metrics = metrics
        self._interval = interval
        self._first_snapshot_at = datetime.now(UTC) - FIRST_SNAPSHOT_AGE
        self._next = 0

    def seed(self, dsn: str) -> None:
        """Inserts the installs as active."""
        with psycopg2.connect(dsn) as connection, connection.cursor() as cursor:
            keys = [install.public.hex() for install in self.installs]
            cursor.execute(SEED_SQL, {"ids": [install.instance_id for install in self.installs], "keys": keys})
        connection.close()

    def sign(self, path: Path, number: int, parts: int) -> SignedRequests:
        """Signs the next `number` snapshots of the fleet, in parallel processes, into `parts` files."""
        share = -(-number // parts)
        first, self._next = self._next, self._next + share * parts
        fork = multiprocessing.get_context("fork")  # children inherit the installs and need no pipe
        writers = [
            fork.Process(target=self._write, args=(path.with_name(f"{path.name}.{part}"), first + part, parts, share))
            for part in range(parts)
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
            if writer.exitcode != 0:
                raise RuntimeError(f"Signing ended with the status {writer.exitcode}.")
        return SignedRequests(path, parts)

    def _write(self, file: Path, first: int, step: int, number: int) -> None:
        """Takes every `step`-th snapshot, so that all parts advance through the fleet together."""
        with file.open("wb") as out:
            out.writelines(islice((self._line(index) for index in count(first, step)), number))

    def _line(self, index: int) -> bytes:
        turn, position = divmod(index, len(self.installs))
        install = self.installs[position]
        body = snapshot_body(install.instance_id, self._first_snapshot_at + turn * self._interval, self._metrics(index))
        signature = nacl.bindings.crypto_sign(body, install.secret)[: nacl.bindings.crypto_sign_BYTES]
        return b"%s %s %s\n" % (install.instance_id.encode(), signature.hex().encode(), body)


def snapshot_body(instance_id: str, at: datetime, metrics: dict[str, Any]) -> bytes:
    """The body of a snapshot."""
    body = {
        "instance_id": instance_id,
        "timestamp": at.strftime("%Y-%m-%dT%H:%M:%S.%f") + "003Z",  # nanoseconds, as the Go client sends them
        "metrics": metrics,
        "app_version": "1.4.2",
    }
    return json.dumps(body, separators=(",", ":")).encode()


def signed_bodies(installs: Sequence[Install]) -> Iterator[tuple[bytes, bytes]]:
    """The public key of each install, with a signed body."""
    for number, install in enumerate(installs):
        body = snapshot_body(install.instance_id, datetime.now(UTC), usual_metrics(number))
        yield install.public, nacl.bindings.crypto_sign(body, install.secret)


def make_install() -> Install:
    """An ID and a new key pair."""
    public, secret = nacl.bindings.crypto_sign_seed_keypair(os.urandom(32))
    return Install(str(uuid.uuid4()), public, secret)
