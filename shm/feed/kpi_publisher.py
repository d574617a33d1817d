"""KPIs for the feed. Those of an application are read at most twice a second, and once for all subscribers."""

import asyncio
import logging
from collections.abc import Callable, Iterable

from shm.analytics.kpis import ApplicationKpis, KpiReader
from shm.core.errors import DatabaseUnavailable, NotFound
from shm.core.logs import RateLimitedLogger, describe_error

READ_INTERVAL_S = 0.5  # from the end of a read of an application's KPIs to the next one
RETRY_INTERVAL_S = 5.0  # after a read that failed

rate_limited = RateLimitedLogger(logging.getLogger(__name__))

Publish = Callable[[int, ApplicationKpis], None]


class KpiPublisher:
    """Reads and publishes the KPIs of applications that changed."""

    def __init__(self, kpis: KpiReader) -> None:
        self._kpis = kpis
        self._stale: set[str] = set()
        self._next_read_at: dict[str, float] = {}  # the loop's time, by slug
        self._requested = asyncio.Event()

    def request(self, slugs: Iterable[str]) -> None:
        """Marks the KPIs of these applications as stale."""
        self._stale.update(slugs)
        if self._stale:
            self._requested.set()

    def clear(self) -> None:
        """Drops all requests: there is no subscriber."""
        self._stale.clear()

    async def run(self, publish: Publish) -> None:
        """Publishes KPIs with the cursor at which they were read, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._requested.wait()
            self._requested.clear()
            while self._stale:
                now = loop.time()
                self._next_read_at = {slug: due for slug, due in self._next_read_at.items() if due > now}
                ready = self._stale - self._next_read_at.keys()
                for slug in sorted(ready):
                    await self._read(slug, publish)
                if not ready:
                    await asyncio.sleep(min(self._next_read_at[slug] for slug in self._stale) - now)

    async def _read(self, slug: str, publish: Publish) -> None:
        self._stale.discard(slug)
        try:
            cursor, kpis = await self._kpis.read_application(slug)
        except NotFound:  # no instance of the application has confirmed its key yet
            pass
        except DatabaseUnavailable as error:
            self._retry_later(slug)
            rate_limited.warning("KPIs could not be read for the feed", describe_error(error))
        except Exception:  # a failure of one application must not stop the others
            self._retry_later(slug)
            rate_limited.exception("KPIs could not be read for the feed")
        else:
            publish(cursor, kpis)
        # Counted from the end of a read: after a slow one, the next KPIs would follow at once.
        self._next_read_at.setdefault(slug, asyncio.get_running_loop().time() + READ_INTERVAL_S)

    def _retry_later(self, slug: str) -> None:
        self._stale.add(slug)
        self._next_read_at[slug] = asyncio.get_running_loop().time() + RETRY_INTERVAL_S
