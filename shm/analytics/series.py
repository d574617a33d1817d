"""Time series: the values of KPIs at times in the past, and the current values.

The values at the ends of closed days are stored. Values at later times, and at times within days, are computed from the
changes of each hour. The cost of a chart therefore depends on neither the number of instances nor the length of the
history. `shm.analytics.rollup` writes the series.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from shm.core.aggregates import EXACT
from shm.db.statement_runner import Reader

SeriesKey = tuple[str, str, str]  # metric_type, key, value
Sample = tuple[Decimal, int]  # a sum, and its number of instances
SamplesByKey = dict[SeriesKey, list[Sample | None]]


@dataclass(frozen=True, slots=True)
class CurrentValue:
    """The current value of a metric, or the current number of instances of a version."""

    metric_type: str
    key: str
    value: str
    total: Decimal
    instances: Decimal


@dataclass(frozen=True, slots=True)
class _Head:
    closed_until: datetime
    frozen_until: datetime | None


@dataclass(frozen=True, slots=True)
class _Row:
    metric_type: str
    key: str
    value: str
    is_closed: bool
    places: list[int]
    totals: list[Decimal]
    instances: list[int]


async def read_current(reader: Reader, app: str, keys: Sequence[str] | None, most: int) -> list[CurrentValue]:
    """Current values of numbers and booleans: of these keys, or of those that most instances report."""
    return await reader.fetch(
        CurrentValue, "series.select_current", app=app, keys=None if keys is None else list(keys), limit=most
    )


async def read_current_versions(reader: Reader, app: str, most: int) -> list[CurrentValue]:
    """The versions with the most instances."""
    return await reader.fetch(CurrentValue, "series.select_current_versions", app=app, limit=most)


async def read_samples(
    reader: Reader, app: str, metric_types: Sequence[str], keys: Sequence[str], points: Sequence[datetime]
) -> SamplesByKey:
    """The values at `points`, which are ascending ends of hours.

    Each list is as long as `points`; a value is None if nothing is known of its point.
    """
    head = await reader.fetch_one(_Head, "series.select_head")
    assert head is not None  # noqa: S101 - the table always has its one row
    closed = [at for at in points if at <= head.closed_until and _is_midnight(at)]
    if len(closed) < sum(at <= head.closed_until for at in points):
        closed = []  # steps within days: all values are computed from hours
    within_kept = [at for at in points[len(closed) :] if head.frozen_until is not None and at < head.frozen_until]
    unknown = len(within_kept)  # frozen days are of an earlier rollup, and the hours do not match them
    open_points = list(points[len(closed) + unknown :])
    base = min(head.closed_until, _midnight_before(open_points[0])) if open_points else head.closed_until
    rows = await reader.fetch(
        _Row,
        "series.select_past",
        app=app,
        metric_types=list(metric_types),
        keys=list(keys),
        closed=closed,
        open=open_points,
        base=base if open_points else None,
        last=open_points[-1] if open_points else None,
    )
    return _readings(rows, len(closed), unknown, len(open_points))


def _readings(rows: Sequence[_Row], closed: int, unknown: int, open_points: int) -> SamplesByKey:
    found: SamplesByKey = {}
    for row in rows:
        series = found.setdefault((row.metric_type, row.key, row.value), [None] * (closed + unknown + open_points))
        readings = zip(row.places, row.totals, row.instances, strict=True)
        if row.is_closed:
            for place, total, instances in readings:
                series[place - 1] = _known((total, instances))
            continue
        moves: list[Sample] = [(Decimal(), 0)] * (open_points + 1)
        for place, total, instances in readings:
            moves[place] = (total, instances)
        total, instances = moves[0]
        for place, (by, by_instances) in enumerate(moves[1:], closed + unknown):
            total, instances = EXACT.add(total, by), instances + by_instances
            series[place] = _known((total, instances))
    return {name: known for name, known in found.items() if any(known)}  # erased installs leave no key behind


def _known(reading: Sample) -> Sample | None:
    return reading if reading[1] > 0 else None


def _is_midnight(at: datetime) -> bool:
    return at == _midnight_before(at)


def _midnight_before(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
