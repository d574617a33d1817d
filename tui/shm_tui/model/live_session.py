"""Keeps a store and the overview true for as long as it runs, whatever the server does meanwhile.

What changes, `shm_client` says: the first page at once and the rest behind it, the feed, and lists anew where one is
needed. Rows stay where they are in between.
"""

import asyncio
from collections.abc import Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from time import monotonic

from shm_client import (
    Application,
    Client,
    ClientError,
    Connected,
    Disconnected,
    FeedEvent,
    InstanceRemoved,
    InstanceUpdated,
    InvalidResponseError,
    Kpis,
    KpisUpdated,
    Listed,
    RefusedError,
    Stats,
)
from shm_tui.model.columns import Moment
from shm_tui.model.descriptions import Descriptions
from shm_tui.model.row_store import Store

PAGE = 200  # more rows than any screen has, few enough to be there at once
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
        self.descriptions = Descriptions(client, slug, changed)
        self.listed = False
        self.complete = False
        self._changed = changed
        self._feed = client.feed(slug, newest=self.store.limit, retry_refusals=True, page_size=PAGE)
        self._stirred = asyncio.Event()

    def moment(self) -> Moment:
        """What the rows are looked at with, now."""
        window = self.kpis or self.overview.stats
        return Moment(self.client.server_time(), window.active_window_s if window else DEFAULT_WINDOW)

    def total(self) -> int | None:
        """How many instances there are, held or not."""
        if self.kpis:
            return self.kpis.instances.total
        return self.overview.stats.total_instances if self.overview.stats and not self.slug else None

    def ask_again(self) -> None:
        """List anew; while the server is away, try now instead of later."""
        self._feed.relist()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._survey())
            tasks.create_task(self._follow())
            tasks.create_task(self.descriptions.run())

    async def _follow(self) -> None:
        self.store.remove_all()  # of a run before this one: the feed begins from nothing
        async with aclosing(self._feed):
            async for change in self._feed:
                self._apply(change)
                self._changed()

    def _apply(self, change: FeedEvent) -> None:
        match change:
            case InstanceUpdated(instance, changed):
                self.store.put(instance, told=changed)
                if not changed:
                    return
            case InstanceRemoved(instance_id):
                self.store.remove(instance_id)
            case KpisUpdated(kpis):
                self.kpis = kpis if kpis.app == self.slug else self.kpis
            case Listed(complete):
                self.listed, self.complete = True, complete
                return
            case Connected():
                self.link = Link(Phase.LIVE)
            case Disconnected(error, retry_in_s):
                self._lose(error, retry_in_s)
                return
        self._stirred.set()

    def _lose(self, error: ClientError, retry_in: float) -> None:
        phase = Phase.REFUSED if isinstance(error, RefusedError) else Phase.AWAY
        since = self.link.since if self.link.phase in {Phase.AWAY, Phase.REFUSED} else monotonic()
        self.link = Link(phase, since, monotonic() + retry_in, str(error))

    @property
    def _edited(self) -> list[tuple[str, datetime | None]]:
        """When the applications that are watched were last edited, which may have changed their overrides."""
        applications = self.overview.applications or []
        return [(one.slug, one.updated_at) for one in applications if self.slug in (None, one.slug)]

    async def _survey(self) -> None:
        """Counts of all applications: soon after something changed, now and then when nothing did."""
        while True:
            self._stirred.clear()
            try:
                stats, applications = await asyncio.gather(self.client.stats(), self.client.applications())
                before, self.overview.stats, self.overview.applications = self._edited, stats, applications
                if before and self._edited != before:
                    self.descriptions.refresh()
                self._changed()
            except ClientError as error:
                if isinstance(error, InvalidResponseError) and self.link.phase is Phase.LIVE:
                    self.link = Link(Phase.LIVE, self.link.since, reason=str(error))
                    self._changed()
            await asyncio.sleep(SURVEY_BUSY)
            with suppress(TimeoutError):
                async with asyncio.timeout(SURVEY_IDLE):
                    await self._stirred.wait()
