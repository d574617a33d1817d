"""A subscriber that applies each event of a feed to dicts, as docs/feed.md describes it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

from shm_client import (
    Client,
    Connected,
    Disconnected,
    FeedEvent,
    Instance,
    InstanceRemoved,
    InstanceUpdated,
    Kpis,
    KpisUpdated,
    Listed,
    Subscription,
)

TIMEOUT_S = 60


class FeedMirror:
    """The data of one subscriber, and the events it received."""

    def __init__(self) -> None:
        self.instances: dict[str, Instance] = {}
        self.kpis: dict[str, Kpis] = {}
        self.events: list[FeedEvent] = []
        self.task: asyncio.Task[None] | None = None

    async def follow(self, feed: Subscription) -> None:
        """Applies events until it is cancelled or the feed raises."""
        async with aclosing(feed):
            async for event in feed:
                self.apply(event)

    def apply(self, event: FeedEvent) -> None:
        """Applies one event. Raises KeyError when it removes an instance that is not there."""
        self.events.append(event)
        match event:
            case InstanceUpdated(instance):
                self.instances[instance.instance_id] = instance
            case InstanceRemoved(instance_id):
                del self.instances[instance_id]
            case KpisUpdated(kpis):
                self.kpis[kpis.app] = kpis

    def events_of(self, *types: type[FeedEvent]) -> list[FeedEvent]:
        """The received events of these types."""
        return [event for event in self.events if isinstance(event, types)]

    @property
    def is_complete(self) -> bool:
        """Whether the last list is complete."""
        listed = self.events_of(Listed)
        return bool(listed) and listed[-1] == Listed(complete=True)

    @property
    def is_connected(self) -> bool:
        """Whether the feed is connected, by its last event about it."""
        states = self.events_of(Disconnected, Connected)
        return bool(states) and isinstance(states[-1], Connected)

    async def wait_until(self, condition: Callable[[], object]) -> None:
        """Waits for a condition; raises the feed's error if it ends before."""
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            if self.task is not None and self.task.done():
                self.task.result()
            assert time.monotonic() < deadline, self.events[-5:]
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """Cancels the task and waits for its end."""
        assert self.task is not None
        self.task.cancel()
        await asyncio.wait([self.task], timeout=TIMEOUT_S)

    async def wait_for_error(self) -> None:
        """Waits until the feed raises, and raises the same exception."""
        assert self.task is not None
        await asyncio.wait_for(asyncio.shield(self.task), TIMEOUT_S)

    async def assert_matches_list(self, client: Client, app: str | None = None) -> None:
        """Waits until the instances equal a fresh list, and the received KPIs the current ones."""
        expected = await list_instances(client, app)
        await self.wait_until(lambda: self.instances == expected)
        for slug in self.kpis:
            kpis = await client.kpis(slug)
            await self.wait_until(lambda: kpi_values(self.kpis[slug]) == kpi_values(kpis))  # noqa: B023


def kpi_values(kpis: Kpis) -> object:
    """The part of the KPIs that does not depend on the time of the request."""
    return kpis.app, kpis.instances, [(kpi.key, kpi.value) for kpi in kpis.kpis]


async def list_instances(client: Client, app: str | None = None, limit: int = 100) -> dict[str, Instance]:
    """All pages of the list, by instance ID."""
    page = await client.instances(app, limit)
    instances = list(page.instances)
    while page.next is not None:
        page = await client.next_page(page.next)
        instances += page.instances
    return {instance.instance_id: instance for instance in instances}


@asynccontextmanager
async def mirror_feed(feed: Subscription) -> AsyncIterator[FeedMirror]:
    """A mirror that follows the feed within the context."""
    mirror = FeedMirror()
    mirror.task = asyncio.create_task(mirror.follow(feed))
    try:
        yield mirror
    finally:
        await mirror.stop()
