"""Descriptions of metric keys, as the server sends them: the console has no rules of its own for labels and kinds.

The first request describes the keys that most instances answer. Keys that arrive in rows and are not among them are
asked for in batches. Until its description is there, a key is its own label.
"""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress

from shm_client import Client, ClientError, MetricKey

MAX_DESCRIBED = 2_000  # keys: more columns than anybody reads
RETRY_S = 10.0  # after a request that failed


class Descriptions:
    """Descriptions of one application's keys (`slug`), or over all (None). `changed` is called after each answer."""

    def __init__(self, client: Client, slug: str | None, changed: Callable[[], None]) -> None:
        self.ready = False  # the first answer is there, or will not come soon
        self._client = client
        self._slug = slug
        self._changed = changed
        self._known: dict[str, MetricKey] = {}
        self._wanted: dict[str, None] = {}  # keys of rows beyond the first answer, in the order in which they came
        self._asked: set[str] = set()  # of the wanted ones
        self._is_stale = True
        self._wake = asyncio.Event()
        self._wake.set()

    def __getitem__(self, key: str) -> MetricKey:
        return self._known.get(key) or MetricKey(key, key)

    def want(self, keys: Iterable[str]) -> None:
        """These keys are shown."""
        if not self.ready:
            return
        for key in keys:
            if key not in self._known and key not in self._wanted and len(self._wanted) < MAX_DESCRIBED:
                self._wanted[key] = None
                self._wake.set()

    def refresh(self) -> None:
        """Overrides may have changed."""
        self._is_stale = True
        self._wake.set()

    async def run(self) -> None:
        """Asks for what is wanted, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S if self._is_due else None):
                    await self._wake.wait()
            self._wake.clear()
            with suppress(ClientError):  # the connection's state says what is wrong
                await self._update()
            self.ready = True
            self._changed()

    @property
    def _is_due(self) -> bool:
        return self._is_stale or len(self._asked) < len(self._wanted)

    async def _update(self) -> None:
        if self._is_stale:
            found = await self._client.metric_keys(self._slug)
            kept = {key: self._known[key] for key in self._wanted if key in self._known}
            self._known = kept | {one.key: one for one in found}
            self._is_stale = False
            self._asked.clear()
        while missing := [key for key in self._wanted if key not in self._asked]:
            found = await self._client.metric_keys(self._slug, missing)
            self._known |= {one.key: one for one in found}
            self._asked.update(missing)
