"""Descriptions of metric keys from the server. The console has no rules of its own for labels and kinds.

The first request describes the keys of the most instances. Other keys of rows are requested in batches. A key is its
own label until its description arrives.
"""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress

from shm_client import Client, ClientError, MetricKey

MAX_EXTRA_KEYS = 2_000  # keys beyond the first response: a person cannot read more columns
RETRY_S = 10.0  # after a failed request


class DescriptionCache:
    """Descriptions of one application's keys (`slug`), or of all (None). `on_change` is called after each response."""

    def __init__(self, client: Client, slug: str | None, on_change: Callable[[], None]) -> None:
        self.is_ready = False  # the first request has ended, also if it failed
        self._client = client
        self._slug = slug
        self._on_change = on_change
        self._descriptions: dict[str, MetricKey] = {}
        self._extra_keys: dict[str, None] = {}  # keys of rows that the first response lacks, the oldest first
        self._requested: set[str] = set()  # of the extra keys
        self._is_stale = True
        self._wake = asyncio.Event()
        self._wake.set()

    def __getitem__(self, key: str) -> MetricKey:
        return self._descriptions.get(key) or MetricKey(key, key)

    def request(self, keys: Iterable[str]) -> None:
        """Requests the descriptions of keys that are missing."""
        if not self.is_ready:
            return
        for key in keys:
            is_known = key in self._descriptions or key in self._extra_keys
            if not is_known and len(self._extra_keys) < MAX_EXTRA_KEYS:
                self._extra_keys[key] = None
                self._wake.set()

    def refresh(self) -> None:
        """Requests all descriptions again: an admin may have changed the overrides."""
        self._is_stale = True
        self._wake.set()

    def retry(self) -> None:
        """Sends a request that has failed again: the server answers."""
        if self._has_requests:
            self._wake.set()

    async def run(self) -> None:
        """Sends the requests until it is cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S if self._has_requests else None):
                    await self._wake.wait()
            self._wake.clear()
            with suppress(ClientError):  # the connection's status shows the error
                await self._update()
            self.is_ready = True
            self._on_change()

    @property
    def _has_requests(self) -> bool:
        return self._is_stale or len(self._requested) < len(self._extra_keys)

    async def _update(self) -> None:
        if self._is_stale:
            self._is_stale = False  # before the request: a `refresh` during it is not lost
            try:
                response = await self._client.metric_keys(self._slug)
            except ClientError:
                self._is_stale = True
                raise
            extra = {key: self._descriptions[key] for key in self._extra_keys if key in self._descriptions}
            self._descriptions = extra | {description.key: description for description in response}
            self._requested.clear()
        while missing := [key for key in self._extra_keys if key not in self._requested]:
            response = await self._client.metric_keys(self._slug, missing)
            self._descriptions |= {description.key: description for description in response}
            self._requested.update(missing)
