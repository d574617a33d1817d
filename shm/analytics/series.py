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
    positions: list[int]
    totals: list[Decimal]
    instances: list[int]


async def read_current(reader: Reader, app: str, keys: Sequence[str] | None, limit: int) -> list[CurrentValue]:
    """Current values of numbers and booleans: of these keys, or of those that most instances report."""
    return await reader.fetch(
        CurrentValue, "series.select_current", app=app, keys=None if keys is None else list(keys), limit=limit
    )


async def read_current_versions(reader: Reader, app: str, limit: int) -> list[CurrentValue]:
    """The versions with the most instances."""
    return await reader.fetch(CurrentValue, "series.select_current_versions", app=app, limit=limit)


async def read_samples(
    reader: Reader, app: str, metric_types: Sequence[str], keys: Sequence[str], points: Sequence[datetime]
) -> SamplesByKey:
    """The values at `points`, which are ascending ends of hours.

    Each list is as long as `points`; a sample is None if there is no value at its point.
    """
    head = await reader.fetch_one(_Head, "series.select_head")
    assert head is not None  # noqa: S101 - the table always has its one row
    closed = [at for at in points if at <= head.closed_until and _is_midnight(at)]
    if len(closed) < sum(at <= head.closed_until for at in points):
        closed = []  # steps within days: all values are computed from hours
    frozen = [at for at in points[len(closed) :] if head.frozen_until is not None and at < head.frozen_until]
    frozen_points = len(frozen)  # frozen days come from an earlier rollup, and the hours do not match them
    open_points = list(points[len(closed) + frozen_points :])
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
    return _samples_by_key(rows, len(closed), frozen_points, len(open_points))


def _samples_by_key(rows: Sequence[_Row], closed: int, frozen_points: int, open_points: int) -> SamplesByKey:
    result: SamplesByKey = {}
    for row in rows:
        series = result.setdefault(
            (row.metric_type, row.key, row.value), [None] * (closed + frozen_points + open_points)
        )
        samples = zip(row.positions, row.totals, row.instances, strict=True)
        if row.is_closed:
            for position, total, instances in samples:
                series[position - 1] = _sample((total, instances))
            continue
        deltas: list[Sample] = [(Decimal(), 0)] * (open_points + 1)
        for position, total, instances in samples:
            deltas[position] = (total, instances)
        total, instances = deltas[0]
        for position, (delta, delta_instances) in enumerate(deltas[1:], closed + frozen_points):
            total, instances = EXACT.add(total, delta), instances + delta_instances
            series[position] = _sample((total, instances))
    return {key: samples for key, samples in result.items() if any(samples)}  # keys of erased installs are dropped


def _sample(sample: Sample) -> Sample | None:
    """A sample, or None if no instance reported it."""
    return sample if sample[1] > 0 else None


def _is_midnight(at: datetime) -> bool:
    return at == _midnight_before(at)


def _midnight_before(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
