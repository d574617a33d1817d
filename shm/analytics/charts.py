"""Metrics over time: `GET metrics/{app}`. The last value equals the current KPI.

Sums, means and counts come from the series, which cost the same with any history. Aggregates that need the distribution
of the values (`shm.core.aggregates`), such as a median, are computed from the raw snapshots.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import compress

import msgspec

from shm.analytics import applications, periods, series
from shm.analytics.applications import AppConfig
from shm.analytics.kpis import MAX_KEYS, KpiReader
from shm.analytics.past_distributions import read_past_distributions
from shm.analytics.periods import Period
from shm.analytics.series import Sample
from shm.analytics.single_flight_cache import SingleFlightCache
from shm.core import aggregates, metric_keys
from shm.core.aggregates import Aggregate
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

    Value `i` is as of `timestamps[i]`. The last timestamp is now; the last bucket, which begins at `running_since`, is
    not complete yet. `instances`: how many reported each of `metrics`. `unknown_keys`: requested keys without a value
    here that no install sends, or that are hidden.
    """

    app: str
    period: Period
    running_since: Timestamp
    timestamps: list[Timestamp]
    metrics: dict[str, Values]
    instances: dict[str, list[int | None]]
    flags: dict[str, FlagSeries]
    unknown_keys: list[str]


class ChartReader:
    """Reads series of one database's applications."""

    def __init__(self, database: Database, kpis: KpiReader, cache: SingleFlightCache, settings: Settings) -> None:
        self._database = database
        self._kpis = kpis
        self._cache = cache
        self._max_snapshot_age = settings.max_snapshot_age

    async def read_series(
        self, app: str, period: Period, keys: Sequence[str] | None, at: datetime | None = None
    ) -> MetricSeries:
        """The series of an application, by slug or name: of these keys, or of those that most instances report now.

        With `at`, a midnight of the past, the period ends then. All values are read in one transaction, except past
        values that need the distribution: these may be a minute old. Raises NotFound.
        """
        now = self._database.clock.now()

        async def read(reader: Reader) -> _ChartData:
            config = await applications.read_config(reader, await applications.resolve_slug(reader, app))
            points = periods.bucket_ends(period, at or now, config.created_at - self._max_snapshot_age)
            points += [] if at is None else [at]
            samples = await _read_samples_by_key(reader, config, keys, points, includes_now=at is None)
            distribution_aggregates = _distribution_aggregates(config, samples)
            needs_kpis = at is None and distribution_aggregates
            kpis = (await self._kpis.read(reader, config.slug))[1].kpis if needs_kpis else []
            current = {kpi.key: kpi.value for kpi in kpis}
            missing = {*(keys or ())} - {key for _, key, _ in samples}
            unknown = {*await applications.select_unknown_keys(reader, config.slug, missing)}
            unknown_keys = sorted(key for key in missing if key in unknown or config.override_of(key).hidden)
            return _ChartData(config, points, samples, distribution_aggregates, current, unknown_keys)

        data = await self._database.read_consistently(read)
        timestamps = [*data.points, now] if at is None else data.points
        values = {key: row[: len(timestamps)] for key, row in (await self._distribution_values(data)).items()}
        chart = _render(data.config, period, timestamps, data.samples, values)
        chart.unknown_keys = data.unknown_keys
        return chart

    async def _distribution_values(self, data: "_ChartData") -> dict[str, Values]:
        """The values of keys that need the distribution, at the points and now; None if computing takes too long."""
        if not data.distribution_aggregates:
            return {}
        slug, keys = data.config.slug, sorted(data.distribution_aggregates)

        rows = await read_past_distributions(self._database, self._cache, slug, keys, data.points)
        index_of = {at: index for index, at in enumerate(data.points)}
        values: dict[str, Values] = {key: [*[None] * len(data.points), data.current.get(key)] for key in keys}
        for row in rows:
            aggregate = data.distribution_aggregates[row.key]
            values[row.key][index_of[row.at]] = aggregates.aggregate_value(aggregate, None, 0, row)
        return values


@dataclass(frozen=True, slots=True)
class _ChartData:
    """The data of a chart, read in one transaction.

    `distribution_aggregates`: the keys whose aggregate needs the distribution, with this aggregate. `current`: KPIs.
    """

    config: AppConfig
    points: list[datetime]
    samples: series.SamplesByKey
    distribution_aggregates: dict[str, Aggregate]
    current: dict[str, Decimal | None]
    unknown_keys: list[str]


