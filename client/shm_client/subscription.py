"""List, then watch: the current instances and each change of them, across lost connections and server restarts.

The first page arrives at once. The other pages follow while the feed already runs from the first page's cursor. After a
lost connection the feed continues from the last cursor. After `resync` it lists again and reports vanished instances as
removed. A subscriber that applies each event to a dict therefore holds the same data as a fresh list.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, suppress
from time import monotonic
from typing import Self

from .api import Api
from .cancelling import end_tasks
from .errors import (
    ClientError,
    IncompatibleServerError,
    InvalidResponseError,
    RefusedError,
    ServerUnavailableError,
    TooManyInstancesError,
    UnknownApplicationError,
)
from .events import Connected, Disconnected, FeedEvent, InstanceRemoved, InstanceUpdated, KpisUpdated
from .instance_tracker import InstanceTracker
from .listing import Listing
from .message_queue import MessageQueue, QueueItem
from .messages import InstanceMessage, KpisMessage, RemovedMessage, ResyncMessage
from .model import Kpis, Page
from .pending_kpis import PendingKpis

PAGE_SIZE = 1000  # instances; the server's maximum
MAX_QUEUED_EVENTS = 100  # that the subscriber has not read; beyond it the client stops reading messages
MIN_BACKOFF_S = 0.25  # a restarting server is found quickly
MAX_BACKOFF_S = 10.0  # a server that stays down gets few requests


class _ResyncError(ClientError):
    """The server sent `resync`."""


class Subscription:
    """The events of one application's instances (`app`), or of all instances (None), as an asynchronous iterator.

    `newest`: list and track only this many instances, the last seen ones, and a few more. An instance that drops out is
    reported as removed. Without it all are listed, up to MAX_INSTANCES; beyond that TooManyInstancesError is raised.

    `retry_refusals`: retry after a refused token, an incompatible server or an unknown application as after every other
    error. Otherwise they raise RefusedError, IncompatibleServerError and UnknownApplicationError. After an error a new
    iteration continues from the same state.

    `page_size`: instances in a page. A small first page arrives sooner.
    """

    def __init__(
        self,
        api: Api,
        active: "set[Subscription]",  # all subscriptions that have a task; each adds and removes itself
        app: str | None,
        *,
        newest: int | None,
        retry_refusals: bool,
        page_size: int,
    ) -> None:
        self.app = app
        self._api = api
        self._active = active
        self._newest = newest
        self._retry_refusals = retry_refusals
        self._page_size = page_size
        self._tracker = InstanceTracker(newest)
        self._listing = Listing(self._tracker)
        self._pending_kpis = PendingKpis()
        self._cursor = 0
        self._needs_list = True
        self._failures = 0  # since the last message
        self._retry_now = asyncio.Event()
        self._queue = MessageQueue()
        self._events: asyncio.Queue[FeedEvent | Exception] = asyncio.Queue(MAX_QUEUED_EVENTS)
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False  # the present iteration
        self._last_activity_at: float | None = None

    @property
    def silence_s(self) -> float | None:
        """Seconds since the server's last sign of life on the feed; None before the first one."""
        return None if self._last_activity_at is None else monotonic() - self._last_activity_at

    def _record_activity(self) -> None:
        self._last_activity_at = monotonic()

    def __aiter__(self) -> Self:
        self._is_closed = False
        return self

    async def __anext__(self) -> FeedEvent:
        if self._is_closed or (self._task is None and self._api.is_closed):  # while the last event was handled
            raise StopAsyncIteration
        if self._task is None:
            self._events = asyncio.Queue(MAX_QUEUED_EVENTS)
            self._task = asyncio.create_task(self._run(self._events))
            self._active.add(self)
        event = await self._events.get()
        if isinstance(event, Exception):
            self._detach_task()
            raise event
        return event

    async def aclose(self) -> None:
        """Closes the connection and ends the iteration. The next iteration starts with an empty state."""
        task = self._detach_task()
        self._is_closed = self._needs_list = True
        self._tracker = InstanceTracker(self._newest)
        self._listing = Listing(self._tracker)
        if task is not None:
            await end_tasks([task])

    def relist(self) -> None:
        """Lists again. While the server is unavailable, retries at once."""
        self._needs_list = True
        self._retry_now.set()
        self._queue.wake()

    def _detach_task(self) -> asyncio.Task[None] | None:
        task, self._task = self._task, None
        self._active.discard(self)
        return task

    async def _run(self, events: "asyncio.Queue[FeedEvent | Exception]") -> None:
        """Puts the events into the queue.

        It runs as a task of its own: a loop that is left early leaves no generator that only garbage collection ends.
        """
        try:
            async with aclosing(self._generate_events()) as generator:
                async for event in generator:
                    await events.put(event)
        except Exception as error:  # `__anext__` raises it
            await events.put(error)
        finally:
            with suppress(asyncio.QueueFull):  # no reader waits on a full queue
                events.put_nowait(StopAsyncIteration())

    async def _generate_events(self) -> AsyncGenerator[FeedEvent, None]:
        clock = asyncio.get_running_loop().time
        while True:
            connected_at = None
            try:
                if self._needs_list:
                    for event in self._begin_list(await self._fetch_first_page()):
                        yield event
                for slug in self._pending_kpis.slugs() if self.app is None else [self.app]:
                    if (kpis := await self._fetch_kpis(slug)) is not None:
                        yield KpisUpdated(kpis)
                queue = self._queue = MessageQueue()
                async with (
                    self._api.open_messages(self.app, self._cursor, self._record_activity) as messages,
                    queue.fill(messages, self._listing, self._api.next_page),
                ):
                    connected_at = clock()
                    yield Connected()
                    while not self._needs_list:
                        for event in self._apply(await queue.get(self._listing.silence_timeout_s)):
                            yield event
            except (RefusedError, IncompatibleServerError, UnknownApplicationError) as error:
                if not self._retry_refusals:
                    raise
                failure: ClientError = error
            except TooManyInstancesError:
                self._needs_list = True
                raise
            except ClientError as error:
                # A retry from the same cursor would receive the same message again.
                self._needs_list = self._needs_list or isinstance(error, InvalidResponseError | _ResyncError)
                failure = error
            else:
                continue
            if connected_at is not None and clock() - connected_at > MAX_BACKOFF_S:
                self._failures = 0
            self._failures += 1
            if isinstance(failure, _ResyncError) and self._failures == 1:
                continue
            delay_s = _compute_backoff(failure, self._failures)
            self._retry_now.clear()
            yield Disconnected(failure, delay_s)
            with suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._retry_now.wait()

    async def _fetch_first_page(self) -> Page:
        self._needs_list = False  # cleared before the request, so that a `relist` during it is not lost
        try:
            return await self._api.instances(self.app, min(self._page_size, self._newest or self._page_size))
        except BaseException:
            self._needs_list = True
            raise

    def _begin_list(self, page: Page) -> Iterator[FeedEvent]:
        self._cursor = page.cursor
        self._pending_kpis.mark_all_changed(page.cursor)
        yield from self._listing.begin(page)

    def _apply(self, item: QueueItem | None) -> Iterator[FeedEvent]:
        """The events of one message or page. None means silence, or a `relist`."""
        match item:
            case Page():
                yield from self._listing.add_page(item)
                self._queue.confirm_page()
            case InstanceMessage(cursor=cursor, instance=instance):
                self._mark_kpis_changed(self._tracker.application_slug(instance.instance_id), cursor)
                self._mark_kpis_changed(instance.app_slug, cursor)
                if self._tracker.update(instance, cursor):
                    yield InstanceUpdated(instance)
                    yield from map(InstanceRemoved, self._tracker.evict_oldest())
            case RemovedMessage(cursor=cursor, instance_id=instance_id):
                self._mark_kpis_changed(self._tracker.application_slug(instance_id), cursor)
                if self._tracker.remove(instance_id, cursor):
                    yield InstanceRemoved(instance_id)
            case KpisMessage():
                self._pending_kpis.mark_received(item.app, item.cursor)
                yield KpisUpdated(item)
            case ResyncMessage(reason=reason):
                raise _ResyncError(f"the server asked for a new list: {reason}")
            case None if not self._needs_list:
                yield from self._listing.finish()
        if isinstance(item, InstanceMessage | RemovedMessage | KpisMessage):
            self._failures = 0
            self._cursor = max(self._cursor, item.cursor)
            yield from self._listing.advance(self._cursor)

    def _mark_kpis_changed(self, slug: str | None, cursor: int) -> None:
        if slug and self.app is None:
            self._pending_kpis.mark_changed(slug, cursor)

    async def _fetch_kpis(self, slug: str) -> Kpis | None:
        """One application's KPIs: the feed sends them only after the next change."""
        try:
            kpis = await self._api.kpis(slug)
        except UnknownApplicationError:
            if self.app is not None and not self._retry_refusals:
                raise
            self._pending_kpis.forget(slug)
            return None
        except InvalidResponseError:  # the application stays pending, and the feed of the others continues
            if self.app is not None:
                raise
            return None
        self._pending_kpis.mark_fetched(slug)
        return kpis


def _compute_backoff(error: ClientError, failures: int) -> float:
    """Seconds until the next attempt; random, so that many clients do not reconnect at the same moment."""
    max_delay_s: float = min(MAX_BACKOFF_S, MIN_BACKOFF_S * 2 ** min(failures - 1, 10))
    retry_after_s = error.retry_after_s if isinstance(error, ServerUnavailableError) else None
    return (retry_after_s or 0.0) + max_delay_s * random.uniform(0.5, 1.0)  # noqa: S311
