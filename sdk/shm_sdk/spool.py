"""Signed snapshots that could not be sent, kept for later within limits of number, size and age.

A file that was damaged on the disk has no valid signature any more and is removed.
"""

import json
import logging
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from shm_sdk.clock import get_clock
from shm_sdk.diagnostics import warn_once
from shm_sdk.files import open_regular_file, write_atomically
from shm_sdk.identity import Identity

FOLDER = "spool"
MAX_SNAPSHOTS = 240  # ten days of an hourly report
MAX_BYTES = 2 * 1024 * 1024
MAX_AGE_S = 29 * 86400.0  # servers refuse a snapshot of 30 days
MAX_NAME_CHARS = 64  # a longer one is not the spool's

log = logging.getLogger("shm_sdk")


class Spooled(NamedTuple):
    """A waiting snapshot. `taken_at` is a Unix time."""

    name: str
    taken_at: float
    signature: str
    body: bytes

    def read_timestamp(self) -> datetime:
        """The time that it says."""
        return datetime.fromisoformat(json.loads(self.body)["timestamp"].replace("Z", "+00:00"))


class Spool:
    """The waiting snapshots of one install, in the shared directory or, without one, in memory."""

    def __init__(self, directory: Path | None) -> None:
        self._folder = directory / FOLDER if directory else None
        self._in_memory: list[Spooled] = []
        self._kept_names: set[str] = set()  # of files that could not be removed

    def add(self, body: bytes, signature: str, sequence: int, min_distance_s: float) -> None:
        """Keeps a snapshot, unless one of the last `min_distance_s` seconds waits already."""
        now = get_clock().timestamp()
        waiting = self._load()
        if waiting and 0 <= now - waiting[-1].taken_at < min_distance_s:
            return  # retries of one report are one snapshot
        added = Spooled(f"{int(now * 1000):016d}-{sequence}", now, signature, body)
        if self._folder is None or not self._write(added, self._folder):
            self._in_memory.append(added)
        self._drop_excess([*waiting, added])

    def load(self, identity: Identity) -> list[Spooled]:
        """The waiting snapshots of this identity, oldest first. All others, and damaged ones, are removed."""
        spooled = self._load()
        kept = [entry for entry in spooled if identity.has_signed(entry.body, entry.signature)]
        others = [entry for entry in spooled if entry not in kept]
        if any(_instance_of(entry) in (None, identity.instance_id) for entry in others):
            log.warning("a telemetry snapshot of an outage is dropped: its file is damaged")
        self.remove(others)
        return kept

    def remove(self, entries: Iterable[Spooled]) -> None:
        """Removes snapshots that were sent, or that cannot be. One whose file stays is not loaded again."""
        for entry in list(entries):
            if self._folder is None or entry in self._in_memory:
                self._in_memory.remove(entry)
                continue
            try:
                (self._folder / entry.name).unlink(missing_ok=True)
            except OSError as error:
                self._kept_names.add(entry.name)
                log.debug("a snapshot in the spool cannot be removed: %s", error.strerror)

    def _load(self) -> list[Spooled]:
        stored = [] if self._folder is None else map(self._read, self._names())
        entries = [*self._in_memory, *(entry for entry in stored if entry is not None)]
        return sorted(entries, key=lambda entry: (entry.taken_at, entry.name))  # a foreign file counts as the oldest

    def _write(self, entry: Spooled, folder: Path) -> bool:
        """Stores it. False where that is not possible."""
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            write_atomically(f"{entry.signature}\n".encode() + entry.body, folder / entry.name, is_durable=False)
        except OSError as error:
            warn_once(f"spool {folder}", "snapshots of an outage are kept in memory only: %s", error.strerror)
            return False
        return True

    def _drop_excess(self, spooled: list[Spooled]) -> None:
        """Removes the oldest beyond the limits."""
        total_bytes, kept = 0, 0
        for entry in reversed(spooled):
            total_bytes += len(entry.body)
            if kept >= MAX_SNAPSHOTS or total_bytes > MAX_BYTES or get_clock().timestamp() - entry.taken_at > MAX_AGE_S:
                break
            kept += 1
        self.remove(spooled[: len(spooled) - kept])

    def _names(self) -> list[str]:
        assert self._folder is not None  # noqa: S101  # the caller has one
        try:
            names = sorted(path.name for path in self._folder.iterdir() if path.name[0].isdigit())
        except OSError:
            return []
        return [name for name in names if len(name) <= MAX_NAME_CHARS and name not in self._kept_names]

    def _read(self, name: str) -> Spooled | None:
        """The snapshot in a file, without a body if it cannot be read. None if the file does not exist any more."""
        assert self._folder is not None  # noqa: S101  # the caller lists it
        taken_at = 0.0
        try:
            taken_at = int(name.partition("-")[0]) / 1000
            with open_regular_file(self._folder / name) as file:
                signature, _, body = file.read(MAX_BYTES).partition(b"\n")
            return Spooled(name, taken_at, signature.decode("ascii"), body)
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            return Spooled(name, taken_at, "", b"")


def _instance_of(entry: Spooled) -> object:
    """The install that a body names, None if it names none."""
    try:
        document = json.loads(entry.body)
    except (ValueError, RecursionError):
        return None
    return document.get("instance_id") if isinstance(document, dict) else None
