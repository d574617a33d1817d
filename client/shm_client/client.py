"""The client: the admin API's requests, and subscriptions to the change feed."""

import asyncio
from collections.abc import AsyncGenerator

from .api import Api
from .changes import Change
from .model import Border, as_it_is
from .subscription import PAGE, Subscription


class Client(Api):
    """One server, one token. A context manager; or close it with `aclose`, which also ends its subscriptions."""

    def __init__(self, server: str, token: str, *, border: Border = as_it_is) -> None:
        super().__init__(server, token, border=border)
        self._running: set[Subscription] = (
            set()
        )  # holds subscriptions that have a task: asyncio references tasks weakly

    async def aclose(self) -> None:
        """Closes its connections, those of its subscriptions too."""
        await asyncio.gather(*(each.aclose() for each in self._running))
        await super().aclose()

    def feed(
        self, app: str | None = None, *, newest: int | None = None, patient: bool = False, page: int = PAGE
    ) -> Subscription:
        """The current instances and each change of them, as an asynchronous iterator; see `Subscription`."""
        return Subscription(self, self._running, app, newest=newest, patient=patient, page=page)


async def feed(
    server: str, token: str, app: str | None = None, *, newest: int | None = None, patient: bool = False
) -> AsyncGenerator[Change, None]:
    """The same as `Client.feed`, with a client of its own."""
    async with Client(server, token) as client:
        async for change in client.feed(app, newest=newest, patient=patient):
            yield change
