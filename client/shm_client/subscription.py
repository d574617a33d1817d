"""List, then watch: what there is and each change of it, as long as one listens, whatever the server does meanwhile.

The first page comes at once and the rest behind it, while the feed already runs from the first page's cursor. A lost
connection is taken up again from the last cursor; `resync` lists anew, and what vanished meanwhile is told as removed.
So whoever applies each change to a dict holds what a fresh list shows.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Self

from .changes import Away, Change, Connected, KpisMoved, Listed, Put, Removed
from .errors import (
    AnswerError,
    ClientError,
    RefusedError,
    TooManyInstancesError,
    UnknownApplicationError,
    UnreachableError,
)
from .known import Known
from .messages import InstanceMessage, KpisMessage, Message, RemovedMessage, ResyncMessage
from .model import Kpis, Page

if TYPE_CHECKING:
    from .client import Client

PAGE = 1000  # instances listed at a time, the most that the server gives
NEXT_PAGE_RETRY = 5.0  # seconds; while the server is away, the feed says so
BACKOFF_FIRST, BACKOFF_LAST = 0.25, 10.0  # a restarting server is found at once, a dead one is not hammered
# Seconds without news, or beyond the list's end, after which the feed has told what moved while the list was read: what
# changes again and again is told as it is last, behind what changed before.
QUIET = 1.0
INBOX = 100  # messages read ahead of whoever listens; beyond it the server waits, and tells newest states
MOST_APPLICATIONS = 5000  # whose KPIs are looked at again after a gap


_SILENCE = "silence"
_News = Message | Page | Exception | str | None


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

    def __init__(self, client: "Client", app: str | None, *, newest: int | None, patient: bool, page: int) -> None:
        self.app = app
        self._client = client
        self._newest = newest
        self._patient = patient
        self._page = page
        self._known = Known(newest)
        self._cursor = 0
        self._must_list = True
        self._next: str | None = None  # the page behind those that were taken
        self._taken = 0  # instances of the list so far
        self._ends_at: int | None = None  # where the feed has to be until what the list did not name is gone
        self._settles_at: float | None = None  # the loop's time, once the feed is there
        self._failures = 0  # since something was told
        self._kpis_due: dict[str, int] = {}  # applications by the cursor of a change that their KPIs must be as new as
        self._kpis_told: set[str] = set()
        self._page_taken = asyncio.Event()
        self._wake = asyncio.Event()
        self._inbox: asyncio.Queue[_News] = asyncio.Queue(INBOX)
        self._running: AsyncGenerator[Change, None] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change:
        if self._running is None:
            self._running = self._changes()
        try:
            return await anext(self._running)
        except BaseException:
            self._running = None
            raise

    async def aclose(self) -> None:
        """Ends the connection. Another iteration lists anew."""
        running, self._running = self._running, None
        self._must_list = True
        if running is not None:
            await running.aclose()

    def list_again(self) -> None:
        """List anew; while the server is away, try now instead of later."""
        self._must_list = True
        self._wake.set()
        with suppress(asyncio.QueueFull):  # then somebody is about to look anyway
            self._inbox.put_nowait(None)

    async def _changes(self) -> AsyncGenerator[Change, None]:
        clock = asyncio.get_running_loop().time
        while True:
            connected = None
            try:
                if self._must_list:
                    for change in self._begun(await self._first_page()):
                        yield change
                async for kpis in self._looked_at():
                    yield self._kpis(kpis)
                async with self._client.messages(self.app, self._cursor) as messages, self._reading(messages):
                    connected = clock()
                    yield Connected()
                    while not self._must_list:
                        for change in self._applied(await self._news()):
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

    # The list.

    async def _first_page(self) -> Page:
        self._must_list = False  # whoever wants another one from here on gets it
        try:
            return await self._client.instances(self.app, min(self._page, self._newest or self._page))
        except BaseException:
            self._must_list = True
            raise

    def _begun(self, page: Page) -> Iterator[Change]:
        self._known.begin()
        self._cursor = page.cursor
        self._taken = 0
        self._ends_at = self._settles_at = None
        self._kpis_due |= dict.fromkeys(self._kpis_told, page.cursor)
        yield from self._listed(page)
        if self._next is not None or self._ends_at is not None:
            yield Listed(complete=False)

    def _listed(self, page: Page) -> Iterator[Change]:
        for instance in page.instances:
            if self._known.put(instance, page.cursor):
                yield Put(instance, told=False)
        self._page_taken.set()
        self._taken += len(page.instances)
        self._next = page.next if self._wants_more(self._taken) else None
        if self._next is None:
            # What reported meanwhile may have moved from a page yet to be read to one that was: the feed tells of it.
            self._ends_at = page.cursor
            if not self._known.missing():
                yield from self._through()

    def _is_settled(self) -> bool:
        """Whether the feed has told all that the list may have missed."""
        if self._ends_at is None or self._cursor < self._ends_at:
            return False
        now = asyncio.get_running_loop().time()
        if self._settles_at is None:
            self._settles_at = now + QUIET
        return now >= self._settles_at or not self._known.missing()

    def _through(self) -> Iterator[Change]:
        self._ends_at = None
        yield from map(Removed, self._known.end())
        yield from map(Removed, self._known.surplus())
        yield Listed(complete=True)

    async def _list_the_rest(self) -> None:
        """The pages behind those that were taken. One that fails because the server is busy is asked for again."""
        following, taken = self._next, self._taken
        while following is not None and self._wants_more(taken):
            try:
                page = await self._client.next_page(following)
            except UnreachableError as error:
                await asyncio.sleep(max(NEXT_PAGE_RETRY, error.retry_after or 0.0))
                continue
            following, taken = page.next, taken + len(page.instances)
            await self._page_taken.wait()  # however slowly they are taken, no more than two are held
            self._page_taken.clear()
            await self._inbox.put(page)

    def _wants_more(self, taken: int) -> bool:
        return self._newest is None or taken < self._newest

    # The feed.

    @asynccontextmanager
    async def _reading(self, messages: AsyncIterator[Message]) -> AsyncIterator[None]:
        """Messages, and the rest of the list, come into the inbox while the context lasts."""
        self._inbox = inbox = asyncio.Queue[_News](INBOX)
        self._page_taken.set()

        async def read() -> None:
            async for message in messages:
                await inbox.put(message)

        async def reported(job: Callable[[], Awaitable[None]]) -> None:
            try:
                await job()
            except Exception as error:  # raised where it is taken out
                await inbox.put(error)

        tasks = [asyncio.create_task(reported(job)) for job in (read, self._list_the_rest)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _news(self) -> _News:
        """What comes next; _SILENCE where a list is about to end and nothing comes."""
        try:
            async with asyncio.timeout(None if self._ends_at is None else QUIET):
                return await self._inbox.get()
        except TimeoutError:
            return _SILENCE

    def _applied(self, news: _News) -> Iterator[Change]:
        """What something out of the inbox changes."""
        match news:
            case Page():
                yield from self._listed(news)
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
                if self._kpis_due.get(news.app, 0) <= news.cursor:
                    self._kpis_due.pop(news.app, None)
                yield self._kpis(news)
            case ResyncMessage(reason=reason):
                raise _ListAnewError(f"the feed begins anew: {reason}")
            case Exception():
                raise news
            case str() if self._ends_at is not None:
                yield from self._through()
        if isinstance(news, InstanceMessage | RemovedMessage | KpisMessage):
            self._failures = 0
            self._cursor = max(self._cursor, news.cursor)
            if self._is_settled():
                yield from self._through()

    # KPIs.

    def _moved(self, slug: str | None, cursor: int) -> None:
        """KPIs of this application are about to come; a connection that is lost before leaves them due."""
        if slug and self.app is None and len(self._kpis_due) < MOST_APPLICATIONS:
            self._kpis_due[slug] = cursor

    def _kpis(self, kpis: Kpis) -> KpisMoved:
        if len(self._kpis_told) < MOST_APPLICATIONS:
            self._kpis_told.add(kpis.app)
        return KpisMoved(kpis)

    async def _looked_at(self) -> AsyncIterator[Kpis]:
        """The KPIs that the feed may have nothing more to say of: those of the one application, and those due."""
        if self.app is not None:
            self._kpis_due = {self.app: self._cursor}
        for slug in list(self._kpis_due):
            try:
                kpis = await self._client.kpis(slug)
            except UnknownApplicationError:
                if self.app is not None and not self._patient:
                    raise
            else:
                yield kpis
            del self._kpis_due[slug]


def _delay(error: ClientError, failures: int) -> float:
    """Seconds until the next try; random, so that many do not come back as one."""
    longest: float = min(BACKOFF_LAST, BACKOFF_FIRST * 2 ** min(failures - 1, 10))
    told = error.retry_after if isinstance(error, UnreachableError) else None
    return (told or 0.0) + longest * random.uniform(0.5, 1.0)  # noqa: S311
