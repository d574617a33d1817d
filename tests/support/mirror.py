"""A script that follows a feed: dicts that each change is applied to, and nothing else."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

from shm_client import Away, Change, Client, Connected, Instance, Kpis, KpisMoved, Listed, Put, Removed, Subscription

LIMIT_S = 30


class Mirror:
    """What a feed has told, applied."""

    def __init__(self) -> None:
        self.instances: dict[str, Instance] = {}
        self.kpis: dict[str, Kpis] = {}
        self.changes: list[Change] = []
        self.following: asyncio.Task[None] | None = None

    async def follow(self, feed: Subscription) -> None:
        """Until cancelled, or the feed raises."""
        async with aclosing(feed):
            async for change in feed:
                self.apply(change)

    def apply(self, change: Change) -> None:
        """As docs/feed.md says, and strictly: what is removed was there."""
        self.changes.append(change)
        match change:
            case Put(instance):
                self.instances[instance.instance_id] = instance
            case Removed(instance_id):
                del self.instances[instance_id]
            case KpisMoved(kpis):
                self.kpis[kpis.app] = kpis

    def told(self, *kinds: type[Change]) -> list[Change]:
        """The changes of these kinds."""
        return [change for change in self.changes if isinstance(change, kinds)]

    @property
    def complete(self) -> bool:
        """Whether the list is through that was begun last."""
        listed = self.told(Listed)
        return bool(listed) and listed[-1] == Listed(complete=True)

    @property
    def connected(self) -> bool:
        """Whether the connection stands, as far as was told."""
        ways = self.told(Away, Connected)
        return bool(ways) and isinstance(ways[-1], Connected)

    async def until(self, condition: Callable[[], object]) -> None:
        """Waits until something holds."""
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            if self.following is not None and self.following.done():
                self.following.result()
            assert time.monotonic() < deadline, self.changes[-5:]
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """Returns when it follows no more."""
        assert self.following is not None
        self.following.cancel()
        await asyncio.wait([self.following], timeout=LIMIT_S)

    async def ended(self) -> None:
        """Waits until the feed has raised, and raises the same."""
        assert self.following is not None
        await asyncio.wait_for(asyncio.shield(self.following), LIMIT_S)

    async def equals_a_fresh_list(self, client: Client, app: str | None = None) -> None:
        """Waits until what is held is what there is, and so with the KPIs that were told."""
        there = await listed(client, app)
        await self.until(lambda: self.instances == there)
        for slug in self.kpis:
            kpis = await client.kpis(slug)
            await self.until(lambda: figures(self.kpis[slug]) == figures(kpis))  # noqa: B023


def figures(kpis: Kpis) -> object:
    """What KPIs say that does not depend on when they were asked for."""
    return kpis.app, kpis.instances, [(one.key, one.value) for one in kpis.kpis]


async def listed(client: Client, app: str | None = None, limit: int = 100) -> dict[str, Instance]:
    """All pages."""
    page = await client.instances(app, limit)
    found = list(page.instances)
    while page.next is not None:
        page = await client.next_page(page.next)
        found += page.instances
    return {instance.instance_id: instance for instance in found}


@asynccontextmanager
async def mirrored(feed: Subscription) -> AsyncIterator[Mirror]:
    """A mirror that follows while the context lasts."""
    mirror = Mirror()
    mirror.following = asyncio.create_task(mirror.follow(feed))
    try:
        yield mirror
    finally:
        await mirror.stop()
