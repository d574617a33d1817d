"""The series' writing side: snapshots are rolled up in the order in which they were stored, a bounded step at a time.

Steps hold the rollup's lock and move `series_head` in the same statement: whoever does them, each snapshot is rolled up
once. Nothing here takes the writers' lock, so the intake waits for none of it.
"""

from dataclasses import dataclass
from datetime import datetime

from shm.database import Database

STEP = 2_000  # snapshots, and those of a batch more: some tenths of a second


@dataclass(frozen=True, slots=True)
class _Rolled:
    snapshots: int


@dataclass(frozen=True, slots=True)
class _Closed:
    closed_at: datetime


async def roll(database: Database) -> bool:
    """Rolls up the next snapshots; whether there were as many as a step takes, and so there may be more."""
    row = await database.fetch_one(_Rolled, "series.roll", most=STEP)
    return row is not None and row.snapshots >= STEP


async def close(database: Database) -> bool:
    """Closes the next day that is over; whether there was one."""
    return await database.fetch_one(_Closed, "series.close") is not None
