"""Loads the data of an open view, and loads them again in intervals until it is cancelled.

A request that the server refused is not repeated until the user or a new connection asks for it.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from shm_client import Client, ClientError, RefusedError
from shm_tui.model.place import Place
from shm_tui.model.views.base import View

RETRY_S = 5.0  # after a failed request
SEARCH_DELAY_S = 0.25  # without another character: a request for each would cost the server as many scans


class ViewSession:
    """A view at a place. `failure` is that of the last request; the view keeps its last data."""

    def __init__(self, client: Client, view: View, place: Place, on_change: Callable[[], None]) -> None:
        self.view = view
        self.place = place
        self.failure: ClientError | None = None
        self.loaded_at: datetime | None = None  # by the server's clock
        self.is_paused = False  # nothing is loaded
        self._paused_at: datetime | None = None
        self._client = client
        self._on_change = on_change
        self._wake = asyncio.Event()
        self._is_search_wanted = asyncio.Event()
        if place.filter:
            self._is_search_wanted.set()

    @property
    def error(self) -> str:
        """Why the last request failed; "" if it did not."""
        return "" if self.failure is None else str(self.failure)

    @property
    def remedy(self) -> str:
        """What follows a failed request, or what the user can do."""
        if isinstance(self.failure, RefusedError):
            return "It stays refused with this token: :token takes another one, r asks again."
        if self.failure is not None and self.failure.is_final:
            return "It is not asked for again by itself: Backspace goes back, r asks again."
        return "Retrying."

    def now(self) -> datetime:
        """The server's time; while the view is paused, that of the pause."""
        return self._paused_at or self._client.server_time()

    def set_paused(self, is_paused: bool) -> None:
        """Holds data and ages, or loads the data again."""
        self.is_paused = is_paused
        self._paused_at = self._client.server_time() if is_paused else None
        if not is_paused:
            self.reload()

    def reload(self) -> None:
        """Loads again at once."""
        self._wake.set()

    def search(self) -> None:
        """Looks for another filter, once it has not changed for a moment."""
        self._is_search_wanted.set()

    async def run(self) -> None:
        """Loads the data until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._load_repeatedly())
            tasks.create_task(self._search_repeatedly())

    async def _search_repeatedly(self) -> None:
        while True:
            await self._is_search_wanted.wait()
            self._is_search_wanted.clear()
            await asyncio.sleep(SEARCH_DELAY_S)
            if not self._is_search_wanted.is_set():
                with suppress(ClientError):  # the loading shows it
                    await self.view.search(self._client, self.place)
                    self._on_change()

    async def _load_repeatedly(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self.view.load(self._client, self.place, self._on_change)
            except ClientError as error:
                self.failure = error
            else:
                self.failure, self.loaded_at = None, self._client.server_time()
            self._on_change()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause_s):
                    await self._wake.wait()
            while self.is_paused:
                await self._wake.wait()
                self._wake.clear()

    @property
    def _pause_s(self) -> float | None:
        """The seconds until the next request; None if it would be refused again."""
        if self.failure is None:
            return self.view.refresh_s
        return None if self.failure.is_final else RETRY_S
