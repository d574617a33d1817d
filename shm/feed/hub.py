"""The change feed: a listener and a reader for the process, and for each subscriber a place and one write in flight.

A notification only says "look again". The reader then reads what changed into the tail, and whoever stands in it is
sent what comes behind its place, newest states, framed once for all. Whoever stands before it reads the database until
it has caught up. So a subscriber that reads slowly costs the server a place and not a queue.
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
from shm.feed import changes
from shm.feed.change_buffer import PIECE_BYTES, Tail, told
from shm.feed.changes import PAGE, Changes, Head, Sort
from shm.feed.frames import Hello, Resync, framed
from shm.feed.kpi_publisher import KpiPublisher

CHANNEL = "shm_feed"
PAUSE_S = 0.1  # between two looks: a burst becomes newest states, and a thousand subscribers one write each
FORGET_PAGE = 1_000  # removals forgotten at a time
CATCHING_UP = 4  # subscribers that read the database at a time: less than its pool
TOO_OLD = "This cursor is too old: list again."

logger = logging.getLogger(__name__)
rate_limited = RateLimitedLogger(logger)

Send = Callable[[bytes], Awaitable[None]]


class CursorRegression(ShmError):
    """The database knows less than it has told: whoever comes back with a cursor is told to list again."""


class FeedFailed(ShmError):
    """A fault of the server, which is in its log."""


@dataclass(slots=True, eq=False)
class Subscriber:
    """Where a subscriber stands: what it was told goes up to `cursor`. It has no place while it is behind the tail."""

    app: str | None
    cursor: int
    behind_since: float | None  # the loop's time, where it has no place
    place: int | None = None


class Feed:
    """The feed of one server process."""

    def __init__(self, database: Database, kpis: KpiReader, settings: Settings) -> None:
        self._database = database
        self._board = KpiPublisher(kpis)
        self._heartbeat_s = int(settings.heartbeat.total_seconds())
        self._memory = settings.feed_memory
        self._subscribers: set[Subscriber] = set()
        self._tail: Tail | None = None  # none while nobody is subscribed
        self._look = asyncio.Event()
        self._unread_since: float | None = None  # the loop's time of the first notification not looked after yet
        self._catching_up = asyncio.Semaphore(CATCHING_UP)

    async def run(self) -> None:
        """Listens, reads and tells until cancelled."""
        async with run_in_background(self._listen(), self._read_on()):
            await self._board.run(self._tell_kpis_of)

    def lags(self) -> list[float]:
        """For how many seconds each subscriber has been behind; 0 for those that were told everything."""
        now = asyncio.get_running_loop().time()
        return [self._lag(subscriber, now) for subscriber in self._subscribers]

    async def forget_removals(self) -> bool:
        """Forgets removals that are older than `SHM_FEED_MEMORY`, the oldest thousand; whether there were any."""
        parameters = {"memory": self._memory, "limit": FORGET_PAGE}
        return await self._database.execute("feed.delete_old_removals", **parameters) > 0

    async def follow(self, app: str | None, since: int | None, send: Send) -> None:
        """Serves one subscriber until cancelled or until `send` raises. Raises DatabaseUnavailable or FeedFailed."""
        head = await changes.head(self._database)
        lost = None if since is None else _lost(since, head)
        cursor = head.cursor if since is None or lost else since
        subscriber = Subscriber(app, cursor, asyncio.get_running_loop().time())
        self._subscribers.add(subscriber)
        try:
            tail = self._tail = self._tail or Tail(head.cursor)
            self._look.set()  # for what has changed since the head was read
            await send(framed(Hello(cursor, self._heartbeat_s)))
            if lost:
                await send(framed(Resync(lost)))
            elif since is not None:  # it may have been cut off between a change and its KPIs
                self._board.want(await changes.recently_changed_apps(self._database, since, app))
            await self._tell(subscriber, tail, send)
        finally:
            self._subscribers.discard(subscriber)
            if not self._subscribers:
                self._tail = None
                self._board.forget()

    async def _listen(self) -> None:
        async for _ in self._database.listen(CHANNEL):
            if self._unread_since is None:
                self._unread_since = asyncio.get_running_loop().time()
            self._look.set()

    async def _read_on(self) -> None:
        """Reads what has changed into the tail, as long as there is one."""
        while True:
            await self._look.wait()
            self._look.clear()
            if self._tail is not None:
                try:
                    await self._read(self._tail)
                except Exception as error:  # whoever is subscribed is told of it, and comes back
                    self._fail(error)
            if not self._look.is_set():
                self._unread_since = None
            await asyncio.sleep(PAUSE_S)

    async def _read(self, tail: Tail) -> None:
        page: Changes | None = None
        while page is None or not page.is_last:
            page = await changes.after(self._database, tail.cursor)
            now = asyncio.get_running_loop().time()
            if page.head < tail.cursor:
                raise CursorRegression("the feed's head went back: the database is another one, or was restored")
            if tail.cursor < page.horizon:  # it could not read for so long that removals were forgotten meanwhile
                tail.skip_to(page.cursor)
            else:
                tail.add(page, now)
            tail.announce()
            self._want({change.app_slug for change in page.found} | tail.owed)
            tail.owed.clear()
            if not page.is_last:
                self._unread_since = now

    def _tell_kpis_of(self, cursor: int, kpis: ApplicationKpis) -> None:
        if self._tail is not None:
            self._tail.add_kpis(cursor, kpis, asyncio.get_running_loop().time())
            self._look.set()  # told with whatever changes meanwhile

    def _want(self, slugs: set[str]) -> None:
        """The KPIs of these applications are to be told, of those that somebody asked for."""
        asked_for = {subscriber.app for subscriber in self._subscribers}
        self._board.want(slugs if None in asked_for else slugs & asked_for)

    def _fail(self, error: Exception) -> None:
        """Ends all feeds, for one that is open and mute would be a lie."""
        away = isinstance(error, DatabaseUnavailable | CursorRegression)
        if away:
            rate_limited.warning("feeds were ended", str(error))
        else:
            logger.error("the feed failed", exc_info=error)
        if self._tail is not None:
            self._tail.fail(DatabaseUnavailable if away else FeedFailed)
            self._tail = None
        self._board.forget()

    async def _tell(self, subscriber: Subscriber, tail: Tail, send: Send) -> None:
        while True:
            if subscriber.place is None:
                await self._catch_up(subscriber, tail, send)
            moved = tail.moved
            if tail.failed is not None:
                raise tail.failed("the feed's reader ended")
            if subscriber.place == tail.place:
                await moved.wait()
                continue
            piece = None if subscriber.place is None else tail.piece(subscriber.place, subscriber.app)
            if piece is None:  # it read so slowly that its place is gone
                subscriber.place, subscriber.behind_since = None, asyncio.get_running_loop().time()
                continue
            if piece.frames:
                await send(piece.frames)
            subscriber.place, subscriber.cursor = piece.place, piece.cursor

    async def _catch_up(self, subscriber: Subscriber, tail: Tail, send: Send) -> None:
        """Gives a place to a subscriber: tells it from the database what the tail does not hold."""
        while tail.cursor < subscriber.cursor and tail.failed is None:
            await tail.moved.wait()
        stirred: set[str] = set()
        most = PAGE
        while (place := tail.place_of(subscriber.cursor)) is None:
            async with self._catching_up:
                page = await changes.after(
                    self._database, subscriber.cursor, app=subscriber.app, until=tail.begins, most=most
                )
            if subscriber.cursor < page.horizon:
                subscriber.cursor, place = tail.cursor, tail.place
                await send(framed(Resync(TOO_OLD)))
                break
            frames, cursor, most = _first_piece(page, subscriber.app)
            stirred |= {change.app_slug for change in page.found if change.cursor <= cursor}
            await send(frames)
            subscriber.cursor = cursor
        subscriber.place = place
        self._board.want(stirred | tail.stirred_since(place, subscriber.app))

    def _lag(self, subscriber: Subscriber, now: float) -> float:
        waiting = subscriber.behind_since
        if subscriber.place is not None:
            waiting = self._tail.waiting_since(subscriber.place) if self._tail else None
        return now - min(now if waiting is None else waiting, now if self._unread_since is None else self._unread_since)


def _first_piece(page: Changes, app: str | None) -> tuple[bytes, int, int]:
    """The frames of as many changes as a write may hold, the cursor that they go up to, and how many to read next."""
    frames: list[bytes] = []
    size = 0
    for place, change in enumerate(page.found):
        frame = b"" if app is None and change.sort is Sort.LEFT else told(change)
        if size and size + len(frame) > PIECE_BYTES:
            return b"".join(frames), page.found[place - 1].cursor, min(PAGE, 2 * place)
        frames.append(frame)
        size += len(frame)
    return b"".join(frames), page.cursor, min(PAGE, 2 * page.most)


def _lost(since: int, head: Head) -> str | None:
    """Why a cursor leads nowhere, if it does."""
    if since > head.cursor:
        return "This cursor was never given by this database: list again."
    return TOO_OLD if since < head.horizon else None
