"""The series' writing side: snapshots are rolled up in the order in which they were stored, a bounded step at a time.

Steps hold the rollup's lock and move `series_head` in the same statement: whoever does them, each snapshot is rolled up
once. Nothing here takes the writers' lock, so the intake waits for none of it.
"""

from shm.core.errors import QueryTooSlow
from shm.db.database import Database

MAX_STEP = 2_000  # snapshots, and those of a batch more: some tenths of a second
DELETE_PAGE = 5_000  # rows that are forgotten at a time


class Rollup:
    """The writing side of the series of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._step = MAX_STEP

    async def roll_up(self) -> bool:
        """Rolls up the next snapshots; whether there were as many as a step takes, and so there may be more.

        Raises QueryTooSlow, and then the next step is smaller: it must not stand still for one that is too large.
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
        """Closes the next day that is over; whether there was one."""
        return await self._database.execute("series.close_day") > 0

    async def restart_if_stale(self) -> bool:
        """Where the active window has become another: forgets what is rolled up, and has all of it rolled up again.

        Whether there may be more to forget. Until then nothing is rolled up.
        """
        if not await self._database.fetch_value(bool, "series.is_stale"):  # spares the rollup's lock
            return False
        return bool(await self._database.fetch_value(int, "series.delete_stale", limit=DELETE_PAGE))
