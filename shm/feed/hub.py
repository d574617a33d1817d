"""The change feed of a server process: one listener, one reader, and an offset for each subscriber.

A notification carries no data. The reader reads the changes into the buffer, and each subscriber is sent the frames
after its offset: newest states, encoded once for all. A subscriber before the buffer's start reads the database
until it has caught up. Each subscriber has one write in flight, so a slow one costs the server an offset and not a
queue.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from shm.analytics.kpis import ApplicationKpis, KpiReader
from shm.core.errors import DatabaseUnavailable, ShmError
from shm.core.logs import RateLimitedLogger
from shm.core.settings import Settings
from shm.core.tasks import run_in_background
from shm.db.database import Database
from shm.feed.change_buffer import MAX_CHUNK_BYTES, ChangeBuffer, render_change
from shm.feed.changes import (
    PAGE_SIZE,
    ChangeKind,
    ChangePage,
    FeedHead,
    read_changes,
    read_head,
    recently_changed_apps,
)
from shm.feed.frames import Hello, Resync, encode_frame
from shm.feed.kpi_publisher import KpiPublisher

CHANNEL = "shm_feed"
READ_INTERVAL_S = 0.1  # between two reads: a burst is reduced to newest states, and each subscriber gets one write
REMOVALS_PAGE_SIZE = 1_000  # removals deleted by one statement
MAX_CATCHING_UP = 4  # subscribers that read the database at the same time: fewer than its pool has connections
CURSOR_TOO_OLD = "This cursor is too old: list again."

logger = logging.getLogger(__name__)
rate_limited = RateLimitedLogger(logger)

Send = Callable[[bytes], Awaitable[None]]


class CursorRegression(ShmError):
    """The feed's cursor went back: the database is another one or was restored. Clients with a cursor get a resync."""


class FeedFailed(ShmError):
    """The feed's reader failed by a fault of the server; the error is in its log."""


@dataclass(slots=True, eq=False)
class Subscriber:
    """A subscriber that has all changes up to `cursor`. It has no offset while it is before the buffer's start."""

    app: str | None
    cursor: int
    behind_since: float | None  # the loop's time at which it lost its offset
    offset: int | None = None


