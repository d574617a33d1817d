"""The change feed: one listener for the process, and for each subscriber a cursor and one write in flight.

A notification only says "look again". Each subscriber then reads what changed after its own cursor, as newest states,
so one that reads slowly costs the server a cursor and not a queue, and what it missed is there when it comes back.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec

from shm.database import Database
from shm.items import Changed, Item, Items, Removed
from shm.kpis import ApplicationKpis, Kpis
from shm.settings import Settings

CHANNEL = "shm_feed"
PAGE = 500  # rows read at a time for a subscriber
PAUSE_S = 0.1  # between two looks of a subscriber: a burst becomes newest states
FORGET_PAGE = 1_000  # removals forgotten at a time
TOO_OLD = "This cursor is too old: list again."
KPIS_PAUSE_S = 0.5  # two KPI messages a second for each application

Send = Callable[[bytes], Awaitable[None]]

_encoder = msgspec.json.Encoder(decimal_format="number")


class Hello(msgspec.Struct, tag_field="type", tag="hello"):
    """The first message."""

    cursor: int
    heartbeat_s: int


class InstanceChanged(msgspec.Struct, tag_field="type", tag="instance"):
    """An instance's newest state."""

    cursor: int
    instance: Item


class InstanceRemoved(msgspec.Struct, tag_field="type", tag="removed"):
    """An instance is not among those that were asked for any more."""

    cursor: int
    instance_id: str


class Resync(msgspec.Struct, tag_field="type", tag="resync"):
    """The cursor leads nowhere: list again."""

    reason: str


@dataclass(frozen=True, slots=True)
class _Head:
    cursor: int
    horizon: int


@dataclass(frozen=True, slots=True)
class _Horizon:
    horizon: int


@dataclass(slots=True)
class Subscription:
    """A subscriber's place in the feed."""

    app: str | None
    cursor: int
    look: asyncio.Event = field(default_factory=asyncio.Event)
    woken: float | None = None  # the loop's time at which it was told to look, since it last began to
    telling: float | None = None  # the same of what it is telling now
    stale: set[str] = field(default_factory=set)  # applications whose KPIs it has yet to be told
    kpis_due: float = 0.0  # the loop's time

    def wake(self, now: float) -> None:
        """There may be something to look for."""
        if self.woken is None:
            self.woken = now
        self.look.set()

    def begin(self) -> None:
        """It looks."""
        self.look.clear()
        self.telling, self.woken = self.woken, None

    def lag(self, now: float) -> float:
        """For how many seconds there has been something that it was not told."""
        since = self.woken if self.telling is None else self.telling
        return 0.0 if since is None else now - since


class KpiBoard:
    """KPIs read once for however many subscribers want those of an application at a cursor."""

    def __init__(self, kpis: Kpis) -> None:
        self._kpis = kpis
        self._newest: dict[str, tuple[int, ApplicationKpis]] = {}
        self._reading: dict[str, asyncio.Lock] = {}

    async def at(self, slug: str, cursor: int) -> ApplicationKpis | None:
        """KPIs that are true at `cursor` or later; None if there is no such application."""
        async with self._reading.setdefault(slug, asyncio.Lock()):
            known = self._newest.get(slug)
            if known is None or known[0] < cursor:
                known = await self._kpis.application(slug)
            if known is None:
                return None
            self._newest[slug] = known
            return known[1]


