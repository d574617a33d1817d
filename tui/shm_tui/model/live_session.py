"""Keeps a row store and the overview up to date while it runs.

`shm_client` sends the first page of instances, the following pages, then the changes of the feed; it lists again where
that is necessary. Rows remain in the store meanwhile.
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
    IncompatibleServerError,
    InstanceRemoved,
    InstanceUpdated,
    InvalidResponseError,
    Kpis,
    KpisUpdated,
    Listed,
    RefusedError,
    Stats,
)
from shm_client.cancelling import result_of
from shm_tui.model.description_cache import DescriptionCache
from shm_tui.model.fleet_window import FleetWindow
from shm_tui.model.live_rows import LiveRows
from shm_tui.model.row_store import MAX_ROWS, RowStore
from shm_tui.model.server_matches import ServerMatches
from shm_tui.model.state import Clock

PAGE_SIZE = 200  # instances: more than the rows of any screen, and few enough to arrive at once
MIN_COUNTS_INTERVAL_S = 2.0  # between requests for counts while instances change
MAX_COUNTS_INTERVAL_S = 30.0  # between requests for counts while nothing changes
DEFAULT_ACTIVE_WINDOW_S = 30 * 86400  # until the server has sent its own


class Phase(Enum):
    """The state of the connection."""

    CONNECTING = "connecting"
    LIVE = "live"
    DISCONNECTED = "disconnected"
    ACCESS_DENIED = "access denied"
    SERVER_TOO_OLD = "server too old"
    SERVER_TOO_NEW = "server too new"


@dataclass(frozen=True, slots=True)
class ConnectionStatus:
    """The state of the connection. `since` and `next_try` are times of the monotonic clock."""

    phase: Phase = Phase.CONNECTING
    since: float = field(default_factory=monotonic)
    next_try: float | None = None
    reason: str = ""

    @property
    def is_lost(self) -> bool:
        """Whether the server is unavailable or incompatible, or refuses the token."""
        return self.phase not in {Phase.CONNECTING, Phase.LIVE}


@dataclass(slots=True)
class Overview:
    """Counts of all applications; None until the server has sent them."""

    stats: Stats | None = None
    applications: list[Application] | None = None


class LiveSession:
    """The instances of one application (`slug`), or of all (None), kept up to date by `run`.

    `on_change` is called after every change. `is_listed`: the first page has arrived; `is_complete`: all pages have.
    """

    def __init__(
        self,
        client: Client,
        slug: str | None,
        on_change: Callable[[], None],
        overview: Overview | None = None,
        *,
        max_rows: int = MAX_ROWS,
    ) -> None:
        self.client = client
        self.slug = slug
        self.overview = overview or Overview()
        self.store = RowStore(max_rows)
        self.connection = ConnectionStatus()
        self.kpis: Kpis | None = None
        self.descriptions = DescriptionCache(client, slug, on_change)
        self.is_listed = False
        self.is_complete = False
        self._on_change = on_change
        self._paused_clock: Clock | None = None  # while the session is paused
        self._paused_kpis: Kpis | None = None  # that arrived meanwhile
        self._resumed = asyncio.Event()
        self._resumed.set()
        self._feed = client.feed(slug, newest=self.store.limit, retry_refusals=True, page_size=PAGE_SIZE)
        self._counts_outdated = asyncio.Event()
        rows = LiveRows(client, slug, self.store, on_change)
        self._feed_ids = rows.feed_ids
        self.server_matches = ServerMatches(rows, self.is_partial)
        self.window = FleetWindow(rows, self.is_larger_than_store)

    def clock(self) -> Clock:
        """The server's time now, and the active window; while the session is paused, as they were then."""
        return self._paused_clock or self._clock_now()

    def _clock_now(self) -> Clock:
        source = self.kpis or self.overview.stats
        return Clock(self.client.server_time(), source.active_window_s if source else DEFAULT_ACTIVE_WINDOW_S)

    def total(self) -> int | None:
        """The number of listed instances on the server, unproven ones included; None while it is unknown."""
        if self.kpis:
            return self.kpis.instances.total + self.kpis.instances.unproven
        stats = self.overview.stats
        return stats.total_instances + stats.unproven_instances if stats and not self.slug else None

    def silence_s(self) -> float:
        """Seconds since the server's last sign of life, a message or the answer to a ping."""
        return self._feed.silence_s or 0.0

    def is_partial(self) -> bool:
        """Whether the server has instances that the store lacks."""
        return not self.is_complete or len(self.store.rows) >= self.store.limit

    def is_larger_than_store(self) -> bool:
        """Whether the server has more instances than the store can hold."""
        total = self.total()
        return self.is_listed and total is not None and total > self.store.limit

    def set_paused(self, is_paused: bool) -> None:
        """Pauses rows, ages, KPIs and counts, or shows what arrived meanwhile."""
        self.store.is_paused = is_paused
        self._paused_clock = self._clock_now() if is_paused else None
        if is_paused:
            self._resumed.clear()
            return
        self.kpis, self._paused_kpis = self._paused_kpis or self.kpis, None
        self._counts_outdated.set()
        self._resumed.set()

    def reload(self) -> None:
        """Lists all instances again; while the server is unavailable, retries at once."""
        self._feed.relist()

    async def run(self) -> None:
        """Applies changes until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._poll_counts())
            tasks.create_task(self.server_matches.run())
            tasks.create_task(self.window.run())
            tasks.create_task(self._follow_feed())
            tasks.create_task(self.descriptions.run())

    async def _follow_feed(self) -> None:
        self.store.remove_all()  # the rows of a previous run: the feed lists all instances first
        async with aclosing(self._feed):
            async for event in self._feed:
                self._apply(event)
                self._on_change()

    def _apply(self, event: FeedEvent) -> None:
        match event:
            case InstanceUpdated(instance, changed):
                self.store.put(instance, highlight=changed)
                self._feed_ids.add(instance.instance_id)
                if not changed:
                    return
            case InstanceRemoved(instance_id):
                self._feed_ids.discard(instance_id)
                if instance_id not in self.store.kept:  # else it may only have left the newest ones
                    self.store.remove(instance_id)
            case KpisUpdated(kpis):
                before = self._paused_kpis or self.kpis
                self._set_kpis(kpis)
                self._counts_outdated.set()
                is_same_fleet = before is not None and before.instances.total == kpis.instances.total
                if is_same_fleet and not self.store.filter.is_time_dependent:
                    return  # the passing of time has changed the figures, and no instance
            case Listed(complete):
                self.is_listed, self.is_complete = True, complete
                self.window.sync()
                return
            case Connected():
                self.connection = ConnectionStatus(Phase.LIVE)
                self.descriptions.retry()
            case Disconnected(error, retry_in_s):
                self._set_disconnected(error, retry_in_s)
                return
        self._counts_outdated.set()
        self.server_matches.mark_outdated()
        self.window.mark_outdated()

    def _set_kpis(self, kpis: Kpis) -> None:
        if kpis.app != self.slug:
            return
        if self.store.is_paused and self.kpis is not None:
            self._paused_kpis = kpis
        else:
            self.kpis = kpis

    def _set_disconnected(self, error: ClientError, retry_in_s: float) -> None:
        phase = Phase.ACCESS_DENIED if isinstance(error, RefusedError) else Phase.DISCONNECTED
        if isinstance(error, IncompatibleServerError):
            phase = Phase.SERVER_TOO_OLD if error.is_too_old else Phase.SERVER_TOO_NEW
        since = self.connection.since if self.connection.is_lost else monotonic()
        self.connection = ConnectionStatus(phase, since, monotonic() + retry_in_s, str(error))

    @property
    def _edit_times(self) -> list[tuple[str, datetime | None]]:
        """The last edit of each application of this session. An edit may change the metrics' descriptions."""
        applications = self.overview.applications or []
        return [(app.slug, app.updated_at) for app in applications if self.slug in (None, app.slug)]

    async def _wait_until_resumed(self) -> None:
        if self.overview.stats is not None:
            await self._resumed.wait()

    async def _poll_counts(self) -> None:
        """Requests the counts of all applications: soon after a change, and rarely without one."""
        while True:
            await self._wait_until_resumed()
            self._counts_outdated.clear()
            try:
                stats, applications = await result_of(asyncio.gather(self.client.stats(), self.client.applications()))
                await self._wait_until_resumed()  # a pause may have begun meanwhile
                before, self.overview.stats, self.overview.applications = self._edit_times, stats, applications
                if self._edit_times != before:  # also for the first response: it may be newer than the descriptions
                    self.descriptions.refresh()
                self._on_change()
            except ClientError as error:  # other errors are shown by the feed
                if isinstance(error, InvalidResponseError) and self.connection.phase is Phase.LIVE:
                    self.connection = ConnectionStatus(Phase.LIVE, self.connection.since, reason=str(error))
                    self._on_change()
            await asyncio.sleep(MIN_COUNTS_INTERVAL_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(MAX_COUNTS_INTERVAL_S):
                    await self._counts_outdated.wait()
