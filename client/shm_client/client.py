"""The client: the admin API's requests, and subscriptions to the change feed."""

import asyncio
from collections.abc import AsyncGenerator

from .changes import ChangesApi
from .events import FeedEvent
from .model import Restorer, Sanitizer, keep_unchanged
from .subscription import PAGE_SIZE, Subscription


class Client(ChangesApi):
    """One server, one token. A context manager; without one, close it with `aclose`, which also ends its feeds."""

    def __init__(
        self, server: str, token: str, *, sanitize: Sanitizer = keep_unchanged, restore: Restorer = str
    ) -> None:
        super().__init__(server, token, sanitize=sanitize, restore=restore)
        self._active_subscriptions: set[Subscription] = (
            set()
        )  # strong references to subscriptions with a task: asyncio references tasks weakly

    async def _close(self) -> None:
        """Closes the connections of all subscriptions too."""
        await asyncio.gather(*(subscription.aclose() for subscription in self._active_subscriptions))
        await super()._close()

    def feed(
        self,
        app: str | None = None,
        *,
        newest: int | None = None,
        retry_refusals: bool = False,
        page_size: int = PAGE_SIZE,
    ) -> Subscription:
        """The current instances and each change of them, as an asynchronous iterator; see `Subscription`."""
        return Subscription(
            self, self._active_subscriptions, app, newest=newest, retry_refusals=retry_refusals, page_size=page_size
        )


async def feed(
    server: str, token: str, app: str | None = None, *, newest: int | None = None, retry_refusals: bool = False
) -> AsyncGenerator[FeedEvent, None]:
    """The same as `Client.feed`, with a client that is created and closed here."""
    async with Client(server, token) as client:
        async for event in client.feed(app, newest=newest, retry_refusals=retry_refusals):
            yield event
