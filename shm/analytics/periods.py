"""The moments that a chart of a period has a value for: ends of hours, days or weeks in UTC, and at last now. Pure."""

from datetime import datetime, timedelta
from typing import Literal

Period = Literal["24h", "7d", "30d", "3m", "1y", "all"]

HOUR, DAY, WEEK = timedelta(hours=1), timedelta(days=1), timedelta(days=7)
MAX_POINTS = 400  # wider than any terminal, and a megabyte of JSON at most with all keys

LENGTHS = {"24h": DAY, "7d": WEEK, "30d": timedelta(days=30), "3m": timedelta(days=90), "1y": timedelta(days=365)}
STEPS = {"24h": HOUR, "7d": timedelta(hours=6), "30d": DAY, "3m": DAY, "1y": WEEK}

MONDAY = datetime.fromisoformat("2024-01-01T00:00:00Z")  # all steps count from one


def bucket_ends(period: Period, now: datetime, earliest: datetime) -> list[datetime]:
    """Bucket ends within the period, the oldest first, all before `now`; `all` begins at `earliest`."""
    length = now - earliest if period == "all" else LENGTHS[period]
    step = STEPS.get(period) or _step_for(length)
    last = MONDAY + (now - MONDAY) // step * step
    last -= step if last == now else timedelta()
    count = min(max(1, -(-length // step)), MAX_POINTS - 1)
    return [last - step * back for back in reversed(range(count))]


def _step_for(length: timedelta) -> timedelta:
    """A day, or as many weeks as it takes to stay within the number of points."""
    if length <= DAY * (MAX_POINTS - 1):
        return DAY
    return WEEK * -(-length // (WEEK * (MAX_POINTS - 1)))
