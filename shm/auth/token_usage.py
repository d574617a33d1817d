"""On which day a token was last used: written down beside the requests, never on their way.

A request waits for none of this and fails with none of it: a database that is full or read-only goes on answering.
What could not be written is dropped; the next use comes, and is noted then.
"""

import asyncio
import logging

from shm.core.logs import RateLimitedLogger, describe_error
from shm.db.database import Database

logger = logging.getLogger(__name__)
rate_limited = RateLimitedLogger(logger)

RETRY_INTERVAL_S = 60.0  # after a failure: each try of a database that takes nothing costs a connection its patience


class TokenUsageWriter:
    """What is still to be written down, by the ID of a token: as many as there are tokens at most."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ids: set[str] = set()
        self._wanted = asyncio.Event()

    def record(self, token_id: str) -> None:
        """A valid token is used, and the database does not know that it is used today."""
        self._ids.add(token_id)
        self._wanted.set()

    async def run(self) -> None:
        """Writes until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            ids, self._ids = list(self._ids), set()
            try:
                await self._database.execute("tokens.record_use", ids=ids)
            except Exception as error:  # such as a right that is missing: no reason to answer nobody
                rate_limited.warning("the day of a token's last use could not be written", describe_error(error))
                await asyncio.sleep(RETRY_INTERVAL_S)
