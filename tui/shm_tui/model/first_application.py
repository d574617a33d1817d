"""Requests the applications before the first rows: those of all applications would be replaced in a moment."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from shm_client import Client, ClientError
from shm_tui.model.live_session import Overview

MAX_CHOICE_S = 2.0  # a server that does not answer until then may still answer to a request for rows


class FirstApplication:
    """Puts the applications into the overview, then calls `on_end`, also after a failure: the session shows its own."""

    def __init__(self, client: Client, overview: Overview, on_end: Callable[[], None]) -> None:
        self._client, self._overview, self._on_end = client, overview, on_end

    async def run(self) -> None:
        """Runs until the server has answered, for a limited time."""
        with suppress(ClientError, TimeoutError):
            async with asyncio.timeout(MAX_CHOICE_S):
                self._overview.applications = await self._client.applications()
        self._on_end()
