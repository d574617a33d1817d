"""PostgreSQL's clock, which decides every comparison with a time.

The tables have times of PostgreSQL's clock (`now()`), and several servers with clocks of their own may share one
database. By a server's own clock, a copied request would be accepted for as long as the two clocks differ after its
hash was deleted.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from shm.core.errors import DatabaseUnavailable
from shm.core.logs import RateLimitedLogger

rate_limited = RateLimitedLogger(logging.getLogger(__name__))

INTERVAL_S = 30.0  # between two measurements; a step of one of the clocks has an effect for so long
MIN_REPORTED_OFFSET = timedelta(seconds=5)  # more than the time synchronization of any machine leaves

ReadClock = Callable[[], Awaitable[tuple[datetime, datetime, datetime]]]


class DatabaseClock:
    """Estimates PostgreSQL's time from this machine's clock and their measured difference.

    `read` returns this machine's time before a statement, PostgreSQL's time within it, and this machine's after it.
    """

    def __init__(self, read: ReadClock) -> None:
        self._read = read
        self._offset = timedelta()

    def now(self) -> datetime:
        """PostgreSQL's time, as exact as the round trip of a statement is short. This machine's if they agree."""
        return datetime.now(UTC) + self._offset

    @property
    def offset(self) -> timedelta:
        """How far PostgreSQL's clock is ahead of this machine's."""
        return self._offset

    async def measure(self) -> None:
        """Measures the difference. Raises as `Database.fetch`."""
        before, database_time, after = await self._read()
        was_reported = abs(self._offset) >= MIN_REPORTED_OFFSET
        # The smallest difference that explains the three times, so that it does not vary with the round trip.
        self._offset = database_time - min(max(database_time, before), after)
        if abs(self._offset) >= MIN_REPORTED_OFFSET and not was_reported:
            rate_limited.warning(
                "PostgreSQL's clock is used, because this machine's differs; synchronize both",
                f"by {abs(self._offset.total_seconds()):.0f} s",
            )

    async def run(self) -> None:
        """Measures again and again, until cancelled. While PostgreSQL is unavailable, the last difference stays."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            try:
                await self.measure()
            except DatabaseUnavailable:
                continue
