"""Metrics over time: `GET metrics/{app}`. The last value is what the KPIs read now.

Sums, means and counts come from the series, which cost the same with any history. Aggregates that need the distribution
of the values (`shm.core.aggregates`), such as a median, are computed from the raw snapshots.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

import msgspec

from shm.analytics import applications, periods, series
from shm.analytics.applications import AppConfig
from shm.analytics.kpis import MAX_KEYS, KpiReader
from shm.analytics.periods import Period
from shm.analytics.series import Sample
from shm.analytics.single_flight_cache import SingleFlightCache
from shm.core import aggregates
from shm.core import metric_keys as metrics
from shm.core.aggregates import Aggregate
from shm.core.errors import QueryTooSlow
from shm.core.json_types import Timestamp
from shm.core.settings import Settings
from shm.db.database import Database
from shm.db.statement_runner import Reader

Values = list[Decimal | None]


class FlagSeries(msgspec.Struct):
    """A boolean over time: how many said true, of how many that answered."""

    true: list[int | None]
    instances: list[int | None]


class MetricSeries(msgspec.Struct):
    """The body of `GET metrics/{app}`. Each list is as long as `timestamps`; null where nothing was known.

    Value `i` is as of `timestamps[i]`. The last bucket, from `running_since` to the last timestamp, which is now, is
    still running. `instances`: how many answered each of `metrics`.
    """

    app: str
    period: Period
    running_since: Timestamp
    timestamps: list[Timestamp]
    metrics: dict[str, Values]
    instances: dict[str, list[int | None]]
    flags: dict[str, FlagSeries]


@dataclass(frozen=True, slots=True)
class _SpreadAt:
    at: datetime
    key: str
    min: Decimal
    p50: Decimal
    p90: Decimal
    max: Decimal


class ChartReader:
    """Reads series of one database's applications."""

    def __init__(self, database: Database, kpis: KpiReader, reckoned: SingleFlightCache, settings: Settings) -> None:
        self._database = database
        self._kpis = kpis
        self._reckoned = reckoned
        self._oldest = settings.max_snapshot_age

    async def read_series(self, app: str, period: Period, keys: Sequence[str] | None) -> MetricSeries:
        """Of an application, by slug or name: these keys, or those that most instances answer now. Raises NotFound.

        All of it is true at one moment but for past values of keys that are no sums, which may be a minute old.
        """
        now = datetime.now(UTC)

        async def read(reader: Reader) -> _Read:
            config = await applications.read_config(reader, await applications.resolve_slug(reader, app))
            points = periods.bucket_ends(period, now, config.created_at - self._oldest)
            readings = await _readings(reader, config, keys, points)
            spread = _spread_keys(config, readings)
            kpis = (await self._kpis.read(reader, config.slug))[1].kpis if spread else []
            current = {kpi.key: kpi.value for kpi in kpis}
            return _Read(config, points, readings, spread, current)

        found = await self._database.read_consistently(read)
        return _told(found.config, period, [*found.points, now], found.readings, await self._spreads(found))

    async def _spreads(self, of: "_Read") -> dict[str, Values]:
        """Of keys that are no sums: their values at the points, and now. Null where that takes too long to compute."""
        if not of.spread:
            return {}

        async def compute() -> list[_SpreadAt]:
            parameters = {"app": of.config.slug, "keys": sorted(of.spread), "points": of.points}
            return await self._database.fetch(_SpreadAt, "series.select_past_distributions", **parameters)

        try:
            _, rows = await self._reckoned.get(("spread_at", of.config.slug, *of.points, *sorted(of.spread)), compute)
        except QueryTooSlow:
            rows = []
        place_of = {at: place for place, at in enumerate(of.points)}
        found: dict[str, Values] = {key: [*[None] * len(of.points), of.current.get(key)] for key in of.spread}
        for row in rows:
            found[row.key][place_of[row.at]] = aggregates.aggregate_value(of.spread[row.key], None, 0, row)
        return found


@dataclass(frozen=True, slots=True)
class _Read:
    """What was read at one moment. `spread`: keys that are no sums, with their aggregates; `current`: the KPIs."""

    config: AppConfig
    points: list[datetime]
    readings: series.SamplesByKey
    spread: dict[str, Aggregate]
    current: dict[str, Decimal | None]


async def _readings(
    reader: Reader, config: AppConfig, keys: Sequence[str] | None, points: list[datetime]
) -> series.SamplesByKey:
    """At `points`, and now, by name."""
    current = await series.read_current(reader, config.slug, keys, MAX_KEYS)
    wanted = _shown({row.key for row in current} if keys is None else set(keys), config)
    past = await series.read_samples(reader, config.slug, ("number", "boolean"), wanted, points)
    for row in current:
        if row.key in wanted:
            name = row.metric_type, row.key, row.value
            past.setdefault(name, [None] * len(points)).append((row.total, int(row.instances)))
    return {name: [*known, *[None] * (len(points) + 1 - len(known))] for name, known in sorted(past.items())}


def _spread_keys(config: AppConfig, readings: series.SamplesByKey) -> dict[str, Aggregate]:
    found = {key: _aggregate_of(key, config) for metric_type, key, _ in readings if metric_type == "number"}
    return {key: aggregate for key, aggregate in found.items() if aggregates.needs_distribution(aggregate)}


def _shown(keys: Set[str], config: AppConfig) -> list[str]:
    """A hidden one is not told to whoever asks for it by name either."""
    return sorted(key for key in keys if not config.overrides.get(key, metrics.NO_OVERRIDE).hidden)


def _aggregate_of(key: str, config: AppConfig) -> Aggregate:
    return metrics.describe(key, config.overrides.get(key, metrics.NO_OVERRIDE)).aggregate


def _told(
    config: AppConfig,
    period: Period,
    timestamps: list[datetime],
    readings: Mapping[series.SeriesKey, Sequence[Sample | None]],
    spreads: Mapping[str, Values],
) -> MetricSeries:
    first = 0
    if period == "all":  # nothing is known of the time before the first snapshot
        first = min((_first_known(known) for known in readings.values()), default=len(timestamps))
        first = min(first, len(timestamps) - 2)
    told = MetricSeries(config.slug, period, timestamps[-2], timestamps[first:], {}, {}, {})
    for (metric_type, key, _), known in readings.items():
        values = known[first:]
        answered = [None if each is None else each[1] for each in values]
        if metric_type == "boolean":
            told.flags[key] = FlagSeries([None if each is None else int(each[0]) for each in values], answered)
        else:
            aggregate = _aggregate_of(key, config)
            told.metrics[key] = (
                spreads[key][first:] if key in spreads else [_aggregated(each, aggregate) for each in values]
            )
            told.instances[key] = answered
    return told


def _first_known(known: Sequence[Sample | None]) -> int:
    return next((place for place, each in enumerate(known) if each is not None), len(known))


def _aggregated(reading: Sample | None, aggregate: Aggregate) -> Decimal | None:
    if reading is None:
        return None
    total, instances = reading
    return aggregates.aggregate_value(aggregate, total, instances)
