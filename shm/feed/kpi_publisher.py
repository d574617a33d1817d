"""KPIs for the feed: each application's read at most twice a second, once for however many subscribers want them."""

import asyncio
import logging
from collections.abc import Callable, Iterable

from shm.analytics.kpis import ApplicationKpis, KpiReader
from shm.core.errors import DatabaseUnavailable, NotFound
from shm.core.logs import RateLimitedLogger, describe_error

PAUSE_S = 0.5  # between two readings of an application's KPIs
AGAIN_S = 5.0  # after one that failed

rate_limited = RateLimitedLogger(logging.getLogger(__name__))

Tell = Callable[[int, ApplicationKpis], None]


class KpiPublisher:
    """Which applications' KPIs have yet to be told."""

    def __init__(self, kpis: KpiReader) -> None:
        self._kpis = kpis
        self._stale: set[str] = set()
        self._due: dict[str, float] = {}  # the loop's time, of those that were told just now
        self._wanted = asyncio.Event()

    def want(self, slugs: Iterable[str]) -> None:
        """These may read otherwise now."""
        self._stale.update(slugs)
        if self._stale:
            self._wanted.set()

    def forget(self) -> None:
        """Nobody wants to know any more."""
        self._stale.clear()

    async def run(self, tell: Tell) -> None:
        """Tells KPIs with the cursor that they are true at, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while self._stale:
                now = loop.time()
                self._due = {slug: due for slug, due in self._due.items() if due > now}
                ready = self._stale - self._due.keys()
                for slug in sorted(ready):
                    await self._read(slug, tell)
                if not ready:
                    await asyncio.sleep(min(self._due[slug] for slug in self._stale) - now)

    async def _read(self, slug: str, tell: Tell) -> None:
        self._stale.discard(slug)
        self._due[slug] = asyncio.get_running_loop().time() + PAUSE_S
        try:
            cursor, kpis = await self._kpis.read_application(slug)
        except NotFound:  # its first install has not proved its key
            return
        except DatabaseUnavailable as error:
            self._again(slug)
            rate_limited.warning("KPIs could not be read for the feed", describe_error(error))
        except Exception:  # whatever is wrong with one application, the others are told
            self._again(slug)
            rate_limited.exception("KPIs could not be read for the feed")
        else:
            tell(cursor, kpis)

    def _again(self, slug: str) -> None:
        self._stale.add(slug)
        self._due[slug] = asyncio.get_running_loop().time() + AGAIN_S
