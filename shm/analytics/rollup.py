"""Writes the series: rolls up snapshots in the order in which they were stored, in bounded steps.

A step holds the rollup's lock and advances `series_head` in the same statement, so each snapshot is rolled up once,
in any process. A step does not hold the writers' lock, so the intake never waits for it. Only the statement that reads
the cursor up to which a step may read takes that lock, for a moment.
"""

from shm.core.errors import QueryTooSlow
from shm.db.database import Database

MAX_STEP_SIZE = 2_000  # snapshots, and those of a batch more: some tenths of a second
MAX_STEP_LEAVES = 50_000  # the same for snapshots with many keys, each of which has rows of its own in the series
DELETE_PAGE_SIZE = 5_000  # rows deleted by one statement


class Rollup:
    """Rolls up the series of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._step_size = MAX_STEP_SIZE

    async def roll_up(self) -> bool:
        """Rolls up the next snapshots. Returns whether there are more.

        Raises QueryTooSlow. The next step is then smaller, so that the rollup makes progress.
        """
        if not await self._database.fetch_value(bool, "series.is_behind"):
            return False
        until = await self._database.fetch_value(int, "series.select_settled_cursor")
        step_size = self._step_size
        max_leaves = MAX_STEP_LEAVES * step_size // MAX_STEP_SIZE
        try:
            has_more = await self._database.fetch_value(
                bool, "series.roll_up", until=until, limit=step_size, max_leaves=max_leaves
            )
        except QueryTooSlow:
            self._step_size = max(1, step_size // 4)
            raise
        self._step_size = min(MAX_STEP_SIZE, step_size * 2)
        return has_more is True

    async def close_day(self) -> bool:
        """Closes the next finished day. Returns whether there was one."""
        return await self._database.execute("series.close_day") > 0

    async def restart_if_stale(self) -> bool:
        """Deletes a page of the series if the active window has changed; afterwards all of it is rolled up again.

        Returns whether there may be more to delete. The rollup waits until all of it is deleted.
        """
        if not await self._database.fetch_value(bool, "series.is_stale"):  # a check without the rollup's lock
            return False
        return bool(await self._database.fetch_value(int, "series.delete_stale", limit=DELETE_PAGE_SIZE))
