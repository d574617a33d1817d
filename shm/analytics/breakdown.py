"""Instances of an application grouped by a column or a metric, and another metric aggregated over each group."""

from dataclasses import dataclass
from decimal import Decimal

import msgspec

from shm.analytics import applications
from shm.analytics.applications import AppConfig
from shm.analytics.single_flight_cache import SingleFlightCache
from shm.core import aggregates, metric_keys
from shm.core.aggregates import Aggregate
from shm.core.json_types import Timestamp
from shm.db.database import Database

COLUMNS = {
    "version": "app_version",
    "os_arch": "os_arch",
    "environment": "environment",
    "deployment_mode": "deployment_mode",
}
METRIC_PREFIX = "metrics."  # followed by a metric's key, which may be that of a column too
MAX_VALUES = 50  # values with their own group; `rest` combines all others


class Group(msgspec.Struct):
    """Instances with one value. `metric`: the other metric's aggregate over those that report it (`answered`).

    `min`, `p50`, `p90`, `max`: its spread over them, null unless it is requested or its aggregate needs it.
    """

    value: str | None
    instances: int
    metric: Decimal | None
    answered: int
    min: Decimal | None
    p50: Decimal | None
    p90: Decimal | None
    max: Decimal | None


class Breakdown(msgspec.Struct):
    """The body of `GET applications/{slug}/breakdown`: the most frequent values first; `rest`: all others.

    Covers the same instances as the KPIs. It is computed from the whole fleet and cached: `as_of` is its time.
    `unknown_keys`: requested metrics that no current snapshot has, or that are hidden.
    """

    app: str
    by: str
    metric: str | None
    aggregate: Aggregate | None
    as_of: Timestamp
    values: list[Group]
    rest: Group | None
    unknown_keys: list[str]


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
        return Group(self.value, self.instances, value, self.answered, self.min, self.p50, self.p90, self.max)


async def read_breakdown(
    database: Database,
    cache: SingleFlightCache,
    slug: str,
    by: str,
    metric: str | None,
    *,
    counted_only: bool,
    with_spread: bool,
) -> Breakdown:
    """`by`: one of `COLUMNS`, or the key of a string or boolean metric, with or without `METRIC_PREFIX`.

    `with_spread`: with the spread of the metric over each group. A hidden metric is answered as one that no install
    sends. Raises NotFound.
    """
    config = await applications.read_config(database, slug)
    column = COLUMNS.get(by)
    by_key = None if column is not None else by.removeprefix(METRIC_PREFIX)
    requested_keys = sorted({key for key in (by_key, metric) if key is not None})
    unknown_keys = await applications.select_unknown_keys(database, config.slug, requested_keys)
    unknown_keys = [key for key in requested_keys if key in unknown_keys or config.override_of(key).hidden]
    with_spread = with_spread and metric is not None
    aggregate = None if metric is None else metric_keys.describe(metric, config.override_of(metric)).aggregate

    async def compute() -> list[_Row]:
        return await database.fetch(
            _Row,
            "breakdown.count_by_value",
            app=slug,
            column=column,
            by=None if by_key is None or config.override_of(by_key).hidden else by_key,
            metric=None if metric is None or config.override_of(metric).hidden else metric,
            counted_only=counted_only,
            with_distribution=with_spread or (aggregate is not None and aggregates.needs_distribution(aggregate)),
            max_values=MAX_VALUES,
        )

    as_of, rows = await cache.get(
        (
            *("breakdown", slug, column, by_key, metric, aggregate, counted_only, with_spread),
            *_hidden(config, requested_keys),
        ),
        compute,
    )
    groups = [row.group(aggregate or "sum") for row in rows if not row.is_rest]
    rest = next((row.group(aggregate or "sum") for row in rows if row.is_rest), None)
    return Breakdown(slug, by, metric, aggregate, as_of, groups, rest, unknown_keys)


def _hidden(config: AppConfig, keys: list[str]) -> list[str]:
    return [key for key in keys if config.override_of(key).hidden]
