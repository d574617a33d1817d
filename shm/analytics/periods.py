"""Times of the values of a chart: ends of hours, days or weeks in UTC. A chart ends with the present value. Pure."""

from datetime import UTC, date, datetime, timedelta
from typing import Literal

from shm.core.errors import BadRequest

Period = Literal["24h", "7d", "30d", "3m", "1y", "all"]

HOUR, DAY, WEEK = timedelta(hours=1), timedelta(days=1), timedelta(days=7)
MAX_POINTS = 400  # more than the columns of any terminal; at most a megabyte of JSON with all keys

PERIOD_LENGTHS = {
    "24h": DAY,
    "7d": WEEK,
    "30d": timedelta(days=30),
    "3m": timedelta(days=90),
    "1y": timedelta(days=365),
}
BUCKET_WIDTHS = {"24h": HOUR, "7d": timedelta(hours=6), "30d": DAY, "3m": DAY, "1y": WEEK}

MONDAY = datetime.fromisoformat("2024-01-01T00:00:00Z")  # the origin of all steps, so weeks end on Mondays


MIN_YEAR = 2000  # of a time in the past: no install is older, and all periods before it are valid dates


def parse_past(day: date | None, period: Period, now: datetime) -> datetime | None:
    """The midnight (UTC) at which a day begins, for figures as of then; None for now.

    Only days are kept for good, so a period with shorter steps has no past. Raises BadRequest.
    """
    if day is None:
        return None
    at = past_midnight(day, now)
    if BUCKET_WIDTHS.get(period, DAY) < DAY:
        raise BadRequest("bad_parameter", f"at needs a period with steps of a day or more; {period} has shorter ones.")
    return at


def past_midnight(day: date, now: datetime) -> datetime:
    """The midnight (UTC) at which a day of the past begins. Raises BadRequest."""
    at = datetime(day.year, day.month, day.day, tzinfo=UTC)
    if at > now or day.year < MIN_YEAR:
        raise BadRequest("bad_parameter", f"at is a day from {MIN_YEAR}-01-01 until today, in UTC.")
    return at


def bucket_ends(period: Period, now: datetime, earliest: datetime) -> list[datetime]:
    """The ends of buckets within the period, ascending, all before `now`. The period `all` begins at `earliest`."""
    length = now - earliest if period == "all" else PERIOD_LENGTHS[period]
    step = BUCKET_WIDTHS.get(period) or _step_for(length)
    last = MONDAY + (now - MONDAY) // step * step
    last -= step if last == now else timedelta()
    count = min(max(1, -(-length // step)), MAX_POINTS - 1)
    return [last - step * back for back in reversed(range(count))]


def _step_for(length: timedelta) -> timedelta:
    """A day, or the fewest weeks that keep the number of points within `MAX_POINTS`."""
    if length <= DAY * (MAX_POINTS - 1):
        return DAY
    return WEEK * -(-length // (WEEK * (MAX_POINTS - 1)))
