"""Lists the instances that a filter selects on the server, so that a table of the newest rows has all of them.

The answer is requested again at most every two seconds while instances change.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from shm_client import Client, ClientError, Instance
from shm_tui.model.pacing import pause_after
from shm_tui.model.row_store import RowStore
from shm_tui.model.server_filter import NO_SERVER_FILTER, ServerFilter

MAX_INTERVAL_S = 30.0  # between two requests while nothing changes


class ServerMatches:
    """Keeps the matches of a filter in a store. `count` is their exact number on the server; None while unknown."""

    def __init__(
        self,
        client: Client,
        slug: str | None,
        store: RowStore,
        feed_ids: set[str],
        is_partial: Callable[[], bool],
        on_change: Callable[[], None],
    ) -> None:
        self.count: int | None = None
        self.filter: ServerFilter = NO_SERVER_FILTER
        self._client, self._slug, self._store, self._feed_ids = client, slug, store, feed_ids
        self._is_partial, self._on_change = is_partial, on_change
        self._filter_changed = asyncio.Event()
        self._outdated = asyncio.Event()

    @property
    def has_all_matches(self) -> bool:
        """Whether the store has every instance of the fleet that can match the filter."""
        return self.count is not None and self.count <= self._store.limit

    def request(self, server_filter: ServerFilter) -> None:
        """Lists the instances of another filter."""
        if server_filter != self.filter:
            self.filter, self.count = server_filter, None
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
        conditions = requested.conditions
        matches: list[Instance] = []
        count = None
        if conditions and self._is_partial() and not self._store.has_window:
            matches, count = await asyncio.gather(
                self._client.matching(self._slug, conditions, self._store.limit),
                self._client.count_instances(self._slug, conditions),
            )
        if requested != self.filter or self._store.has_window or (count is None and not self._store.kept):
            return
        gone = self._store.keep(matches)
        for instance_id in gone - self._feed_ids:
            self._store.remove(instance_id)
        self.count = count
        self._on_change()
