"""Loads the data of an open view, and loads them again in intervals until it is cancelled."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from shm_client import Client, ClientError
from shm_tui.model.place import Place
from shm_tui.model.views.base import View

RETRY_S = 5.0  # after a failed request


class ViewSession:
    """A view at a place. `error` is the reason why the last request failed; the view keeps its last data."""

    def __init__(self, client: Client, view: View, place: Place, on_change: Callable[[], None]) -> None:
        self.view = view
        self.place = place
        self.error = ""
        self.loaded_at: datetime | None = None  # by the server's clock
        self.is_paused = False  # nothing is loaded
        self._client = client
        self._on_change = on_change
        self._wake = asyncio.Event()

    def now(self) -> datetime:
        """The server's time."""
        return self._client.server_time()

    def reload(self) -> None:
        """Loads again at once."""
        self._wake.set()

    async def run(self) -> None:
        """Loads the data until it is cancelled."""
        while True:
            self._wake.clear()
            try:
                await self.view.load(self._client, self.place, self._on_change)
            except ClientError as error:
                self.error = str(error)
            else:
                self.error, self.loaded_at = "", self._client.server_time()
            self._on_change()
            with suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S if self.error else self.view.refresh_s):
                    await self._wake.wait()
            while self.is_paused:
                await self._wake.wait()
                self._wake.clear()
