"""Writes the series: rolls up snapshots in the order in which they were stored, in bounded steps.

Steps hold the rollup's lock and move `series_head` in the same statement: whoever does them, each snapshot is rolled up
once. Nothing here takes the writers' lock, so the intake waits for none of it.
"""

from shm.core.errors import QueryTooSlow
from shm.db.database import Database

MAX_STEP = 2_000  # snapshots, and those of a batch more: some tenths of a second
DELETE_PAGE = 5_000  # rows deleted by one statement


class Rollup:
    """Rolls up the series of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._step = MAX_STEP

    async def roll_up(self) -> bool:
        """Rolls up the next snapshots. Returns whether the step was full, so that there may be more.

        Raises QueryTooSlow. The next step is then smaller, so that the rollup makes progress.
        """
        step = self._step
        try:
            rolled = await self._database.fetch_value(int, "series.roll_up", limit=step)
        except QueryTooSlow:
            self._step = max(1, step // 4)
            raise
        self._step = min(MAX_STEP, step * 2)
        return rolled is not None and rolled >= step

    async def close_day(self) -> bool:
        """Closes the next finished day. Returns whether there was one."""
        return await self._database.execute("series.close_day") > 0

    async def restart_if_stale(self) -> bool:
        """Deletes a page of the series if the active window has changed; afterwards all of it is rolled up again.

        Returns whether there may be more to delete. Nothing is rolled up before that is done.
        """
        if not await self._database.fetch_value(bool, "series.is_stale"):  # a check without the rollup's lock
            return False
        return bool(await self._database.fetch_value(int, "series.delete_stale", limit=DELETE_PAGE))
