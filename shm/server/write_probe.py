"""Checks whether the database accepts writes, with a test write at most once a second for all requests."""

import asyncio
import time

from shm.core.errors import DatabaseUnavailable, StatementFailed, UnstorableData
from shm.db.database import Database

RESULT_AGE_S = 1.0  # how long a result is reused
TIMEOUT_S = 2.0  # of a probe; the statement waits for a lock for one second


class WriteProbe:
    """A probe of one process. It writes through the pool for reading, so that it never delays a batch."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = asyncio.Lock()
        self._error: DatabaseUnavailable | None = None
        self._probed_at = float("-inf")

    async def check(self) -> None:
        """Raises DatabaseUnavailable if a snapshot could not be stored now."""
        async with self._lock:  # all waiting requests share the next result
            if time.monotonic() - self._probed_at >= RESULT_AGE_S:
                self._error = await self._probe()
                self._probed_at = time.monotonic()
            if self._error is not None:
                raise self._error.with_traceback(None)

    async def _probe(self) -> DatabaseUnavailable | None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._database.execute("health.probe_write", now=self._database.clock.now())
        except TimeoutError:
            return DatabaseUnavailable(f"a write did not succeed within {TIMEOUT_S:g} s")
        except DatabaseUnavailable as error:
            return error
        except (StatementFailed, UnstorableData) as error:  # such as a missing privilege, table or partition
            return DatabaseUnavailable(f"PostgreSQL refused {error}")
        return None
