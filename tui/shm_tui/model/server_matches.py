"""Lists the instances that a filter selects on the server, so that a table of the newest rows has all of them.

The answer is requested again at most every two seconds while instances change.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from shm_client import ClientError
from shm_tui.model.live_rows import LiveRows
from shm_tui.model.pacing import pause_after
from shm_tui.model.server_filter import NO_SERVER_FILTER, ServerFilter

MAX_INTERVAL_S = 30.0  # between two requests while nothing changes


class ServerMatches:
    """Keeps the matches of a filter in a store.

    `count` is their exact number on the server; None while it is unknown. `is_cut`: the server may have more than the
    store.
    """

    def __init__(self, rows: LiveRows, is_partial: Callable[[], bool]) -> None:
        """`is_partial`: whether the server has instances that the store lacks."""
        self.count: int | None = None
        self.is_cut = False
        self.filter: ServerFilter = NO_SERVER_FILTER
        self._rows, self._store, self._is_partial = rows, rows.store, is_partial
        self._filter_changed = asyncio.Event()
        self._outdated = asyncio.Event()

    @property
    def has_all_matches(self) -> bool:
        """Whether the store has every instance of the fleet that can match the filter."""
        return self.count is not None and self.count <= self._store.limit

    def request(self, server_filter: ServerFilter) -> None:
        """Lists the instances of another filter."""
        if server_filter != self.filter:
            self.filter, self.count, self.is_cut = server_filter, None, False
            self._filter_changed.set()
            self._outdated.set()

    def mark_outdated(self) -> None:
        """An instance changed."""
        self._outdated.set()

    async def run(self) -> None:
        """Requests matches until it is cancelled."""
        while True:
            self._filter_changed.clear()
            self._outdated.clear()
            started_at = monotonic()
            try:
                await self._refresh(self.filter)
                pause_s = pause_after(started_at)
            except ClientError as error:
                pause_s = pause_after(started_at, error)
            with suppress(TimeoutError):
                async with asyncio.timeout(MAX_INTERVAL_S):
                    await self._outdated.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._filter_changed.wait()

    async def _refresh(self, requested: ServerFilter) -> None:
        """Lists the matches. They are counted where the store does not hold all, and shown if that fails."""
        conditions, limit = requested.conditions, self._store.limit
        is_needed = bool(conditions) and self._is_partial() and not self._store.has_window
        matches = await self._rows.client.matching(self._rows.slug, conditions, limit) if is_needed else []
        if requested != self.filter or self._store.has_window or not (is_needed or self._store.kept):
            return
        self._rows.release(self._store.keep(matches))
        self.is_cut = is_needed and len(matches) == limit
        if not self.is_cut:
            self.count = len(matches) if is_needed else None
        self._rows.on_change()
        if self.is_cut:
            await self._count_all(requested)

    async def _count_all(self, requested: ServerFilter) -> None:
        try:
            count = await self._rows.client.count_instances(self._rows.slug, requested.conditions)
        except ClientError:
            if requested == self.filter:
                self.count = None
                self._rows.on_change()
            raise
        if requested == self.filter:
            self.count = count
            self._rows.on_change()
