"""List, then watch: what there is and each change of it, as long as one listens, whatever the server does meanwhile.

The first page comes at once and the rest behind it, while the feed already runs from the first page's cursor. A lost
connection is taken up again from the last cursor; `resync` lists anew, and what vanished meanwhile is told as removed.
So whoever applies each change to a dict holds what a fresh list shows.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, suppress
from typing import Self

from .api import Api
from .changes import Away, Change, Connected, KpisMoved, Put, Removed
from .errors import (
    AnswerError,
    ClientError,
    RefusedError,
    TooManyInstancesError,
    UnknownApplicationError,
    UnreachableError,
)
from .inbox import Inbox, News
from .known import Known
from .kpis_due import KpisDue
from .listing import Listing
from .messages import InstanceMessage, KpisMessage, RemovedMessage, ResyncMessage
from .model import Kpis, Page

PAGE = 1000  # instances listed at a time, the most that the server gives
AHEAD = 100  # changes that are ready before they are asked for
AGAIN = 2.0  # seconds after which a task that has not ended is told again: a library may have lost the word
BACKOFF_FIRST, BACKOFF_LAST = 0.25, 10.0  # a restarting server is found at once, a dead one is not hammered


class _ListAnewError(ClientError):
    """The server said `resync`."""


class Subscription:
    """The changes of one application's instances (`app`), or of all (None), as an asynchronous iterator.

    `newest`: only so many are listed, those seen last, and hardly more are kept track of; what goes out of that view is
    told as removed. Without it, all are listed, up to MOST_INSTANCES; beyond it TooManyInstancesError is raised.

    A refused token raises RefusedError, and an application that there is not UnknownApplicationError, unless `patient`:
    then these too are waited for, as everything else is. After an error the iteration may be begun anew and goes on
    where it was.

    `page`: instances listed at a time; the first of a small page are there sooner.
    """

    def __init__(
        self,
        api: Api,
        running: "set[Subscription]",  # those that have a task: each adds and removes itself
        app: str | None,
        *,
        newest: int | None,
        patient: bool,
        page: int,
    ) -> None:
        self.app = app
        self._api = api
        self._all_running = running
        self._newest = newest
        self._patient = patient
        self._page = page
        self._known = Known(newest)
        self._listing = Listing(self._known)
        self._kpis_due = KpisDue()
        self._cursor = 0
        self._must_list = True
        self._failures = 0  # since something was told
        self._wake = asyncio.Event()
        self._inbox = Inbox()
        self._told: asyncio.Queue[Change | Exception] = asyncio.Queue(AHEAD)
        self._running: asyncio.Task[None] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change:
        if self._running is None:
            self._told = asyncio.Queue(AHEAD)
            self._running = asyncio.create_task(self._run(self._told))
            self._all_running.add(self)
        told = await self._told.get()
        if isinstance(told, Exception):
            self._end()
            raise told
        return told

    async def aclose(self) -> None:
        """Ends the connection, and the iteration. Another one begins from nothing: let go of what you hold."""
        running = self._end()
        self._must_list = True
        self._known = Known(self._newest)
        self._listing = Listing(self._known)
        while running is not None and not running.done():
            running.cancel()
            await asyncio.wait([running], timeout=AGAIN)

    def list_again(self) -> None:
        """List anew; while the server is away, try now instead of later."""
        self._must_list = True
        self._wake.set()
        self._inbox.wake()

    def _end(self) -> asyncio.Task[None] | None:
        running, self._running = self._running, None
        self._all_running.discard(self)
        return running

    async def _run(self, told: "asyncio.Queue[Change | Exception]") -> None:
        """A task, so that whoever stops listening half-way leaves nothing that only the collector would end."""
        try:
            async with aclosing(self._changes()) as changes:
                async for change in changes:
                    await told.put(change)
        except Exception as error:  # raised where it is taken out
            await told.put(error)
        finally:
            with suppress(asyncio.QueueFull):  # then nobody waits
                told.put_nowait(StopAsyncIteration())

    async def _changes(self) -> AsyncGenerator[Change, None]:
        clock = asyncio.get_running_loop().time
        while True:
            connected = None
            try:
                if self._must_list:
                    for change in self._begun(await self._first_page()):
                        yield change
                for slug in self._kpis_due.slugs() if self.app is None else [self.app]:
                    if (kpis := await self._kpis_of(slug)) is not None:
                        yield KpisMoved(kpis)
                inbox = self._inbox = Inbox()
                async with (
                    self._api.messages(self.app, self._cursor) as messages,
                    inbox.filled(messages, self._listing, self._api.next_page),
                ):
                    connected = clock()
                    yield Connected()
                    while not self._must_list:
                        for change in self._applied(await inbox.next(self._listing.patience)):
                            yield change
            except (RefusedError, UnknownApplicationError) as error:
                if not self._patient:
                    raise
                failure: ClientError = error
            except TooManyInstancesError:
                self._must_list = True
                raise
            except ClientError as error:
                # The same message, or the same cursor, would only say the same again.
                self._must_list = self._must_list or isinstance(error, AnswerError | _ListAnewError)
                failure = error
            else:
                continue
            if connected is not None and clock() - connected > BACKOFF_LAST:
                self._failures = 0
            self._failures += 1
            if isinstance(failure, _ListAnewError) and self._failures == 1:
                continue
            delay = _delay(failure, self._failures)
            self._wake.clear()
            yield Away(failure, delay)
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._wake.wait()

    async def _first_page(self) -> Page:
        self._must_list = False  # whoever wants another one from here on gets it
        try:
            return await self._api.instances(self.app, min(self._page, self._newest or self._page))
        except BaseException:
            self._must_list = True
            raise

    def _begun(self, page: Page) -> Iterator[Change]:
        self._cursor = page.cursor
        self._kpis_due.list_anew(page.cursor)
        yield from self._listing.begin(page)

    def _applied(self, news: News | None) -> Iterator[Change]:
        """What something out of the inbox changes; None where nothing came for a while, or a list is to be begun."""
        match news:
            case Page():
                yield from self._listing.take(news)
                self._inbox.page_taken()
            case InstanceMessage(cursor=cursor, instance=instance):
                self._moved(self._known.application(instance.instance_id), cursor)
                self._moved(instance.app_slug, cursor)
                if self._known.put(instance, cursor):
                    yield Put(instance)
                    yield from map(Removed, self._known.surplus())
            case RemovedMessage(cursor=cursor, instance_id=instance_id):
                self._moved(self._known.application(instance_id), cursor)
                if self._known.remove(instance_id, cursor):
                    yield Removed(instance_id)
            case KpisMessage():
                self._kpis_due.told(news.app, news.cursor)
                yield KpisMoved(news)
            case ResyncMessage(reason=reason):
                raise _ListAnewError(f"the feed begins anew: {reason}")
            case None if not self._must_list:
                yield from self._listing.end()
        if isinstance(news, InstanceMessage | RemovedMessage | KpisMessage):
            self._failures = 0
            self._cursor = max(self._cursor, news.cursor)
            yield from self._listing.told(self._cursor)

    def _moved(self, slug: str | None, cursor: int) -> None:
        if slug and self.app is None:
            self._kpis_due.moved(slug, cursor)

    async def _kpis_of(self, slug: str) -> Kpis | None:
        """Those that the feed may have nothing more to say of."""
        try:
            kpis = await self._api.kpis(slug)
        except UnknownApplicationError:
            if self.app is not None and not self._patient:
                raise
            self._kpis_due.forget(slug)
            return None
        except AnswerError:  # it stays due, and the others' feed goes on
            if self.app is not None:
                raise
            return None
        self._kpis_due.found(slug)
        return kpis


def _delay(error: ClientError, failures: int) -> float:
    """Seconds until the next try; random, so that many do not come back as one."""
    longest: float = min(BACKOFF_LAST, BACKOFF_FIRST * 2 ** min(failures - 1, 10))
    told = error.retry_after if isinstance(error, UnreachableError) else None
    return (told or 0.0) + longest * random.uniform(0.5, 1.0)  # noqa: S311
