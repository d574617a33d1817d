"""Loads what the tiles show beside the live KPIs: their history, and KPIs over a filter or of the past.

The feed sends the present KPIs of an application. The rest is requested: the history once a minute, and KPIs over a
filter after changes, at most every two seconds and for a tenth of the time: the server reads all instances that match.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date
from time import monotonic

from shm_client import Client, ClientError, Kpis, PastKpis
from shm_client.figures import MetricSeries, Period
from shm_tui.model.pacing import MIN_INTERVAL_S, pause_after

MAX_TRENDS = 60  # metrics with a history: more tiles fit on no screen
HISTORY_INTERVAL_S = 60.0  # between two requests for the history
TYPING_PAUSE_S = 0.4  # after a change of the filter, which is usually typed


@dataclass(frozen=True, slots=True)
class TileRequest:
    """What the tiles are of: an application (None: all), a day or now, the conditions of a filter, and the range."""

    slug: str | None = None
    at: date | None = None
    conditions: tuple[str, ...] = ()
    range: Period = "30d"

    @property
    def is_filtered(self) -> bool:
        """Whether the tiles are of the instances that a filter selects. The past has no filter."""
        return bool(self.conditions) and self.at is None


@dataclass(frozen=True, slots=True)
class TileData:
    """The answers to a request; None: not there yet. `error`: why the last request failed."""

    request: TileRequest = TileRequest()
    filtered: Kpis | None = None
    past: PastKpis | None = None
    series: MetricSeries | None = None
    error: str = ""


class TileSession:
    """Keeps the data of the tiles up to date while it runs. `keys` are the metrics of the application."""

    def __init__(self, client: Client, keys: Callable[[], Sequence[str]], on_change: Callable[[], None]) -> None:
        self.data = TileData()
        self.is_paused = False  # data that are there are not requested again
        self._client = client
        self._keys = keys
        self._on_change = on_change
        self._wake = asyncio.Event()
        self._is_outdated = False
        self._refresh_at = 0.0  # the monotonic time before which KPIs over a filter are not requested again
        self._history_at = 0.0  # the monotonic time at which the history is requested again

    def request(self, request: TileRequest) -> None:
        """Shows something else. Data of another request are never shown for it."""
        if request != self.data.request:
            same_history = replace(request, conditions=()) == replace(self.data.request, conditions=())
            self.data = TileData(request, series=self.data.series if same_history and not request.is_filtered else None)
            self._refresh_at, self._history_at = monotonic() + TYPING_PAUSE_S, 0.0
            self._is_outdated = request.is_filtered
            self._wake.set()

    def mark_outdated(self) -> None:
        """New KPIs arrived: those over a filter may have changed too, and the first ones name the metrics."""
        if self.data.request.is_filtered and not self._is_outdated:
            self._is_outdated = True
            self._wake.set()
        elif self.data.series is None:
            self._wake.set()

    def reload(self) -> None:
        """Requests again at once: the user or a new connection does not wait for the end of a pause."""
        self._is_outdated = self.data.request.is_filtered
        self._refresh_at = self._history_at = 0.0
        self._wake.set()

    def set_paused(self, is_paused: bool) -> None:
        """Holds the data of a request that are there, or requests them again."""
        self.is_paused = is_paused
        if not is_paused:
            self.reload()

    async def run(self) -> None:
        """Requests data until it is cancelled."""
        while True:
            self._wake.clear()
            request, started_at = self.data.request, monotonic()
            try:
                pause_s = await self._step(request)
            except ClientError as error:
                pause_s = HISTORY_INTERVAL_S if error.is_final else pause_after(started_at, error)
                if request == self.data.request:
                    self.data = replace(self.data, error=str(error))
                    self._is_outdated = request.is_filtered
                    self._refresh_at = self._history_at = monotonic() + pause_s
                    self._on_change()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()

    async def _step(self, request: TileRequest) -> float:
        """Requests what is due. Returns the seconds until something is due again without a change."""
        has_data = (self.data.filtered if request.is_filtered else self.data.series) is not None
        if request.slug is None or (self.is_paused and has_data):
            return HISTORY_INTERVAL_S
        if request.is_filtered:
            return await self._load_filtered(request, request.slug)
        return await self._load_history(request, request.slug)

    async def _load_filtered(self, request: TileRequest, slug: str) -> float:
        now = monotonic()
        if self._is_outdated and now >= self._refresh_at:
            self._is_outdated = False
            kpis = await self._client.filtered_kpis(slug, request.conditions)
            if self._show(request, replace(self.data, filtered=kpis, error="")):
                self._refresh_at = monotonic() + pause_after(now)
        return max(0.0, self._refresh_at - monotonic()) if self._is_outdated else HISTORY_INTERVAL_S

    async def _load_history(self, request: TileRequest, slug: str) -> float:
        if (remaining_s := self._history_at - monotonic()) > 0:
            return remaining_s
        keys = self._keys()
        if request.at is not None:
            past = await self._client.past_kpis(slug, request.at)
            self._show(request, replace(self.data, past=past, error=""))
            keys = [kpi.key for kpi in past.kpis] + [flag.key for flag in past.flags]
        if not keys:  # the KPIs have not arrived yet
            return MIN_INTERVAL_S
        series = await self._client.series(slug, request.range, keys[:MAX_TRENDS], request.at)
        if self._show(request, replace(self.data, series=series, error="")):
            self._history_at = monotonic() + HISTORY_INTERVAL_S
        return HISTORY_INTERVAL_S

    def _show(self, request: TileRequest, data: TileData) -> bool:
        """Shows an answer; false if something else has been requested meanwhile, which `run` loads at once."""
        if request != self.data.request:
            return False
        self.data = data
        self._on_change()
        return True
