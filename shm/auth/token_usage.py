"""Records the day of a token's last use, in a background task.

Requests neither wait for it nor fail with it, so reads work with a full or read-only database. A record that cannot be
written is dropped; the next use of the token creates a new one.
"""

import asyncio
import logging

from shm.core.logs import RateLimitedLogger, describe_error
from shm.db.database import Database

logger = logging.getLogger(__name__)
rate_limited = RateLimitedLogger(logger)

RETRY_INTERVAL_S = 60.0  # after a failure: an attempt occupies a connection until its timeout


class TokenUsageWriter:
    """A set of token IDs to be written: at most one entry a token."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ids: set[str] = set()
        self._added = asyncio.Event()

    def record(self, token_id: str) -> None:
        """Adds a valid token whose use today is not in the database."""
        self._ids.add(token_id)
        self._added.set()

    async def run(self) -> None:
        """Writes records until cancelled."""
        while True:
            await self._added.wait()
            self._added.clear()
            ids, self._ids = list(self._ids), set()
            try:
                await self._database.execute("tokens.record_use", ids=ids)
            except Exception as error:  # such as a missing privilege, which must not make requests fail
                rate_limited.warning("the day of a token's last use could not be written", describe_error(error))
                await asyncio.sleep(RETRY_INTERVAL_S)
