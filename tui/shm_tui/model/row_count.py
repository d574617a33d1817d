"""The exact number of a window's rows: requested beside them, so that no slow or failed count holds rows back.

It is requested again with the rows, but at most for a tenth of the time.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from shm_client import Client, ClientError
from shm_tui.model.pacing import pause_after

MAX_WAIT_S = 0.5  # for which rows of another filter wait for their number


class RowCount:
    """Keeps the number of matching instances up to date while it runs; None while it is unknown."""

    def __init__(self, client: Client, slug: str | None, on_change: Callable[[], None]) -> None:
        self.number: int | None = None
        self.has_failed = False  # the last request
        self._client, self._slug, self._on_change = client, slug, on_change
        self._conditions: tuple[str, ...] | None = None
        self._is_due = asyncio.Event()
        self._are_others = asyncio.Event()  # the conditions, since the last request
        self._has_answer = asyncio.Event()  # also a failure

    def request(self, conditions: tuple[str, ...] | None) -> None:
        """Counts the instances that match other conditions; None: no number is needed."""
        if conditions != self._conditions:
            self._conditions, self.number, self.has_failed = conditions, None, False
            self._has_answer.clear()
            self._are_others.set()
            self._is_due.set()

    def refresh(self) -> None:
        """Counts again: an instance changed."""
        self._is_due.set()

    async def wait(self) -> None:
        """Waits a moment for the first answer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(MAX_WAIT_S):
                await self._has_answer.wait()

    async def run(self) -> None:
        """Counts until it is cancelled."""
        while True:
            await self._is_due.wait()
            self._is_due.clear()
            self._are_others.clear()
            if self._conditions is None:
                continue
            pause_s = await self._count(self._conditions)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._are_others.wait()

    async def _count(self, conditions: tuple[str, ...]) -> float:
        """Counts, until the answer or other conditions. Returns the seconds until the next request."""
        started_at, failure = monotonic(), None
        answer = asyncio.create_task(self._client.count_instances(self._slug, conditions))
        others = asyncio.create_task(self._are_others.wait())
        try:
            await asyncio.wait((answer, others), return_when=asyncio.FIRST_COMPLETED)
            if self._conditions != conditions:
                return 0.0
            self.number = await answer
        except ClientError as error:
            self.number, failure = None, error
            self._is_due.set()
        finally:
            answer.cancel()
            others.cancel()
            await asyncio.gather(answer, others, return_exceptions=True)
        self.has_failed = failure is not None
        self._has_answer.set()
        self._on_change()
        return pause_after(started_at, failure)
