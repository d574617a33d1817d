"""What comes while a connection lasts, in one queue: the feed's messages, and the pages of a list yet to be read."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from .errors import UnreachableError
from .listing import Listing
from .messages import Message
from .model import Page

MESSAGES = 100  # read ahead of whoever listens; beyond it the server waits, and tells newest states
NEXT_PAGE_RETRY = 5.0  # seconds; while the server is away, the feed says so

News = Message | Page


class Inbox:
    """That of one connection, with one reader."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[News | Exception | None] = asyncio.Queue(MESSAGES)
        self._page_taken = asyncio.Event()

    async def next(self, patience: float | None) -> News | None:
        """What comes next, or None where nothing did for so many seconds or `wake` was called.

        Raises what the messages and the pages raised.
        """
        try:
            async with asyncio.timeout(patience):
                news = await self._queue.get()
        except TimeoutError:
            return None
        if isinstance(news, Exception):
            raise news
        return news

    def wake(self) -> None:
        """Ends a `next` that waits."""
        with suppress(asyncio.QueueFull):  # then nobody waits
            self._queue.put_nowait(None)

    def page_taken(self) -> None:
        """The page that came last is in the listing, so the one behind it may be asked for."""
        self._page_taken.set()

    @asynccontextmanager
    async def filled(
        self, messages: AsyncIterator[Message], listing: Listing, page: Callable[[str], Awaitable[Page]]
    ) -> AsyncIterator[None]:
        """Messages, and the pages that the listing wants, come in while the context lasts."""

        async def read() -> None:
            async for message in messages:
                await self._queue.put(message)

        async def list_on() -> None:
            await self._list(listing, page)

        async def reported(job: Callable[[], Awaitable[None]]) -> None:
            try:
                await job()
            except Exception as error:  # raised where it is taken out
                await self._queue.put(error)

        tasks = [asyncio.create_task(reported(job)) for job in (read, list_on)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _list(self, listing: Listing, page: Callable[[str], Awaitable[Page]]) -> None:
        """Page by page, one at a time. One that fails because the server is busy is asked for again."""
        while listing.next is not None:
            try:
                found = await page(listing.next)
            except UnreachableError as error:
                await asyncio.sleep(max(NEXT_PAGE_RETRY, error.retry_after or 0.0))
                continue
            self._page_taken.clear()
            await self._queue.put(found)
            await self._page_taken.wait()
