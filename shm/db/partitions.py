"""The weeks of snapshots: made ahead of time, and dropped when all of a week is older than it is kept."""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from shm.core.settings import Settings
from shm.db.advisory_locks import Lock
from shm.db.database import Database

MIN_LEAD_TIME = timedelta(days=28)  # so long the background may fail before a snapshot finds no week
MAX_LEAD_TIME = timedelta(
    days=366
)  # that weeks are made for: a snapshot from further ahead is refused, whatever the setting
DROP_LOCK_TIMEOUT_MS = 100  # for whoever reads snapshots for long: the intake waits behind it, and it is tried again

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _MissingPartition:
    ddl: str
    is_older: bool


@dataclass(frozen=True, slots=True)
class _ExpiredPartition:
    ddl: str
    until: datetime


async def create_missing(database: Database, settings: Settings) -> None:
    """Makes the weeks that are missing. Every server does so too before it listens.

    A table is made and then attached, for which nobody who reads or writes snapshots has to wait.
    """
    ahead = MIN_LEAD_TIME + min(settings.max_clock_skew, MAX_LEAD_TIME)
    reach = {"ahead": ahead, "back": settings.max_snapshot_age}
    async with database.schema_change_connection(Lock.PARTITIONS) as connection:
        for missing in await connection.fetch(_MissingPartition, "partitions.missing", **reach):
            if missing.is_older:  # than any week that there is: the snapshots that came before its own may be gone
                await connection.execute("series.keep_days")
            await connection.execute_sql(missing.ddl, "creation of a week of snapshots")


async def drop_expired(database: Database, retention: timedelta) -> None:
    """Drops the weeks that are older than `retention`, the oldest first."""
    for week in await database.fetch(_ExpiredPartition, "partitions.outlived", retention=retention):
        await database.execute("series.raw_ends", until=week.until)
        async with database.schema_change_connection(Lock.PARTITIONS, DROP_LOCK_TIMEOUT_MS) as connection:
            await connection.execute_sql(week.ddl, "removal of a week of snapshots")
        logger.info("a week of raw snapshots had its time: %s", week.ddl)
