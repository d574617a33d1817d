"""When the disk of the database will be full, at the growth of the last week, or at that of a shorter time.

A week is the shortest time in which the database of a constant fleet does not grow: its oldest snapshots are deleted
week by week. A shorter time decides if the database grew in it by at least what remains, as on a disk that fills within
hours: a growth is expected to continue for as long as it has lasted.
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
MINUTE_S, HOUR_S, DAY_S = 60, 3_600, 86_400
MIN_AGE_S = HOUR_S  # of the oldest stored size: the growth of less time predicts no date weeks ahead
MAX_DAYS = 36_500  # a later date says nothing


class DiskForecast(msgspec.Struct):
    """`disk` of `GET stats`.

    `limit_bytes`: SHM_MAX_DISK, or the database's size and the free space of an embedded PostgreSQL's disk if that is
    less; null if neither is known. `growth_bytes_per_day` is null in the first hour, unless the database grew by as
    much as remains. `full_at` is now for a database that has reached its limit; else it is null while the database does
    not grow, or while its limit or its growth is unknown.
    """

    database_bytes: int
    limit_bytes: int | None
    growth_bytes_per_day: int | None
    full_at: Timestamp | None

    def full_in(self) -> timedelta | None:
        """The time until the disk is full; zero if it is."""
        return None if self.full_at is None else max(timedelta(), self.full_at - datetime.now(UTC))

    def describe_full_in(self) -> str:
        """The same as a text: `full in 9.5 days`, `full in 40 minutes`, `full`."""
        seconds = (self.full_in() or timedelta()).total_seconds()
        if seconds < MINUTE_S:
            return "full within a minute" if seconds else "full"
        if seconds < 2 * HOUR_S:
            return f"full in {seconds / MINUTE_S:.0f} minutes"
        return f"full in {seconds / HOUR_S:.0f} hours" if seconds < 2 * DAY_S else f"full in {seconds / DAY_S:.1f} days"


@dataclass(frozen=True, slots=True)
class _Growth:
    bytes: int
    growth: int
    age_s: float

    @property
    def per_day(self) -> float:
        """The growth in bytes a day."""
        return self.growth / self.age_s * DAY_S


async def record_size(database: Database) -> None:
    """Stores the size of the database every few minutes."""
    await database.execute("health.record_size", retention=SIZES_RETENTION)


async def forecast_disk(database: Database, settings: Settings) -> DiskForecast:
    """Measures the database, and the free space of its disk if PostgreSQL is embedded."""
    growths = await database.fetch(_Growth, "health.measure_growth")
    size = growths[0].bytes
    limit = _limit(size, settings)
    remaining = None if limit is None else limit - size
    per_day = _growth_per_day([each for each in growths if each.age_s > 0], remaining)
    full_at = None if remaining is None else _full_at(remaining, per_day)
    return DiskForecast(size, limit, None if per_day is None else round(per_day), full_at)


def _growth_per_day(growths: list[_Growth], remaining_bytes: int | None) -> float | None:
    """The growth since the oldest size, or since a newer one if that predicts an earlier date and may do so."""
    candidates = [each.per_day for each in growths[:1] if each.age_s >= MIN_AGE_S]
    if remaining_bytes is not None:
        candidates += [each.per_day for each in growths if 0 < remaining_bytes <= each.growth]
    return max(candidates, default=None)


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
