"""Weekly partitions of the snapshots: created ahead of time, dropped once a whole week is past the retention.

Each start and a background job create them; the job drops them (`shm.server.background_jobs`).
"""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from shm.core.settings import Settings
from shm.db.advisory_locks import Lock
from shm.db.database import Database

MIN_LEAD_TIME = timedelta(days=28)  # how long the background jobs may fail before a snapshot has no partition
MAX_LEAD_TIME = timedelta(days=366)  # bounds the partitions and, more than SHM_MAX_CLOCK_SKEW, times of snapshots
DROP_LOCK_TIMEOUT_MS = 100  # while a long read blocks the drop, the intake waits behind it; the next run tries again

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _MissingPartition:
    creation: str
    statistics: str
    attachment: str
    is_older: bool


@dataclass(frozen=True, slots=True)
class _ExpiredPartition:
    ddl: str
    until: datetime


async def create_missing(database: Database, settings: Settings, back: timedelta | None = None) -> None:
    """Creates the missing weekly partitions. Every server also does this before it listens.

    They take snapshots up to the age `back`; without it, those that installs may send.
    A partition is created as a table and then attached, which blocks neither reads nor writes of snapshots.
    """
    ahead = MIN_LEAD_TIME + min(settings.max_clock_skew, MAX_LEAD_TIME)
    bounds = {"ahead": ahead, "back": back or settings.max_snapshot_age}
    async with database.schema_change_connection(Lock.PARTITIONS) as connection:
        for missing in await connection.fetch(_MissingPartition, "partitions.list_missing", **bounds):
            if missing.is_older:  # than every partition: earlier snapshots of the same installs may be deleted
                await connection.execute("series.freeze_days")
            async with connection.transaction():
                for sql in (missing.creation, missing.statistics, missing.attachment):
                    await connection.execute_sql(sql, "creation of a weekly partition")


async def drop_expired(database: Database, retention: timedelta) -> None:
    """Drops the weekly partitions that are older than `retention`, the oldest first."""
    for partition in await database.fetch(_ExpiredPartition, "partitions.list_expired", retention=retention):
        await database.execute("series.set_raw_since", until=partition.until)
        async with database.schema_change_connection(Lock.PARTITIONS, DROP_LOCK_TIMEOUT_MS) as connection:
            await connection.execute_sql(partition.ddl, "removal of a weekly partition")
        logger.info("dropped a weekly partition of raw snapshots: %s", partition.ddl)
