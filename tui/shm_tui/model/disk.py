"""The size of the server's database as the console shows it, and a warning before its disk is full."""

from datetime import datetime, timedelta

from shm_client import DiskForecast
from shm_tui.text.formatting import duration, with_unit

WARNING_LEAD_TIME = timedelta(days=14)  # as the server's log


def database_size(disk: DiskForecast) -> str:
    """The size of the database: 1.28 GB."""
    return with_unit(disk.database_bytes, "B", "bytes")


def database_limit(disk: DiskForecast, now: datetime) -> str:
    """The size that it can reach and when it does: `of 20 GB, full in 26d`. Empty if neither is known."""
    if disk.limit_bytes is None:
        return ""
    limit = f"of {with_unit(disk.limit_bytes, 'B', 'bytes')}"
    return limit if disk.full_at is None else f"{limit}, full in {duration((disk.full_at - now).total_seconds())}"


def disk_warning(disk: DiskForecast, now: datetime) -> str:
    """`database full in 9d` in the last two weeks before; otherwise empty."""
    if disk.full_at is None or disk.full_at - now >= WARNING_LEAD_TIME:
        return ""
    return f"database full in {duration((disk.full_at - now).total_seconds())}"
