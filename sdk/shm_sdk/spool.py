"""Signed snapshots that could not be sent, kept for later within limits of number, size and age."""

import json
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from shm_sdk.clock import get_clock
from shm_sdk.files import write_atomically

FOLDER = "spool"
MAX_SNAPSHOTS = 240  # ten days of an hourly report
MAX_BYTES = 2 * 1024 * 1024
MAX_AGE_S = 29 * 86400.0  # servers refuse a snapshot of 30 days


class Spooled(NamedTuple):
    """A waiting snapshot. `taken_at` is a Unix time."""

    name: str
    taken_at: float
    signature: str
    body: bytes

    def read_timestamp(self) -> datetime:
        """The time that it says. Raises ValueError if it was damaged on the disk."""
        return datetime.fromisoformat(json.loads(self.body)["timestamp"].replace("Z", "+00:00"))


class Spool:
    """The waiting snapshots of one install, in the shared directory or, without one, in memory."""

    def __init__(self, directory: Path | None) -> None:
        self._folder = directory / FOLDER if directory else None
        self._in_memory: list[Spooled] = []

    def add(self, body: bytes, signature: str, sequence: int, min_distance_s: float) -> None:
        """Keeps a snapshot, unless one of the last `min_distance_s` seconds waits already. Raises OSError."""
        now = get_clock().timestamp()
        waiting = self.load()
        if waiting and 0 <= now - waiting[-1].taken_at < min_distance_s:
            return  # retries of one report are one snapshot
        added = Spooled(f"{int(now * 1000):016d}-{sequence}", now, signature, body)
        if self._folder is None:
            self._in_memory.append(added)
        else:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            write_atomically(f"{signature}\n".encode() + body, self._folder / added.name, is_durable=False)
        self._drop_excess([*waiting, added])

    def load(self, instance_id: str | None = None) -> list[Spooled]:
        """The waiting snapshots, oldest first. Those of another identity are removed, if one is given."""
        if self._folder is None:
            spooled = list(self._in_memory)
        else:
            spooled = [entry for entry in map(self._read, self._names()) if entry is not None]
        if instance_id is None:
            return spooled
        kept = [entry for entry in spooled if _instance_of(entry) == instance_id]
        self.remove(entry for entry in spooled if entry not in kept)
        return kept

    def remove(self, entries: Iterable[Spooled]) -> None:
        """Removes snapshots that were sent, or that cannot be."""
        for entry in list(entries):
            if self._folder is None:
                self._in_memory.remove(entry)
            else:
                (self._folder / entry.name).unlink(missing_ok=True)

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
            return sorted(path.name for path in self._folder.iterdir() if path.name[0].isdigit())
        except OSError:
            return []

    def _read(self, name: str) -> Spooled | None:
        assert self._folder is not None  # noqa: S101  # the caller lists it
        try:
            signature, _, body = (self._folder / name).read_bytes().partition(b"\n")
            return Spooled(name, int(name.partition("-")[0]) / 1000, signature.decode("ascii"), body)
        except (OSError, ValueError):
            return None


def _instance_of(entry: Spooled) -> object:
    try:
        document = json.loads(entry.body)
    except (ValueError, RecursionError):
        return None
    return document.get("instance_id") if isinstance(document, dict) else None
