"""One queue for everything that arrives during a connection: the feed's messages, and the remaining pages of a list."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from .errors import ServerUnavailableError
from .listing import Listing
from .messages import Message
from .model import Page

MAX_MESSAGES = 100  # unread messages; beyond it the client stops reading, and the server sends newest states later
PAGE_RETRY_S = 5.0  # the feed's own connection reports that the server is unavailable

QueueItem = Message | Page


class MessageQueue:
    """The queue of one connection, with one reader."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[QueueItem | Exception | None] = asyncio.Queue(MAX_MESSAGES)
        self._page_applied = asyncio.Event()

    async def get(self, timeout_s: float | None) -> QueueItem | None:
        """The next message or page, or None after `timeout_s` seconds without one or after `wake`.

        Raises the exceptions of reading messages and pages.
        """
        try:
            async with asyncio.timeout(timeout_s):
                item = await self._queue.get()
        except TimeoutError:
            return None
        if isinstance(item, Exception):
            raise item
        return item

    def wake(self) -> None:
        """Makes a waiting `get` return None."""
        with suppress(asyncio.QueueFull):  # no reader waits on a full queue
            self._queue.put_nowait(None)

    def confirm_page(self) -> None:
        """The reader has added the last page to the listing, so the next one can be requested."""
        self._page_applied.set()

    @asynccontextmanager
    async def fill(
        self, messages: AsyncIterator[Message], listing: Listing, fetch_page: Callable[[str], Awaitable[Page]]
    ) -> AsyncIterator[None]:
        """Within the context, two tasks put the messages and the listing's remaining pages into the queue."""

        async def read_messages() -> None:
            async for message in messages:
                await self._queue.put(message)

        async def read_pages() -> None:
            await self._fetch_pages(listing, fetch_page)

        async def forward_errors(reader: Callable[[], Awaitable[None]]) -> None:
            try:
                await reader()
            except Exception as error:  # `get` raises it
                await self._queue.put(error)

        tasks = [asyncio.create_task(forward_errors(reader)) for reader in (read_messages, read_pages)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _fetch_pages(self, listing: Listing, fetch_page: Callable[[str], Awaitable[Page]]) -> None:
        """Requests one page at a time. A page that the server is too busy for is requested again."""
        while listing.next_query is not None:
            try:
                page = await fetch_page(listing.next_query)
            except ServerUnavailableError as error:
                await asyncio.sleep(max(PAGE_RETRY_S, error.retry_after_s or 0.0))
                continue
            self._page_applied.clear()
            await self._queue.put(page)
            await self._page_applied.wait()
