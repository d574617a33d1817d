"""Installs with keys of their own, and their snapshots: signed before the clock runs, each to be sent once."""

import json
import multiprocessing
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count, islice
from pathlib import Path

import nacl.bindings
import psycopg2

from shm.queries import with_parts

SEED = with_parts((Path(__file__).parent / "fleet.sql").read_text(encoding="utf-8"))
OLDEST = timedelta(days=7)  # the first snapshot's age: well within the 30 days that a server accepts
STEP = timedelta(seconds=1)  # between two snapshots of an install: none of a bench comes up to now

# About 20 metrics, with the system metrics that the clients add by themselves: 700 bytes with its envelope.
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


@dataclass(frozen=True, slots=True)
class Install:
    """An ID and its key pair; `secret` is what libsodium signs with."""

    instance_id: str
    public: bytes
    secret: bytes


@dataclass(frozen=True, slots=True)
class Requests:
    """Signed requests in files `<path>.0`, `<path>.1`, ...: one for each of the driver's threads."""

    path: Path
    parts: int

    def discard(self) -> None:
        """They were sent, or are not wanted."""
        for part in range(self.parts):
            self.path.with_name(f"{self.path.name}.{part}").unlink()


class Fleet:
    """Active installs of one application, known to a database. Its snapshots are taken in turn, one second apart."""

    def __init__(self, size: int) -> None:
        self.installs = [_install() for _ in range(size)]
        self._begins = datetime.now(UTC) - OLDEST
        self._next = 0

    def seed(self, dsn: str) -> None:
        """Makes the installs known and active."""
        with psycopg2.connect(dsn) as connection, connection.cursor() as cursor:
            keys = [install.public.hex() for install in self.installs]
            cursor.execute(SEED, {"ids": [install.instance_id for install in self.installs], "keys": keys})
        connection.close()

    def sign(self, path: Path, number: int, parts: int) -> Requests:
        """Signs the next `number` snapshots of the fleet, in processes side by side, into `parts` files."""
        share = -(-number // parts)
        first, self._next = self._next, self._next + share * parts
        fork = multiprocessing.get_context("fork")  # the installs are there in each, and are not sent through a pipe
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
        return Requests(path, parts)

    def _write(self, file: Path, first: int, step: int, number: int) -> None:
        """Neighbours in time go to different parts, so that all parts move through the fleet together."""
        with file.open("wb") as out:
            out.writelines(islice((self._line(index) for index in count(first, step)), number))

    def _line(self, index: int) -> bytes:
        turn, place = divmod(index, len(self.installs))
        install = self.installs[place]
        body = snapshot(install.instance_id, self._begins + turn * STEP, index)
        signature = nacl.bindings.crypto_sign(body, install.secret)[: nacl.bindings.crypto_sign_BYTES]
        return b"%s %s %s\n" % (install.instance_id.encode(), signature.hex().encode(), body)


def snapshot(instance_id: str, at: datetime, number: int) -> bytes:
    """The body of a snapshot, with a counter that moves."""
    said = {
        "instance_id": instance_id,
        "timestamp": at.strftime("%Y-%m-%dT%H:%M:%S.%f") + "003Z",  # nanoseconds, as the Go client sends them
        "metrics": {"invoices_sent": number} | METRICS,
        "app_version": "1.4.2",
    }
    return json.dumps(said, separators=(",", ":")).encode()


def signed_bodies(installs: Sequence[Install]) -> Iterator[tuple[bytes, bytes]]:
    """A public key, and a signature with its body, of each install."""
    for number, install in enumerate(installs):
        body = snapshot(install.instance_id, datetime.now(UTC), number)
        yield install.public, nacl.bindings.crypto_sign(body, install.secret)


def _install() -> Install:
    public, secret = nacl.bindings.crypto_sign_seed_keypair(os.urandom(32))
    return Install(str(uuid.uuid4()), public, secret)
