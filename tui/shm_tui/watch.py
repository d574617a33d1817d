"""List, then watch: keeps a store and the overview true for as long as it runs, whatever the server does meanwhile.

The first page comes at once and the rest behind it, while the feed already runs from the first page's cursor. A lost
connection is taken up again from the last cursor; `resync` lists anew. Rows stay where they are in between.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from time import monotonic

from .client import Client, Page
from .columns import Moment
from .errors import AnswerError, ConsoleError, RefusedError, UnknownApplicationError
from .model import Application, Changed, Event, Kpis, KpisMoved, Removed, Resync, Stats
from .store import Store

FIRST_PAGE = 200  # more rows than any screen has, few enough to be there at once
NEXT_PAGE = 500  # decoding one holds the loop for about 15 ms
BACKOFF_FIRST, BACKOFF_LAST = 0.25, 10.0  # a restarting server is found at once, a dead one is not hammered
SURVEY_BUSY, SURVEY_IDLE = 2.0, 30.0  # seconds between looks at counts while things change, and while they do not
DEFAULT_WINDOW = 30 * 86400


class Phase(Enum):
    CONNECTING = "connecting"
    LIVE = "live"
    AWAY = "away"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Link:
    """The connection: what it is, since when, and when the next try is (by the monotonic clock)."""

    phase: Phase = Phase.CONNECTING
    since: float = field(default_factory=monotonic)
    next_try: float | None = None
    reason: str = ""


@dataclass(slots=True)
class Overview:
    """What is known of all applications; None means not known yet."""

    stats: Stats | None = None
    applications: list[Application] | None = None


class Watch:
    """One application's instances (`slug`), or all of them (None), kept true. `changed` is called after each news."""

    def __init__(
        self, client: Client, slug: str | None, changed: Callable[[], None], overview: Overview | None = None
    ) -> None:
        self.client = client
        self.slug = slug
        self.overview = overview or Overview()
        self.store = Store()
        self.link = Link()
        self.kpis: Kpis | None = None
        self.listed = False
        self.complete = False
        self._changed = changed
        self._cursor = 0
        self._must_list = True
        self._next: str | None = None
        self._taken = 0  # rows of the list so far, held or waiting
        self._stirred = asyncio.Event()
        self._wake = asyncio.Event()

    def moment(self) -> Moment:
        """What the rows are looked at with, now."""
        window = self.kpis or self.overview.stats
        return Moment(self.client.now(), window.active_window_s if window else DEFAULT_WINDOW)

    def total(self) -> int | None:
        """How many instances there are, held or not."""
        if self.kpis:
            return self.kpis.instances.total
        return self.overview.stats.total_instances if self.overview.stats and not self.slug else None

    def ask_again(self) -> None:
        """List anew; while the server is away, try now instead of later."""
        self._must_list = True
        self._wake.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._survey())
            tasks.create_task(self._follow())

    async def _follow(self) -> None:
        failures = 0
        while True:
            try:
                await self._list()
                async with self.client.feed(self.slug, self._cursor) as events:
                    failures = 0
                    self._set_link(Link(Phase.LIVE))
                    self._stirred.set()
                    await self._watch(events)
            except ConsoleError as error:
                failures += 1
                self._must_list = self._must_list or isinstance(error, AnswerError)  # not the same message again
                await self._wait(error, failures)

    async def _wait(self, error: ConsoleError, failures: int) -> None:
        longest = min(BACKOFF_LAST, BACKOFF_FIRST * 2 ** min(failures - 1, 10))
        delay = longest * random.uniform(0.5, 1.0)  # noqa: S311 - so that many consoles do not come back as one
        phase = Phase.REFUSED if isinstance(error, RefusedError) else Phase.AWAY
        since = self.link.since if self.link.phase in {Phase.AWAY, Phase.REFUSED} else monotonic()
        self._set_link(Link(phase, since, monotonic() + delay, str(error)))
        self._wake.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), delay)

    async def _list(self) -> None:
        """The first page, when there is none to go on from; the KPIs, always."""
        if self._must_list:
            page = await self.client.instances(self.slug, FIRST_PAGE)
            self._must_list = False
            self._cursor = page.cursor
            self.complete = False
            self._taken = 0
            self.store.begin_listing()
            self._take(page)
            self.listed = True
            self._changed()
        await self._look_at_kpis()

    async def _watch(self, events: AsyncIterator[Event]) -> None:
        """Until the feed ends, which raises, or a new list is wanted."""
        self._wake.clear()
        rest, reading, waking = (
            asyncio.create_task(job) for job in (self._list_the_rest(), self._read(events), self._woken())
        )
        try:
            done, _ = await asyncio.wait({reading, waking}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (rest, reading, waking):
                task.cancel()
            await asyncio.gather(rest, reading, waking, return_exceptions=True)

    async def _read(self, events: AsyncIterator[Event]) -> None:
        async for event in events:
            if isinstance(event, Resync):
                self._must_list = True
                return
            self._apply(event)

    async def _woken(self) -> None:
        await self._wake.wait()

    async def _list_the_rest(self) -> None:
        """The pages behind the first, up to what the store holds. A page that fails is asked for again."""
        while self._next is not None and self._taken < self.store.limit:
            try:
                page = await self.client.next_page(self._next)
            except ConsoleError:
                await asyncio.sleep(BACKOFF_LAST / 2)  # the feed says by itself that the server is away
                continue
            self._take(page)
            self._changed()
        if not self.complete:
            self.store.end_listing()
            self.complete = True
            self._changed()

    def _take(self, page: Page) -> None:
        for instance in page.instances:
            self.store.put(instance, page.cursor, told=False)
        self._taken += len(page.instances)
        self._next = page.next

    def _apply(self, event: Event) -> None:
        if isinstance(event, Changed):
            self.store.put(event.instance, event.cursor)
        elif isinstance(event, Removed):
            self.store.remove(event.instance_id, event.cursor)
        elif isinstance(event, KpisMoved) and event.app == self.slug:
            self.kpis = event
        if not isinstance(event, Resync):
            self._cursor = max(self._cursor, event.cursor)
        self._stirred.set()
        self._changed()

    async def _look_at_kpis(self) -> None:
        if self.slug is not None:
            with suppress(UnknownApplicationError):  # nothing has arrived from it yet
                self.kpis = await self.client.kpis(self.slug)
                self._changed()

    async def _survey(self) -> None:
        """Counts of all applications: soon after something changed, now and then when nothing did."""
        while True:
            self._stirred.clear()
            try:
                stats, applications = await asyncio.gather(self.client.stats(), self.client.applications())
                self.overview.stats, self.overview.applications = stats, applications
                self._changed()
            except ConsoleError as error:
                if isinstance(error, AnswerError) and self.link.phase is Phase.LIVE:
                    self._set_link(Link(Phase.LIVE, self.link.since, reason=str(error)))
            await asyncio.sleep(SURVEY_BUSY)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stirred.wait(), SURVEY_IDLE)

    def _set_link(self, link: Link) -> None:
        self.link = link
        self._changed()