async def _read_samples_by_key(
    reader: Reader, config: AppConfig, keys: Sequence[str] | None, points: list[datetime], *, includes_now: bool
) -> series.SamplesByKey:
    """The samples at `points`, and with `includes_now` the current ones, by series key."""
    current = await series.read_current(reader, config.slug, keys, MAX_KEYS)
    visible_keys = _visible_keys({row.key for row in current} if keys is None else set(keys), config)
    past = await series.read_samples(reader, config.slug, ("number", "boolean"), visible_keys, points)
    if not includes_now:
        return dict(sorted(past.items()))
    for row in current:
        if row.key in visible_keys:
            series_key = row.metric_type, row.key, row.value
            past.setdefault(series_key, [None] * len(points)).append((row.total, int(row.instances)))
    return {
        series_key: [*samples, *[None] * (len(points) + 1 - len(samples))]
        for series_key, samples in sorted(past.items())
    }


def _distribution_aggregates(config: AppConfig, samples: series.SamplesByKey) -> dict[str, Aggregate]:
    by_key = {key: _aggregate_of(key, config) for metric_type, key, _ in samples if metric_type == "number"}
    return {key: aggregate for key, aggregate in by_key.items() if aggregates.needs_distribution(aggregate)}


def _visible_keys(keys: Set[str], config: AppConfig) -> list[str]:
    """The keys without hidden ones, which are omitted even if they are requested by name."""
    return sorted(key for key in keys if not config.override_of(key).hidden)


def _aggregate_of(key: str, config: AppConfig) -> Aggregate:
    return metric_keys.describe(key, config.override_of(key)).aggregate


def _render(
    config: AppConfig,
    period: Period,
    timestamps: list[datetime],
    samples: Mapping[series.SeriesKey, Sequence[Sample | None]],
    distribution_values: Mapping[str, Values],
) -> MetricSeries:
    first = 0
    if period == "all":  # there are no values before the first snapshot
        first = min((_first_index(series_samples) for series_samples in samples.values()), default=len(timestamps))
        first = min(first, len(timestamps) - 2)
    chart = MetricSeries(config.slug, period, timestamps[-2], timestamps[first:], {}, {}, {}, [])
    for (metric_type, key, _), series_samples in samples.items():
        values = series_samples[first:]
        instances = [None if sample is None else sample[1] for sample in values]
        if metric_type == "boolean":
            chart.flags[key] = FlagSeries([None if sample is None else int(sample[0]) for sample in values], instances)
        else:
            aggregate = _aggregate_of(key, config)
            chart.metrics[key] = (
                distribution_values[key][first:]
                if key in distribution_values
                else [_aggregate_sample(sample, aggregate) for sample in values]
            )
            chart.instances[key] = instances
    return chart


def without_nulls(chart: MetricSeries) -> MetricSeries:
    """The chart without metrics that never have a value, and without the times at which another one has none."""
    metrics = {key: values for key, values in chart.metrics.items() if any(value is not None for value in values)}
    flags = {key: flag for key, flag in chart.flags.items() if any(value is not None for value in flag.true)}
    lists: list[Sequence[object]] = [*metrics.values(), *(flag.true for flag in flags.values())]
    complete = [all(values[index] is not None for values in lists) for index in range(len(chart.timestamps))]
    return msgspec.structs.replace(
        chart,
        timestamps=[*compress(chart.timestamps, complete)],
        metrics={key: [*compress(values, complete)] for key, values in metrics.items()},
        instances={key: [*compress(chart.instances[key], complete)] for key in metrics},
        flags={
            key: FlagSeries([*compress(flag.true, complete)], [*compress(flag.instances, complete)])
            for key, flag in flags.items()
        },
    )


def _first_index(samples: Sequence[Sample | None]) -> int:
    return next((index for index, sample in enumerate(samples) if sample is not None), len(samples))


def _aggregate_sample(sample: Sample | None, aggregate: Aggregate) -> Decimal | None:
    if sample is None:
        return None
    total, instances = sample
    return aggregates.aggregate_value(aggregate, total, instances)
