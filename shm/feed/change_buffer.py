"""The newest part of the feed in memory: what changed last, framed once, for all subscribers of a server process.

Each instance and each application's KPIs are in it once, as their newest state; what that replaces is let go. Whoever
stands before its beginning reads the database until it has caught up.
"""

import asyncio
from bisect import bisect_right
from dataclasses import dataclass
from itertools import islice

from shm.analytics.kpis import ApplicationKpis
from shm.feed.changes import PAGE, Change, Changes, Sort
from shm.feed.frames import InstanceChanged, InstanceRemoved, framed, framed_kpis

MOST_BYTES = 16 * 2**20  # of frames in all: some seconds of a busy fleet, or one burst
MOST_ENTRIES = 50_000
PIECE_BYTES = 256 * 2**10  # of frames in one write: a subscriber that never reads holds on to no more
MOST_PIECES_BYTES = MOST_BYTES  # of pieces kept for others who stand at the same place, until the tail moves


@dataclass(slots=True)
class _Entry:
    """What is told at a place: to everybody, and to those who asked for its application. Empty: nothing."""

    place: int
    cursor: int
    app_slug: str
    to_all: bytes
    to_app: bytes
    since: float  # the loop's time at which it came
    is_kpis: bool = False
    is_replaced: bool = False

    @property
    def size(self) -> int:
        """Its bytes; both frames are the same object where there are two."""
        return len(self.to_app)


@dataclass(frozen=True, slots=True)
class Piece:
    """What a subscriber is to be sent next, and where it stands then."""

    frames: bytes
    place: int
    cursor: int
    made_at: int  # the tail's place then


