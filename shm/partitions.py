"""The weeks of snapshots: made ahead of time, and dropped when all of a week is older than it is kept."""

import logging
from dataclasses import dataclass
from datetime import timedelta

from shm.database import Database

AHEAD = timedelta(days=28)  # so long the background may fail before a snapshot finds no week

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Change:
    ddl: str


async def make(database: Database) -> None:
    """Makes the weeks that are missing. Every server does so too before it listens."""
    for change in await database.fetch(_Change, "partitions.missing", ahead=AHEAD):
        await database.run_patiently(change.ddl)


async def drop(database: Database, retention: timedelta) -> None:
    """Drops the weeks that are older than `retention`."""
    for change in await database.fetch(_Change, "partitions.outlived", retention=retention):
        await database.run_patiently(change.ddl)
        logger.info("a week of raw snapshots had its time: %s", change.ddl)
