"""Metrics over time: `GET metrics/{app}`. The last value is what the KPIs read now."""

from collections.abc import Sequence, Set
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal

import msgspec

from shm import metrics, periods, series
from shm.applications import Applications, Said
from shm.database import Database
from shm.kpis import MOST_KEYS
from shm.periods import Period
from shm.series import Reading
from shm.settings import Settings


class FlagSeries(msgspec.Struct):
    """A boolean over time: how many said true, of how many that answered."""

    true: list[int | None]
    instances: list[int | None]


class MetricSeries(msgspec.Struct):
    """The body of `GET metrics/{app}`. Each list is as long as `timestamps`; null where nothing was known.

    Value `i` is as of `timestamps[i]`. The last bucket, from `running_since` to the last timestamp, which is now, is
    still running. `instances`: how many answered each of `metrics`. `aggregates`: what its values are; of one whose
    KPI is a min, a max or a median they are means, for no other figure of a fleet is kept of the past.
    """

    app: str
    period: Period
    running_since: datetime
    timestamps: list[datetime]
    metrics: dict[str, list[Decimal | None]]
    instances: dict[str, list[int | None]]
    aggregates: dict[str, Literal["sum", "avg"]]
    flags: dict[str, FlagSeries]


class Charts:
    """Reads series of one database's applications."""

    def __init__(self, database: Database, applications: Applications, settings: Settings) -> None:
        self._database = database
        self._applications = applications
        self._oldest = settings.max_snapshot_age

    async def metrics(self, app: str, period: Period, keys: Sequence[str] | None) -> MetricSeries | None:
        """Of an application, by slug or name: these keys, or those that most instances answer now. None: unknown."""
        said = await self._applications.said(app)
        if said is None:
            return None
        now = datetime.now(UTC)
        current = await series.now(self._database, said.slug, keys, MOST_KEYS)
        wanted = _shown({row.key for row in current} if keys is None else set(keys), said)
        points = periods.ends(period, now, said.created_at - self._oldest)
        past = await series.read(self._database, said.slug, ("number", "boolean"), wanted, points)
        for row in current:
            name = row.sort, row.key, row.value
            if row.key in wanted:
                past.setdefault(name, [None] * len(points)).append((row.total, int(row.instances)))
        return _told(said, period, [*points, now], past)


def _shown(keys: Set[str], said: Said) -> list[str]:
    return sorted(key for key in keys if not said.overrides.get(key, metrics.PLAIN).hidden)


def _told(
    said: Said, period: Period, timestamps: list[datetime], past: dict[series.Name, list[Reading | None]]
) -> MetricSeries:
    readings = {name: [*known, *[None] * (len(timestamps) - len(known))] for name, known in sorted(past.items())}
    first = 0
    if period == "all":  # nothing is known of the time before the first snapshot
        first = min((_first_known(known) for known in readings.values()), default=len(timestamps) - 1)
        first = min(first, len(timestamps) - 2)
    told = MetricSeries(said.slug, period, timestamps[-2], timestamps[first:], {}, {}, {}, {})
    for (sort, key, _), known in readings.items():
        values = known[first:]
        answered = [None if each is None else each[1] for each in values]
        if sort == "boolean":
            told.flags[key] = FlagSeries([None if each is None else int(each[0]) for each in values], answered)
        else:
            aggregate = metrics.naming(key, said.overrides.get(key, metrics.PLAIN)).aggregate
            told.aggregates[key] = "sum" if aggregate == "sum" else "avg"
            told.metrics[key] = [None if each is None else _aggregated(each, told.aggregates[key]) for each in values]
            told.instances[key] = answered
    return told


def _first_known(known: Sequence[Reading | None]) -> int:
    return next((place for place, each in enumerate(known) if each is not None), len(known))


def _aggregated(reading: Reading, aggregate: Literal["sum", "avg"]) -> Decimal:
    total, instances = reading
    return metrics.mean(total, instances) if aggregate == "avg" else metrics.trimmed(total)