class Feed:
    """The feed of one server process."""

    def __init__(self, database: Database, items: Items, board: KpiBoard, settings: Settings) -> None:
        self._database = database
        self._items = items
        self._board = board
        self._heartbeat_s = int(settings.heartbeat.total_seconds())
        self._memory = settings.feed_memory
        self._subscriptions: dict[int, Subscription] = {}

    async def run(self) -> None:
        """Listens until cancelled, and wakes every subscriber."""
        async for _ in self._database.wakeups(CHANNEL):
            now = asyncio.get_running_loop().time()
            for subscription in self._subscriptions.values():
                subscription.wake(now)

    def lags(self) -> list[float]:
        """For how many seconds each subscriber has been behind; 0 for those that were told everything."""
        now = asyncio.get_running_loop().time()
        return [subscription.lag(now) for subscription in self._subscriptions.values()]

    async def forget_removals(self) -> bool:
        """Forgets removals that are older than `SHM_FEED_MEMORY`, the oldest thousand; whether there were any."""
        parameters = {"memory": self._memory, "most": FORGET_PAGE}
        return bool(await self._database.fetch(_Horizon, "feed.forget_removals", **parameters))

    async def follow(self, app: str | None, since: int | None, send: Send) -> None:
        """Serves one subscriber until cancelled or until `send` raises."""
        head = await self._head()
        lost = None if since is None else _lost(since, head)
        subscription = Subscription(app, head.cursor if since is None or lost else since)
        self._subscriptions[id(subscription)] = subscription
        try:
            await send(_encoder.encode(Hello(subscription.cursor, self._heartbeat_s)))
            if lost:
                await send(_encoder.encode(Resync(lost)))
            subscription.wake(asyncio.get_running_loop().time())
            while True:
                await self._wait(subscription)
                await self._tell_changes(subscription, send)
                await self._tell_kpis(subscription, send)
                subscription.telling = None
                await asyncio.sleep(PAUSE_S)
        finally:
            del self._subscriptions[id(subscription)]

    async def _wait(self, subscription: Subscription) -> None:
        """Until there is something to look for, or KPIs have become due."""
        left = None
        if subscription.stale:
            left = max(0.0, subscription.kpis_due - asyncio.get_running_loop().time())
        try:
            await asyncio.wait_for(subscription.look.wait(), left)
        except TimeoutError:
            return
        subscription.begin()

    async def _tell_changes(self, subscription: Subscription, send: Send) -> None:
        while True:
            page = await self._items.changes(subscription.cursor, subscription.app, PAGE)
            if subscription.cursor < page.horizon:  # it read so slowly that a removal was forgotten meanwhile
                subscription.cursor = page.cursor
                await send(_encoder.encode(Resync(TOO_OLD)))
                return
            for change in page.changed:
                await send(_encoder.encode(_news(change, subscription.app)))
                subscription.cursor = change.cursor
                slug = change.app_slug if isinstance(change, Removed) else change.item.app_slug
                subscription.stale |= {slug, change.left_slug or slug}
            if len(page.changed) < PAGE:
                subscription.cursor = max(subscription.cursor, page.cursor)
                return

    async def _tell_kpis(self, subscription: Subscription, send: Send) -> None:
        now = asyncio.get_running_loop().time()
        if not subscription.stale or now < subscription.kpis_due:
            return
        asked_for = subscription.stale if subscription.app is None else subscription.stale & {subscription.app}
        for slug in sorted(asked_for):
            told = await self._board.at(slug, subscription.cursor)
            if told is not None:
                await send(_kpis_message(subscription.cursor, told))
        subscription.stale.clear()
        subscription.kpis_due = now + KPIS_PAUSE_S

    async def _head(self) -> _Head:
        row = await self._database.fetch_one(_Head, "feed.head")
        assert row is not None  # noqa: S101 - the table always has its one row
        return row


def _lost(since: int, head: _Head) -> str | None:
    """Why a cursor leads nowhere, if it does."""
    if since > head.cursor:
        return "This cursor was never given by this database: list again."
    return TOO_OLD if since < head.horizon else None


def _news(changed: Changed | Removed, app: str | None) -> InstanceChanged | InstanceRemoved:
    """What a change is to somebody who asked for one application: an instance may have left it for another."""
    if isinstance(changed, Removed):
        return InstanceRemoved(changed.cursor, changed.instance_id)
    if app is not None and changed.item.app_slug != app:
        return InstanceRemoved(changed.cursor, changed.item.instance_id)
    return InstanceChanged(changed.cursor, changed.item)


def _kpis_message(cursor: int, kpis: ApplicationKpis) -> bytes:
    """The figures may be newer than `cursor`, which is the subscriber's: what it was told of instances ends there."""
    return _encoder.encode({"type": "kpis", "cursor": cursor} | msgspec.structs.asdict(kpis))
