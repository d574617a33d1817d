"""The histogram of a metric over the current snapshots of an application: instances by the size of their value.

All counts are exact. They are computed from all instances that a filter selects. The histogram of all instances is
cached; those of filters take their turns (`shm.analytics.scan_limiter`).
"""

from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise

import msgspec

from shm.analytics import applications
from shm.analytics.buckets import Scale, ValueRange, bucket_bounds
from shm.analytics.instances import InstanceConditions
from shm.analytics.scan_limiter import MAX_SCAN_S, ScanLimiter
from shm.analytics.single_flight_cache import SingleFlightCache
from shm.core import metric_keys
from shm.core.json_types import Timestamp
from shm.db.database import Database
from shm.db.statement_runner import Reader

PERCENTILE_FRACTIONS = {
    "p10": "0.1",
    "p25": "0.25",
    "p50": "0.5",
    "p75": "0.75",
    "p90": "0.9",
    "p95": "0.95",
    "p99": "0.99",
}


class Percentiles(msgspec.Struct):
    """Values that these shares of the instances do not exceed, interpolated between the two nearest values."""

    p10: Decimal
    p25: Decimal
    p50: Decimal
    p75: Decimal
    p90: Decimal
    p95: Decimal
    p99: Decimal


class Bucket(msgspec.Struct):
    """The number of instances whose value is at least `lower` and less than `upper`."""

    lower: Decimal
    upper: Decimal
    instances: int


class Histogram(msgspec.Struct):
    """The body of `GET applications/{slug}/histogram`. The buckets adjoin; the first and the last have instances.

    `scale`: `linear` if all buckets have the same width; `log` if they grow with the values, with one for zero. Covers
    the same instances as the KPIs, of those that the filter selects. `as_of` is its time: it may be cached.
    `unknown_keys`: the metric, if no current snapshot has it or it is hidden.
    """

    app: str
    metric: str
    unit: str | None
    format: metric_keys.NumberFormat
    as_of: Timestamp
    instances: int
    min: Decimal | None
    max: Decimal | None
    percentiles: Percentiles | None
    scale: Scale
    buckets: list[Bucket]
    unknown_keys: list[str]


@dataclass(frozen=True, slots=True)
class _Summary:
    instances: int
    min: Decimal
    max: Decimal
    min_positive: Decimal | None
    are_integers: bool
    percentiles: list[Decimal]


@dataclass(frozen=True, slots=True)
class _Count:
    position: int
    instances: int


@dataclass(frozen=True, slots=True)
class _Data:
    summary: _Summary
    scale: Scale
    buckets: list[Bucket]


async def read_histogram(
    database: Database,
    cache: SingleFlightCache,
    scans: ScanLimiter,
    slug: str,
    metric: str,
    conditions: InstanceConditions,
    *,
    counted_only: bool,
) -> Histogram:
    """The histogram of a number. A hidden metric is answered as one that no install sends.

    Raises NotFound, BadRequest, QueryTooSlow if the scan takes too long, and DatabaseBusy if too many scans wait.
    """
    config = await applications.read_config(database, slug)
    description = metric_keys.describe(metric, config.override_of(metric))
    parameters = {
        **conditions.parameters_of(slug),
        "conditions": conditions.to_conditions(await applications.select_hidden_keys(database)),
        "counted_only": counted_only,
        "key": metric,
    }
    is_unknown = description.hidden or await applications.select_unknown_keys(database, slug, [metric])

    async def read(reader: Reader) -> _Data | None:
        summary = await reader.fetch_one(
            _Summary, "histogram.summarize", shares=[*PERCENTILE_FRACTIONS.values()], **parameters
        )
        if summary is None:
            return None
        p50 = summary.percentiles[[*PERCENTILE_FRACTIONS].index("p50")]
        scale, bounds = bucket_bounds(
            ValueRange(summary.min, p50, summary.max, summary.min_positive, summary.are_integers)
        )
        rows = await reader.fetch(_Count, "histogram.count_by_bucket", bounds=bounds, **parameters)
        counts = {row.position: row.instances for row in rows}
        return _Data(
            summary,
            scale,
            [
                Bucket(lower, upper, counts.get(position, 0))
                for position, (lower, upper) in enumerate(pairwise(bounds), 1)
            ],
        )

    async def scan() -> _Data | None:
        return await database.read_consistently(read, MAX_SCAN_S)

    as_of, data = database.clock.now(), None
    if not description.hidden and conditions.selects_all:
        as_of, data = await cache.get(("histogram", slug, metric, counted_only), scan)
    elif not description.hidden:
        async with scans.slot():
            as_of, data = database.clock.now(), await scan()
    summary = None if data is None else data.summary
    return Histogram(
        app=slug,
        metric=metric,
        unit=description.unit,
        format=description.format,
        as_of=as_of,
        instances=0 if summary is None else summary.instances,
        min=None if summary is None else summary.min,
        max=None if summary is None else summary.max,
        percentiles=None
        if summary is None
        else Percentiles(**dict(zip(PERCENTILE_FRACTIONS, summary.percentiles, strict=True))),
        scale="linear" if data is None else data.scale,
        buckets=[] if data is None else data.buckets,
        unknown_keys=[metric] if is_unknown else [],
    )