class FeedHub:
    """Serves the subscribers of one server process."""

    def __init__(self, database: Database, kpis: KpiReader, settings: Settings) -> None:
        self._database = database
        self._kpi_publisher = KpiPublisher(kpis)
        self._heartbeat_s = int(settings.heartbeat.total_seconds())
        self._memory = settings.feed_memory
        self._subscribers: set[Subscriber] = set()
        self._buffer: ChangeBuffer | None = None  # None while there is no subscriber
        self._wake_reader = asyncio.Event()
        self._unread_since: float | None = None  # the loop's time of the first unread notification
        self._catch_up_slots = asyncio.Semaphore(MAX_CATCHING_UP)

    async def run(self) -> None:
        """Listens, reads and publishes until cancelled."""
        async with run_in_background(self._listen(), self._run_reader()):
            await self._kpi_publisher.run(self._add_kpis)

    def lags(self) -> list[float]:
        """Seconds that each subscriber is behind; 0 for one that has been sent everything."""
        now = asyncio.get_running_loop().time()
        return [self._lag(subscriber, now) for subscriber in self._subscribers]

    async def delete_old_removals(self) -> bool:
        """Deletes the oldest thousand removals older than `SHM_FEED_MEMORY`. Returns whether there were any."""
        parameters = {"memory": self._memory, "limit": REMOVALS_PAGE_SIZE}
        return await self._database.execute("feed.delete_old_removals", **parameters) > 0

    async def serve_subscriber(self, app: str | None, since: int | None, send: Send) -> None:
        """Serves one subscriber until cancelled or until `send` raises. Raises DatabaseUnavailable or FeedFailed."""
        head = await read_head(self._database)
        resync_reason = None if since is None else _resync_reason(since, head)
        cursor = head.cursor if since is None or resync_reason else since
        subscriber = Subscriber(app, cursor, asyncio.get_running_loop().time())
        self._subscribers.add(subscriber)
        try:
            buffer = self._buffer = self._buffer or ChangeBuffer(head.cursor)
            self._wake_reader.set()  # to read the changes since the head was read
            await send(encode_frame(Hello(cursor, self._heartbeat_s)))
            if resync_reason:
                await send(encode_frame(Resync(resync_reason)))
            elif since is not None:  # its previous connection may have ended between a change and its KPIs
                self._kpi_publisher.request(await recently_changed_apps(self._database, since, app))
            await self._send_changes(subscriber, buffer, send)
        finally:
            self._subscribers.discard(subscriber)
            if not self._subscribers:
                self._buffer = None
                self._kpi_publisher.clear()

    async def _listen(self) -> None:
        async for _ in self._database.listen(CHANNEL):
            if self._unread_since is None:
                self._unread_since = asyncio.get_running_loop().time()
            self._wake_reader.set()

    async def _run_reader(self) -> None:
        """Reads changes into the buffer while there is one."""
        while True:
            await self._wake_reader.wait()
            self._wake_reader.clear()
            if self._buffer is not None:
                try:
                    await self._read(self._buffer)
                except Exception as error:  # the feeds are closed, and their clients reconnect
                    self._fail(error)
            if not self._wake_reader.is_set():
                self._unread_since = None
            await asyncio.sleep(READ_INTERVAL_S)

    async def _read(self, buffer: ChangeBuffer) -> None:
        page: ChangePage | None = None
        while page is None or not page.is_last:
            page = await read_changes(self._database, buffer.cursor)
            now = asyncio.get_running_loop().time()
            if page.head < buffer.cursor:
                raise CursorRegression("the feed's head went back: the database is another one, or was restored")
            if buffer.cursor < page.horizon:  # removals that the reader has not read are deleted
                buffer.skip_to(page.cursor)
            else:
                buffer.add(page, now)
            buffer.wake_subscribers()
            self._request_kpis({change.app_slug for change in page.changes} | buffer.kpis_to_republish)
            buffer.kpis_to_republish.clear()
            if not page.is_last:
                self._unread_since = now

    def _add_kpis(self, cursor: int, kpis: ApplicationKpis) -> None:
        if self._buffer is not None:
            self._buffer.add_kpis(cursor, kpis, asyncio.get_running_loop().time())
            self._wake_reader.set()  # the reader wakes the subscribers after its next read

    def _request_kpis(self, slugs: set[str]) -> None:
        """Requests the KPIs of those of these applications that have a subscriber."""
        subscribed_apps = {subscriber.app for subscriber in self._subscribers}
        self._kpi_publisher.request(slugs if None in subscribed_apps else slugs & subscribed_apps)

    def _fail(self, error: Exception) -> None:
        """Ends all feeds: an open feed that sends nothing would hide the failure."""
        is_expected = isinstance(error, DatabaseUnavailable | CursorRegression)
        if is_expected:
            rate_limited.warning("feeds were ended", str(error))
        else:
            rate_limited.exception("the feed failed", error)
        if self._buffer is not None:
            self._buffer.fail(DatabaseUnavailable if is_expected else FeedFailed)
            self._buffer = None
        self._kpi_publisher.clear()

    async def _send_changes(self, subscriber: Subscriber, buffer: ChangeBuffer, send: Send) -> None:
        while True:
            if subscriber.offset is None:
                await self._catch_up(subscriber, buffer, send)
            advanced = buffer.advanced
            if buffer.failed is not None:
                raise buffer.failed("the feed's reader ended")
            if subscriber.offset == buffer.end_offset:
                await advanced.wait()
                continue
            chunk = None if subscriber.offset is None else buffer.next_chunk(subscriber.offset, subscriber.app)
            if chunk is None:  # its offset was dropped: it read too slowly, or the buffer started again
                subscriber.offset, subscriber.behind_since = None, asyncio.get_running_loop().time()
                continue
            if chunk.frames:
                await send(chunk.frames)
            subscriber.offset, subscriber.cursor = chunk.end_offset, chunk.cursor

    async def _catch_up(self, subscriber: Subscriber, buffer: ChangeBuffer, send: Send) -> None:
        """Sends a subscriber the changes before the buffer's start, from the database, and sets its offset."""
        while buffer.cursor < subscriber.cursor and buffer.failed is None:
            await buffer.advanced.wait()
        changed_apps: set[str] = set()
        limit = PAGE_SIZE
        while (offset := buffer.offset_of(subscriber.cursor)) is None:
            async with self._catch_up_slots:
                page = await read_changes(
                    self._database, subscriber.cursor, app=subscriber.app, until=buffer.start_cursor, limit=limit
                )
            if subscriber.cursor < page.horizon:
                subscriber.cursor, offset = buffer.cursor, buffer.end_offset
                await send(encode_frame(Resync(CURSOR_TOO_OLD)))
                break
            frames, cursor, limit = _first_chunk(page, subscriber.app)
            changed_apps |= {change.app_slug for change in page.changes if change.cursor <= cursor}
            await send(frames)
            subscriber.cursor = cursor
        subscriber.offset = offset
        self._kpi_publisher.request(changed_apps | buffer.changed_apps_since(offset, subscriber.app))

    def _lag(self, subscriber: Subscriber, now: float) -> float:
        """Seconds since the oldest change that the subscriber lacks, or the oldest notification that is unread."""
        waiting_since = subscriber.behind_since
        if subscriber.offset is not None:
            waiting_since = self._buffer.waiting_since(subscriber.offset) if self._buffer else None
        return now - min(since for since in (waiting_since, self._unread_since, now) if since is not None)


def _first_chunk(page: ChangePage, app: str | None) -> tuple[bytes, int, int]:
    """The frames of as many changes as one write may contain, the cursor after them, and the size of the next page."""
    frames: list[bytes] = []
    size = 0
    for count, change in enumerate(page.changes):
        frame = b"" if app is None and change.kind is ChangeKind.LEFT else render_change(change)
        if size and size + len(frame) > MAX_CHUNK_BYTES:
            return b"".join(frames), page.changes[count - 1].cursor, min(PAGE_SIZE, 2 * count)
        frames.append(frame)
        size += len(frame)
    return b"".join(frames), page.cursor, min(PAGE_SIZE, 2 * page.limit)


def _resync_reason(since: int, head: FeedHead) -> str | None:
    """The reason why a cursor is not valid; None for a valid one."""
    if since > head.cursor:
        return "This cursor is not one of this database: list again."
    return CURSOR_TOO_OLD if since < head.horizon else None