class Tail:
    """From `begins` on, every change up to `cursor`. Places count entries; they mean something only within one tail."""

    def __init__(self, cursor: int) -> None:
        self.begins = cursor
        self.cursor = cursor
        self.place = 0
        self.failed: type[Exception] | None = None
        self.owed: set[str] = set()  # applications whose KPIs were let go: somebody may have yet to be told
        self.moved = asyncio.Event()  # set, and another one from then on, when there is more
        self._begins_at = 0  # the place that `begins` is at
        self._entries: list[_Entry] = []
        self._newest: dict[tuple[str, str], _Entry] = {}
        self._bytes = 0
        self._replaced = 0  # entries
        self._pieces: dict[tuple[int, str | None], Piece] = {}
        self._pieces_bytes = 0
        self._announced = (self.place, self.cursor)

    def add(self, changes: Changes, now: float) -> None:
        """What changed next, in its order."""
        for change in changes.found:
            to_all, to_app = _frames(change)
            self._append(_Entry(self.place + 1, change.cursor, change.app_slug, to_all, to_app, now), _name(change))
        self.cursor = changes.cursor

    def add_kpis(self, at: int, kpis: ApplicationKpis, now: float) -> None:
        """KPIs that are true at the cursor `at`."""
        frame = framed_kpis(min(at, self.cursor), kpis)
        entry = _Entry(self.place + 1, self.cursor, kpis.app, frame, frame, now, is_kpis=True)
        self._append(entry, ("kpis", kpis.app))

    def skip_to(self, cursor: int) -> None:
        """Nothing is known any more of what came before a cursor."""
        self._entries.clear()
        self._newest.clear()
        self._bytes = self._replaced = 0
        self.place += 1
        self.begins, self._begins_at, self.cursor = cursor, self.place, cursor

    def announce(self) -> None:
        """Wakes whoever waits for what was added since the last time."""
        if self._announced != (self.place, self.cursor):
            self._announced = self.place, self.cursor
            self._shorten()
            self._forget_pieces()
            self.moved.set()
            self.moved = asyncio.Event()

    def fail(self, error: type[Exception]) -> None:
        """It ends: whoever waits for more is to raise that."""
        self.failed = error
        self._entries.clear()
        self._forget_pieces()
        self.moved.set()

    def place_of(self, cursor: int) -> int | None:
        """Where somebody stands who knows all up to a cursor; None before the beginning."""
        if cursor < self.begins:
            return None
        index = bisect_right(self._entries, cursor, key=lambda entry: entry.cursor)
        while index and self._entries[index - 1].is_kpis:  # better told again than not at all
            index -= 1
        return self._entries[index - 1].place if index else self._begins_at

    def stirred_since(self, place: int, app: str | None) -> set[str]:
        """The applications, those that are asked for, of which something changed behind a place."""
        entries = islice(self._entries, self._index(place), None)
        return {entry.app_slug for entry in entries if not entry.is_kpis and app in {None, entry.app_slug}}

    def piece(self, place: int, app: str | None) -> Piece | None:
        """What comes after a place, at most `PIECE_BYTES` or one message; None where that has been let go."""
        if place < self._begins_at:
            return None
        known = self._pieces.get((place, app))
        if known is None or known.made_at != self.place:
            known = self._cut(place, app)
            if self._pieces_bytes > MOST_PIECES_BYTES:
                self._forget_pieces()
            self._pieces[place, app] = known
            self._pieces_bytes += len(known.frames)
        return known

    def waiting_since(self, place: int) -> float | None:
        """The loop's time since which there is something behind a place; None where there is nothing."""
        index = self._index(place)
        return self._entries[index].since if index < len(self._entries) else None

    def _append(self, entry: _Entry, name: tuple[str, str] | None) -> None:
        """Behind all others, in place of the one that tells of the same."""
        if name is not None:
            before = self._newest.get(name)
            if before is not None:
                self._bytes -= before.size
                before.to_all = before.to_app = b""
                before.is_replaced = True
                self._replaced += 1
            self._newest[name] = entry
        self._entries.append(entry)
        self._bytes += entry.size
        self.place = entry.place

    def _shorten(self) -> None:
        """Lets go of what is replaced once it is the larger part, and of the older half of what is too much."""
        if self._replaced > len(self._entries) // 2 + PAGE:
            self._entries = [entry for entry in self._entries if not entry.is_replaced]
            self._replaced = 0
        while self._bytes > MOST_BYTES or len(self._entries) > MOST_ENTRIES:
            gone = self._entries[: (len(self._entries) + 1) // 2]
            del self._entries[: len(gone)]
            self.begins, self._begins_at = gone[-1].cursor, gone[-1].place
            self._bytes -= sum(entry.size for entry in gone)
            self._replaced -= sum(entry.is_replaced for entry in gone)
            self._newest = {name: entry for name, entry in self._newest.items() if entry.place > self._begins_at}
            self.owed.update(entry.app_slug for entry in gone if entry.is_kpis and not entry.is_replaced)

    def _forget_pieces(self) -> None:
        self._pieces.clear()
        self._pieces_bytes = 0

    def _index(self, place: int) -> int:
        return bisect_right(self._entries, place, key=lambda entry: entry.place)

    def _cut(self, place: int, app: str | None) -> Piece:
        frames: list[bytes] = []
        size = 0
        cursor = self.cursor
        for entry in islice(self._entries, self._index(place), None):
            frame = entry.to_all if app is None else entry.to_app if entry.app_slug == app else b""
            if size and size + len(frame) > PIECE_BYTES:
                return Piece(b"".join(frames), place, cursor, self.place)
            frames.append(frame)
            size += len(frame)
            place, cursor = entry.place, entry.cursor
        return Piece(b"".join(frames), self.place, self.cursor, self.place)


def _name(change: Change) -> tuple[str, str] | None:
    """What of it only the newest state is told. That an instance is gone is always told: it may be back elsewhere."""
    if change.item is not None:
        return "instance", change.item.instance_id
    return ("application", change.app_slug) if change.sort is Sort.APPLICATION else None


def _frames(change: Change) -> tuple[bytes, bytes]:
    """What everybody is told, and those who asked for the application."""
    frame = told(change)
    return (b"" if change.sort is Sort.LEFT else frame), frame


def told(change: Change) -> bytes:
    """A change as those are told it who asked for its application."""
    if change.item is not None:
        return framed(InstanceChanged(change.cursor, change.item))
    if change.instance_id is not None:
        return framed(InstanceRemoved(change.cursor, change.instance_id))
    return b""
