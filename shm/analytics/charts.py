"""Metrics over time: `GET metrics/{app}`. The last value equals the current KPI.

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
    """A boolean over time: the number of true values, and of instances that reported it."""

    true: list[int | None]
    instances: list[int | None]


class MetricSeries(msgspec.Struct):
    """The body of `GET metrics/{app}`. Each list is as long as `timestamps`; null where there is no data.

    Value `i` is as of `timestamps[i]`. The last bucket, from `running_since` to the last timestamp, which is now, is
    still running. `instances`: how many reported each of `metrics`.
    """

    app: str
    period: Period
    running_since: Timestamp
    timestamps: list[Timestamp]
    metrics: dict[str, Values]
    instances: dict[str, list[int | None]]
    flags: dict[str, FlagSeries]


@dataclass(frozen=True, slots=True)
class _DistributionAt:
    at: datetime
    key: str
    min: Decimal
    p50: Decimal
    p90: Decimal
    max: Decimal


class ChartReader:
    """Reads series of one database's applications."""

    def __init__(self, database: Database, kpis: KpiReader, cache: SingleFlightCache, settings: Settings) -> None:
        self._database = database
        self._kpis = kpis
        self._cache = cache
        self._oldest = settings.max_snapshot_age

    async def read_series(self, app: str, period: Period, keys: Sequence[str] | None) -> MetricSeries:
        """Of an application, by slug or name: these keys, or those that most instances answer now. Raises NotFound.

        All of it is true at one moment but for past values of keys that are no sums, which may be a minute old.
        """
        now = datetime.now(UTC)

        async def read(reader: Reader) -> _ConsistentRead:
            config = await applications.read_config(reader, await applications.resolve_slug(reader, app))
            points = periods.bucket_ends(period, now, config.created_at - self._oldest)
            samples = await _read_samples_by_key(reader, config, keys, points)
            spread = _distribution_keys(config, samples)
            kpis = (await self._kpis.read(reader, config.slug))[1].kpis if spread else []
            current = {kpi.key: kpi.value for kpi in kpis}
            return _ConsistentRead(config, points, samples, spread, current)

        found = await self._database.read_consistently(read)
        return _render(
            found.config, period, [*found.points, now], found.samples, await self._distribution_values(found)
        )

    async def _distribution_values(self, of: "_ConsistentRead") -> dict[str, Values]:
        """Of keys that are no sums: their values at the points, and now. Null where that takes too long to compute."""
        if not of.spread:
            return {}

        async def compute() -> list[_DistributionAt]:
            parameters = {"app": of.config.slug, "keys": sorted(of.spread), "points": of.points}
            return await self._database.fetch(_DistributionAt, "series.select_past_distributions", **parameters)

        try:
            _, rows = await self._cache.get(("spread_at", of.config.slug, *of.points, *sorted(of.spread)), compute)
        except QueryTooSlow:
            rows = []
        index_of = {at: index for index, at in enumerate(of.points)}
        found: dict[str, Values] = {key: [*[None] * len(of.points), of.current.get(key)] for key in of.spread}
        for row in rows:
            found[row.key][index_of[row.at]] = aggregates.aggregate_value(of.spread[row.key], None, 0, row)
        return found


@dataclass(frozen=True, slots=True)
class _ConsistentRead:
    """The readings of one moment. `spread`: keys that are no sums, with their aggregates; `current`: the KPIs."""

    config: AppConfig
    points: list[datetime]
    samples: series.SamplesByKey
    spread: dict[str, Aggregate]
    current: dict[str, Decimal | None]


async def _read_samples_by_key(
    reader: Reader, config: AppConfig, keys: Sequence[str] | None, points: list[datetime]
) -> series.SamplesByKey:
    """At `points`, and now, by name."""
    current = await series.read_current(reader, config.slug, keys, MAX_KEYS)
    wanted = _visible_keys({row.key for row in current} if keys is None else set(keys), config)
    past = await series.read_samples(reader, config.slug, ("number", "boolean"), wanted, points)
    for row in current:
        if row.key in wanted:
            name = row.metric_type, row.key, row.value
            past.setdefault(name, [None] * len(points)).append((row.total, int(row.instances)))
    return {name: [*known, *[None] * (len(points) + 1 - len(known))] for name, known in sorted(past.items())}


def _distribution_keys(config: AppConfig, samples: series.SamplesByKey) -> dict[str, Aggregate]:
    found = {key: _aggregate_of(key, config) for metric_type, key, _ in samples if metric_type == "number"}
    return {key: aggregate for key, aggregate in found.items() if aggregates.needs_distribution(aggregate)}


def _visible_keys(keys: Set[str], config: AppConfig) -> list[str]:
    """Hidden keys are left out even if they are requested by name."""
    return sorted(key for key in keys if not config.overrides.get(key, metrics.NO_OVERRIDE).hidden)


def _aggregate_of(key: str, config: AppConfig) -> Aggregate:
    return metrics.describe(key, config.overrides.get(key, metrics.NO_OVERRIDE)).aggregate


def _render(
    config: AppConfig,
    period: Period,
    timestamps: list[datetime],
    samples: Mapping[series.SeriesKey, Sequence[Sample | None]],
    distribution_values: Mapping[str, Values],
) -> MetricSeries:
    first = 0
    if period == "all":  # nothing is known of the time before the first snapshot
        first = min((_first_known(known) for known in samples.values()), default=len(timestamps))
        first = min(first, len(timestamps) - 2)
    chart = MetricSeries(config.slug, period, timestamps[-2], timestamps[first:], {}, {}, {})
    for (metric_type, key, _), known in samples.items():
        values = known[first:]
        answered = [None if each is None else each[1] for each in values]
        if metric_type == "boolean":
            chart.flags[key] = FlagSeries([None if each is None else int(each[0]) for each in values], answered)
        else:
            aggregate = _aggregate_of(key, config)
            chart.metrics[key] = (
                distribution_values[key][first:]
                if key in distribution_values
                else [_aggregated(each, aggregate) for each in values]
            )
            chart.instances[key] = answered
    return chart


def _first_known(known: Sequence[Sample | None]) -> int:
    return next((index for index, each in enumerate(known) if each is not None), len(known))


def _aggregated(sample: Sample | None, aggregate: Aggregate) -> Decimal | None:
    if sample is None:
        return None
    total, instances = sample
    return aggregates.aggregate_value(aggregate, total, instances)
