"""New, active, lost and returned instances by day, and the survival of weekly cohorts."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Literal

import msgspec

from shm.analytics import applications, periods
from shm.analytics.periods import DAY, WEEK, Period
from shm.analytics.single_flight_cache import SingleFlightCache
from shm.core.json_types import Timestamp
from shm.db.database import Database
from shm.db.statement_runner import Reader

MAX_DAYS = 1_100  # three years; older days are left out
MAX_COHORTS = 53


class Day(msgspec.Struct):
    """A day in UTC. `active` is as of its end, for the current day as of now."""

    day: date
    new: int
    active: int
    lost: int
    returned: int
    revoked: int


class Cohort(msgspec.Struct):
    """Instances first seen in the week that begins on `week`, a Monday.

    `size` is their number; `active` is how many of them were active at the end of this week and of each later week
    that is over.
    """

    week: date
    size: int
    active: list[int]


class Lifecycle(msgspec.Struct):
    """The body of `GET applications/{slug}/lifecycle`, computed from the whole fleet and cached; `as_of`: its time.

    New: first seen. Lost: not seen for the active window. Returned: seen again after that. Revoked instances are
    not active.
    """

    app: str
    period: Period
    as_of: Timestamp
    days: list[Day]
    cohorts: list[Cohort]


@dataclass(frozen=True, slots=True)
class _EventCount:
    event: Literal["new", "joined", "lost", "returned", "revoked"]
    day: datetime
    instances: int


@dataclass(frozen=True, slots=True)
class _CohortRow:
    is_absence: bool
    cohort: datetime
    inactive_from: datetime | None
    active_again_from: datetime | None
    instances: int


async def read_lifecycle(database: Database, cache: SingleFlightCache, slug: str, period: Period) -> Lifecycle:
    """Reads the lifecycle of an application. Raises NotFound."""
    await applications.read_config(database, slug)

    async def compute(reader: Reader) -> tuple[list[_EventCount], list[_CohortRow]]:
        since = _monday(database.clock.now()) - WEEK * (MAX_COHORTS - 1)
        return (
            await reader.fetch(_EventCount, "lifecycle.count_events_by_day", app=slug),
            await reader.fetch(_CohortRow, "lifecycle.count_cohorts", app=slug, since=since),
        )

    as_of, (events, rows) = await cache.get(("lifecycle", slug), lambda: database.read_consistently(compute))
    days = _days(events, as_of)
    length = periods.PERIOD_LENGTHS.get(period, DAY * MAX_DAYS)
    return Lifecycle(
        app=slug,
        period=period,
        as_of=as_of,
        days=days[-max(1, length // DAY) :],
        cohorts=[
            cohort for cohort in _cohorts(rows, as_of) if _midnight(cohort.week) > as_of - max(length, WEEK) - WEEK
        ],
    )


def _days(events: list[_EventCount], as_of: datetime) -> list[Day]:
    """Each day from the first event until today."""
    counts: dict[tuple[str, date], int] = {(row.event, row.day.date()): row.instances for row in events}
    today = as_of.date()
    day = max(min((event_day for _, event_day in counts), default=today), today - DAY * (MAX_DAYS - 1))
    active = sum(
        count * (1 if event in ("joined", "returned") else -1)
        for (event, event_day), count in counts.items()
        if event_day < day and event != "new"
    )
    days = []
    while day <= today:
        new, joined, lost, returned, revoked = (
            counts.get((event, day), 0) for event in ("new", "joined", "lost", "returned", "revoked")
        )
        active += joined + returned - lost - revoked
        days.append(Day(day, new, active, lost, returned, revoked))
        day += DAY
    return days


def _cohorts(rows: list[_CohortRow], as_of: datetime) -> list[Cohort]:
    weeks = sorted({row.cohort for row in rows})
    return [_cohort(week, [row for row in rows if row.cohort == week], as_of) for week in weeks]


def _cohort(week: datetime, rows: list[_CohortRow], as_of: datetime) -> Cohort:
    ends = [week + WEEK * number for number in range(1, (as_of - week) // WEEK + 1)]
    cohort = Cohort(week.date(), sum(row.instances for row in rows if not row.is_absence), [])
    for end in ends:
        inactive = sum(
            row.instances
            for row in rows
            if row.inactive_from is not None
            and row.inactive_from <= end
            and (not row.is_absence or (row.active_again_from is not None and end < row.active_again_from))
        )
        cohort.active.append(cohort.size - inactive)
    return cohort


def _monday(time: datetime) -> datetime:
    return _midnight(time.date() - timedelta(days=time.weekday()))


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
