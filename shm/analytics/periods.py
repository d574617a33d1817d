"""Times of the values of a chart: ends of hours, days or weeks in UTC. The last value of a chart is of now. Pure."""

from datetime import datetime, timedelta
from typing import Literal

Period = Literal["24h", "7d", "30d", "3m", "1y", "all"]

HOUR, DAY, WEEK = timedelta(hours=1), timedelta(days=1), timedelta(days=7)
MAX_POINTS = 400  # more than the columns of any terminal; at most a megabyte of JSON with all keys

LENGTHS = {"24h": DAY, "7d": WEEK, "30d": timedelta(days=30), "3m": timedelta(days=90), "1y": timedelta(days=365)}
STEPS = {"24h": HOUR, "7d": timedelta(hours=6), "30d": DAY, "3m": DAY, "1y": WEEK}

MONDAY = datetime.fromisoformat("2024-01-01T00:00:00Z")  # the origin of all steps, so weeks end on Mondays


def bucket_ends(period: Period, now: datetime, earliest: datetime) -> list[datetime]:
    """The ends of buckets within the period, ascending, all before `now`. The period `all` begins at `earliest`."""
    length = now - earliest if period == "all" else LENGTHS[period]
    step = STEPS.get(period) or _step_for(length)
    last = MONDAY + (now - MONDAY) // step * step
    last -= step if last == now else timedelta()
    count = min(max(1, -(-length // step)), MAX_POINTS - 1)
    return [last - step * back for back in reversed(range(count))]


def _step_for(length: timedelta) -> timedelta:
    """A day, or the fewest weeks that keep the number of points within `MAX_POINTS`."""
    if length <= DAY * (MAX_POINTS - 1):
        return DAY
    return WEEK * -(-length // (WEEK * (MAX_POINTS - 1)))
