"""When the disk of the database will be full, at the growth of the last week.

A week is the shortest time in which the database of a constant fleet does not grow: its oldest snapshots are deleted
week by week.
"""

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from shm.core.json_types import Timestamp
from shm.core.settings import Settings
from shm.db.database import Database

SIZES_RETENTION = timedelta(days=7)
DAY_S = 86_400
MAX_DAYS = 36_500  # a later date says nothing


class DiskForecast(msgspec.Struct):
    """`disk` of `GET stats`.

    `limit_bytes`: SHM_MAX_DISK, or the database's size and the free space of an embedded PostgreSQL's disk if that is
    less; null if neither is known. `growth_bytes_per_day` is null in the first hour. `full_at` is now for a database
    that has reached its limit; else it is null while the database does not grow, or while its limit or its growth is
    unknown.
    """

    database_bytes: int
    limit_bytes: int | None
    growth_bytes_per_day: int | None
    full_at: Timestamp | None

    def full_in(self) -> timedelta | None:
        """The time until the disk is full; zero if it is."""
        return None if self.full_at is None else max(timedelta(), self.full_at - datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class _Growth:
    bytes: int
    growth_per_s: float | None


async def record_size(database: Database) -> None:
    """Stores the size of the database once an hour."""
    await database.execute("health.record_size", retention=SIZES_RETENTION)


async def forecast_disk(database: Database, settings: Settings) -> DiskForecast:
    """Measures the database, and the free space of its disk if PostgreSQL is embedded."""
    (growth,) = await database.fetch(_Growth, "health.measure_growth")
    limit = _limit(growth.bytes, settings)
    per_day = None if growth.growth_per_s is None else growth.growth_per_s * DAY_S
    full_at = None if limit is None else _full_at(limit - growth.bytes, per_day)
    return DiskForecast(growth.bytes, limit, None if per_day is None else round(per_day), full_at)


def _full_at(remaining_bytes: int, growth_per_day: float | None) -> datetime | None:
    if remaining_bytes <= 0:
        return datetime.now(UTC)
    if growth_per_day is None or growth_per_day <= 0 or remaining_bytes / growth_per_day >= MAX_DAYS:
        return None
    return datetime.now(UTC) + timedelta(days=remaining_bytes / growth_per_day)


def _limit(database_bytes: int, settings: Settings) -> int | None:
    limits = [] if settings.max_disk is None else [settings.max_disk]
    if settings.dsn is None:
        limits.append(database_bytes + free_bytes(settings.data_dir / "postgres"))
    return min(limits, default=None)


def free_bytes(directory: Path) -> int:
    """The free space of the disk of a directory, which need not exist yet."""
    while not directory.exists():
        directory = directory.parent
    return shutil.disk_usage(directory).free
