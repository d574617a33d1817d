"""Distributions of metrics over a fleet: minimum, median, p90 and maximum; exact, and all of one moment.

A distribution requires a sort of all values. The values of a small fleet are sorted within the request. The values of a
larger fleet are sorted in the background, key by key, at most once per `MAX_AGE`, by one process for all. Responses
contain the last computed distribution and its time. One key of a million installs takes PostgreSQL about a second.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from shm.core.errors import DatabaseUnavailable
from shm.core.logs import RateLimitedLogger, describe_error
from shm.db.database import Database
from shm.db.statement_runner import Reader

MAX_INLINE_VALUES = 5_000  # values that are sorted within a request: some milliseconds
MAX_AGE = timedelta(seconds=60)  # a request for an older distribution starts a new computation
PAUSE_FACTOR = 4.0  # pause after each key, in multiples of its computation time: at most a fifth of a core
MAX_PENDING_REQUESTS = 1_000  # applications that wait for a computation; a further one is added by a later request

rate_limited = RateLimitedLogger(logging.getLogger(__name__))


@dataclass(frozen=True, slots=True)
class MetricDistribution:
    """The distribution of a metric over an application's current snapshots, as of `as_of`."""

    key: str
    min: Decimal | None
    p50: Decimal | None
    p90: Decimal | None
    max: Decimal | None
    as_of: datetime


NOT_COMPUTED = MetricDistribution("", None, None, None, None, datetime.max.replace(tzinfo=UTC))


class DistributionReader:
    """Reads and computes distributions over one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._requested_keys: dict[tuple[str, bool], list[str]] = {}
        self._requested = asyncio.Event()

    async def read(
        self,
        reader: Reader,
        app: str,
        counted_only: bool,
        instances: int,
        known: Mapping[str, tuple[int, MetricDistribution | None]],
    ) -> dict[str, MetricDistribution]:
        """Distributions by key. `known`: by key, the number of instances that report it, and its last distribution.

        `instances`: the number of instances of the application. A computation reads all of them.
        """
        if instances <= MAX_INLINE_VALUES and sum(reporting for reporting, _ in known.values()) <= MAX_INLINE_VALUES:
            rows = await reader.fetch(
                MetricDistribution, "distributions.compute_all", app=app, counted_only=counted_only
            )
            return {row.key: row for row in rows}
        min_as_of = self._database.clock.now() - MAX_AGE
        stale_keys = [
            key for key, (_, distribution) in known.items() if distribution is None or distribution.as_of < min_as_of
        ]
        if stale_keys and len(self._requested_keys) < MAX_PENDING_REQUESTS:
            self._requested_keys[app, counted_only] = stale_keys
            self._requested.set()
        return {key: distribution for key, (_, distribution) in known.items() if distribution is not None}

    async def run(self) -> None:
        """Computes requested distributions until cancelled."""
        while True:
            await self._requested.wait()
            self._requested.clear()
            while self._requested_keys:
                (app, counted_only), keys = next(iter(self._requested_keys.items()))
                del self._requested_keys[app, counted_only]
                computed = [key for key in keys if await self._compute(app, counted_only, key)]
                if computed and not counted_only:
                    await self._notify_feed(app)

    async def _compute(self, app: str, counted_only: bool, key: str) -> bool:
        """Computes one distribution. Returns whether this process has computed it now."""
        started_at = time.monotonic()
        computed = 0
        try:
            computed = await self._database.execute(
                "distributions.refresh_one", app=app, counted_only=counted_only, key=key, max_age=MAX_AGE
            )
        except DatabaseUnavailable as error:  # a later request repeats it, and `as_of` is its time
            rate_limited.warning("a distribution could not be computed", describe_error(error))
        await asyncio.sleep((time.monotonic() - started_at) * PAUSE_FACTOR)
        return computed > 0

    async def _notify_feed(self, app: str) -> None:
        try:
            await self._database.execute("applications.mark_changed", slug=app)
        except DatabaseUnavailable as error:  # the next computation sends the KPIs
            rate_limited.warning("the feed could not be notified of new distributions", describe_error(error))
