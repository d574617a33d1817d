"""Instances of an application grouped by a column or a metric, and another metric aggregated over each group."""

from dataclasses import dataclass
from decimal import Decimal

import msgspec

from shm.analytics import applications
from shm.analytics.single_flight_cache import SingleFlightCache
from shm.core import aggregates, metric_keys
from shm.core.aggregates import Aggregate
from shm.core.json_types import Timestamp
from shm.db.database import Database

MAX_VALUES = 50  # values with their own group; `rest` combines all others


class Group(msgspec.Struct):
    """Instances with one value. `metric`: the other metric's aggregate over those that report it (`answered`)."""

    value: str | None
    instances: int
    metric: Decimal | None
    answered: int


class Breakdown(msgspec.Struct):
    """The body of `GET applications/{slug}/breakdown`: the most frequent values first; `rest`: all others.

    Covers the same instances as the KPIs. It is computed from the whole fleet and cached: `as_of` is its time.
    """

    app: str
    by: str
    metric: str | None
    aggregate: Aggregate | None
    as_of: Timestamp
    values: list[Group]
    rest: Group | None


@dataclass(frozen=True, slots=True)
class _Row:
    value: str | None
    is_rest: bool
    instances: int
    answered: int
    total: Decimal | None
    min: Decimal | None
    p50: Decimal | None
    p90: Decimal | None
    max: Decimal | None

    def group(self, aggregate: Aggregate) -> Group:
        """The row as a group, with the metric's aggregate."""
        value = aggregates.aggregate_value(aggregate, self.total, self.answered, self)
        return Group(self.value, self.instances, value, self.answered)


async def read_breakdown(
    database: Database,
    cache: SingleFlightCache,
    slug: str,
    by: str,
    metric: str | None,
    *,
    counted_only: bool,
) -> Breakdown:
    """`by`: version, os_arch, environment, deployment_mode, or the key of a string or boolean metric.

    Raises NotFound.
    """
    config = await applications.read_config(database, slug)
    aggregate = metric_keys.describe(
        metric or "", config.overrides.get(metric or "", metric_keys.NO_OVERRIDE)
    ).aggregate

    async def compute() -> list[_Row]:
        return await database.fetch(
            _Row,
            "breakdown.count_by_value",
            app=slug,
            by=by,
            metric=metric or "",
            counted_only=counted_only,
            with_distribution=metric is not None and aggregates.needs_distribution(aggregate),
            max_values=MAX_VALUES,
        )

    as_of, rows = await cache.get(("breakdown", slug, by, metric, aggregate, counted_only), compute)
    groups = [row.group(aggregate) for row in rows if not row.is_rest]
    rest = next((row.group(aggregate) for row in rows if row.is_rest), None)
    return Breakdown(slug, by, metric, aggregate if metric is not None else None, as_of, groups, rest)
