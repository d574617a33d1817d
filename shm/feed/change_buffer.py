"""The newest changes in memory, encoded once as frames for all subscribers of a server process.

The buffer holds each instance and each application's KPIs once, as their newest state; older entries for the same
object are emptied. A subscriber whose offset is before the buffer's start reads the database until it has caught up.
"""

import asyncio
from bisect import bisect_right
from dataclasses import dataclass
from itertools import islice

from shm.analytics.kpis import ApplicationKpis
from shm.feed.changes import PAGE_SIZE, Change, ChangeKind, ChangePage
from shm.feed.frames import InstanceChanged, InstanceRemoved, encode_frame, encode_kpis_frame

MAX_BUFFER_BYTES = 16 * 2**20  # of all frames: some seconds of a busy fleet, or one burst of changes
MAX_ENTRIES = 50_000
MAX_CHUNK_BYTES = 256 * 2**10  # of frames in one write: the most memory that a subscriber that never reads occupies
MAX_CHUNK_CACHE_BYTES = MAX_BUFFER_BYTES  # of chunks shared by subscribers at the same offset, until the next change


@dataclass(slots=True)
class _Entry:
    """The frames of one offset: for all subscribers, and for those of its application. An empty frame is not sent."""

    offset: int
    cursor: int
    app_slug: str
    frame_for_all: bytes
    frame_for_app: bytes
    added_at: float  # the loop's time at which the entry was added
    is_kpis: bool = False
    is_replaced: bool = False

    @property
    def size(self) -> int:
        """The entry's size in bytes. Where both frames are set, they are the same object."""
        return len(self.frame_for_app)


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next frames for a subscriber, and the offset and the cursor of the last one."""

    frames: bytes
    end_offset: int
    cursor: int
    built_at: int  # the buffer's end offset when the chunk was built


class ChangeBuffer:
    """The newest states of all that changed after `start_cursor` up to `cursor`.

    An offset is the number of an entry, from 1 on. It is valid in one buffer only.
    """

    def __init__(self, cursor: int) -> None:
        self.start_cursor = cursor
        self.cursor = cursor
        self.end_offset = 0  # of the newest entry
        self.failed: type[Exception] | None = None
        self.kpis_to_republish: set[str] = set()  # applications whose KPIs were dropped before all subscribers had them
        self.advanced = asyncio.Event()  # set when entries are added, and replaced by a new event
        self._start_offset = 0  # the offset of `start_cursor`
        self._entries: list[_Entry] = []
        self._newest: dict[tuple[str, str], _Entry] = {}
        self._bytes = 0
        self._replaced = 0  # entries
        self._chunks: dict[tuple[int, str | None], Chunk] = {}
        self._chunk_bytes = 0
        self._last_wake_up = (self.end_offset, self.cursor)

    def add(self, page: ChangePage, now: float) -> None:
        """Appends a page of changes in their order."""
        for change in page.changes:
            frame_for_all, frame_for_app = _encode_change(change)
            self._append(
                _Entry(self.end_offset + 1, change.cursor, change.app_slug, frame_for_all, frame_for_app, now),
                _object_key(change),
            )
        self.cursor = page.cursor

    def add_kpis(self, cursor: int, kpis: ApplicationKpis, now: float) -> None:
        """Appends KPIs that were read at this cursor."""
        frame = encode_kpis_frame(min(cursor, self.cursor), kpis)
        entry = _Entry(self.end_offset + 1, self.cursor, kpis.app, frame, frame, now, is_kpis=True)
        self._append(entry, ("kpis", kpis.app))

    def skip_to(self, cursor: int) -> None:
        """Drops all entries: the buffer starts again at a cursor."""
        self._entries.clear()
        self._newest.clear()
        self._bytes = self._replaced = 0
        self.end_offset += 1
        self.start_cursor, self._start_offset, self.cursor = cursor, self.end_offset, cursor

    def wake_subscribers(self) -> None:
        """Wakes the subscribers that wait for entries added since the last call."""
        if self._last_wake_up != (self.end_offset, self.cursor):
            self._last_wake_up = self.end_offset, self.cursor
            self._trim()
            self._clear_chunks()
            self.advanced.set()
            self.advanced = asyncio.Event()

    def fail(self, error: type[Exception]) -> None:
        """Ends the buffer: waiting subscribers raise this error."""
        self.failed = error
        self._entries.clear()
        self._clear_chunks()
        self.advanced.set()

    def offset_of(self, cursor: int) -> int | None:
        """The offset of a subscriber that has all changes up to a cursor; None before the start of the buffer."""
        if cursor < self.start_cursor:
            return None
        index = bisect_right(self._entries, cursor, key=lambda entry: entry.cursor)
        while index and self._entries[index - 1].is_kpis:  # sending KPIs twice is safer than not sending them
            index -= 1
        return self._entries[index - 1].offset if index else self._start_offset

    def changed_apps_since(self, offset: int, app: str | None) -> set[str]:
        """The applications, or the one of `app`, with a change after an offset."""
        entries = islice(self._entries, self._index_after(offset), None)
        return {entry.app_slug for entry in entries if not entry.is_kpis and app in {None, entry.app_slug}}

    def next_chunk(self, offset: int, app: str | None) -> Chunk | None:
        """The frames after an offset, at most `MAX_CHUNK_BYTES` or one message; None where they were dropped."""
        if offset < self._start_offset:
            return None
        chunk = self._chunks.get((offset, app))
        if chunk is None or chunk.built_at != self.end_offset:
            chunk = self._build_chunk(offset, app)
            if self._chunk_bytes > MAX_CHUNK_CACHE_BYTES:
                self._clear_chunks()
            self._chunks[offset, app] = chunk
            self._chunk_bytes += len(chunk.frames)
        return chunk

    def waiting_since(self, offset: int) -> float | None:
        """The loop's time at which the first entry after an offset was added; None without one."""
        index = self._index_after(offset)
        return self._entries[index].added_at if index < len(self._entries) else None

    def _append(self, entry: _Entry, key: tuple[str, str] | None) -> None:
        """Appends an entry and empties the older one of the same object."""
        if key is not None:
            previous = self._newest.get(key)
            if previous is not None:
                self._bytes -= previous.size
                previous.frame_for_all = previous.frame_for_app = b""
                previous.is_replaced = True
                self._replaced += 1
            self._newest[key] = entry
        self._entries.append(entry)
        self._bytes += entry.size
        self.end_offset = entry.offset

    def _trim(self) -> None:
        """Drops emptied entries once they are the larger part, and the older half while a limit is exceeded."""
        if self._replaced > len(self._entries) // 2 + PAGE_SIZE:
            self._entries = [entry for entry in self._entries if not entry.is_replaced]
            self._replaced = 0
        while self._bytes > MAX_BUFFER_BYTES or len(self._entries) > MAX_ENTRIES:
            dropped = self._entries[: (len(self._entries) + 1) // 2]
            del self._entries[: len(dropped)]
            self.start_cursor, self._start_offset = dropped[-1].cursor, dropped[-1].offset
            self._bytes -= sum(entry.size for entry in dropped)
            self._replaced -= sum(entry.is_replaced for entry in dropped)
            self._newest = {key: entry for key, entry in self._newest.items() if entry.offset > self._start_offset}
            self.kpis_to_republish.update(
                entry.app_slug for entry in dropped if entry.is_kpis and not entry.is_replaced
            )

    def _clear_chunks(self) -> None:
        self._chunks.clear()
        self._chunk_bytes = 0

    def _index_after(self, offset: int) -> int:
        return bisect_right(self._entries, offset, key=lambda entry: entry.offset)

    def _build_chunk(self, offset: int, app: str | None) -> Chunk:
        frames: list[bytes] = []
        size = 0
        cursor = self.cursor
        for entry in islice(self._entries, self._index_after(offset), None):
            frame = entry.frame_for_all if app is None else entry.frame_for_app if entry.app_slug == app else b""
            if size and size + len(frame) > MAX_CHUNK_BYTES:
                return Chunk(b"".join(frames), offset, cursor, self.end_offset)
            frames.append(frame)
            size += len(frame)
            offset, cursor = entry.offset, entry.cursor
        return Chunk(b"".join(frames), self.end_offset, self.cursor, self.end_offset)


def _object_key(change: Change) -> tuple[str, str] | None:
    """The key of an object whose newest state replaces older ones. Removals have none: an instance may have moved."""
    if change.instance is not None:
        return "instance", change.instance.instance_id
    return ("application", change.app_slug) if change.kind is ChangeKind.APPLICATION else None


def _encode_change(change: Change) -> tuple[bytes, bytes]:
    """The frame for all subscribers, and the one for those of the application."""
    frame = render_change(change)
    return (b"" if change.kind is ChangeKind.LEFT else frame), frame


def render_change(change: Change) -> bytes:
    """A change as the frame for subscribers of its application."""
    if change.instance is not None:
        return encode_frame(InstanceChanged(change.cursor, change.instance))
    if change.instance_id is not None:
        return encode_frame(InstanceRemoved(change.cursor, change.instance_id))
    return b""
