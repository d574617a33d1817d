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
    """A day in UTC. `active` at its end; of the last one, which is running, now."""

    day: date
    new: int
    active: int
    lost: int
    returned: int
    revoked: int


class Cohort(msgspec.Struct):
    """Instances first seen in the week that begins on `week`, a Monday: how many there are (`size`), and how many of
    them were active at the week's end and at the end of each week after it (`active`), as far as it has been.
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
    absent: bool
    cohort: datetime
    gone_from: datetime | None
    back_from: datetime | None
    instances: int


async def read_lifecycle(database: Database, cache: SingleFlightCache, slug: str, period: Period) -> Lifecycle:
    """Reads the lifecycle of an application. Raises NotFound."""
    await applications.read_config(database, slug)

    async def compute(reader: Reader) -> tuple[list[_EventCount], list[_CohortRow]]:
        since = _monday(datetime.now(UTC)) - WEEK * (MAX_COHORTS - 1)
        return (
            await reader.fetch(_EventCount, "lifecycle.count_events_by_day", app=slug),
            await reader.fetch(_CohortRow, "lifecycle.count_cohorts", app=slug, since=since),
        )

    as_of, (events, rows) = await cache.get(("lifecycle", slug), lambda: database.read_consistently(compute))
    days = _days(events, as_of)
    length = periods.LENGTHS.get(period, DAY * MAX_DAYS)
    return Lifecycle(
        app=slug,
        period=period,
        as_of=as_of,
        days=days[-max(1, length // DAY) :],
        cohorts=[each for each in _cohorts(rows, as_of) if _at(each.week) > as_of - max(length, WEEK) - WEEK],
    )


def _days(events: list[_EventCount], as_of: datetime) -> list[Day]:
    """Each day from the first event until today."""
    counts: dict[tuple[str, date], int] = {(each.event, each.day.date()): each.instances for each in events}
    today = as_of.date()
    day = max(min((known for _, known in counts), default=today), today - DAY * (MAX_DAYS - 1))
    active = sum(
        count * (1 if event in ("joined", "returned") else -1)
        for (event, known), count in counts.items()
        if known < day and event != "new"
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
    weeks = sorted({each.cohort for each in rows})
    return [_cohort(week, [each for each in rows if each.cohort == week], as_of) for week in weeks]


def _cohort(week: datetime, rows: list[_CohortRow], as_of: datetime) -> Cohort:
    ends = [week + WEEK * number for number in range(1, (as_of - week) // WEEK + 1)]
    cohort = Cohort(week.date(), sum(each.instances for each in rows if not each.absent), [])
    for end in ends:
        gone = sum(
            each.instances
            for each in rows
            if each.gone_from is not None
            and each.gone_from <= end
            and (not each.absent or (each.back_from is not None and end < each.back_from))
        )
        cohort.active.append(cohort.size - gone)
    return cohort


def _monday(moment: datetime) -> datetime:
    return _at(moment.date() - timedelta(days=moment.weekday()))


def _at(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
