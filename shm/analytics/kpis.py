"""KPIs: the aggregate of each metric of an application over the current snapshots. This module defines them.

Sums and counts come from the tallies. The statements that change instances update the tallies, so a read costs the same
at any fleet size. A response is read in one transaction: all of it, including the overrides, is of one moment and of
one feed cursor. Only the distributions of large fleets (`shm.analytics.percentiles`) are older.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import msgspec

from shm.analytics import applications, counts
from shm.analytics.counts import InstanceCounts
from shm.analytics.percentiles import NOT_COMPUTED, DistributionReader, MetricDistribution
from shm.core import aggregates, metric_keys
from shm.core.json_types import Timestamp
from shm.core.settings import Settings
from shm.db.database import Database
from shm.db.statement_runner import Reader

MAX_KEYS = 500  # of each type (numbers, flags, categories): a client with more generates keys, like a log
MAX_VALUES = 20  # of a category; `other` combines the rest


class Kpi(msgspec.Struct):
    """The aggregate of a number. `instances`: how many report it. `format`: the notation of its values.

    `min`, `p50`, `p90`, `max`, and a `value` that is one of them, are as of `spread_as_of`, and null until they are
    computed.
    """

    key: str
    label: str
    kind: metric_keys.Kind
    aggregate: aggregates.Aggregate
    unit: str | None
    format: metric_keys.NumberFormat
    value: Decimal | None
    instances: int
    min: Decimal | None
    p50: Decimal | None
    p90: Decimal | None
    max: Decimal | None


class Flag(msgspec.Struct):
    """A boolean. `true`: how many instances report true. `instances`: how many report it."""

    key: str
    label: str
    kind: metric_keys.Kind
    true: int
    instances: int


class CategoryValue(msgspec.Struct):
    """One value of a category and the number of instances that report it."""

    value: str
    instances: int


class Category(msgspec.Struct):
    """A short string: the instances of each value, the most frequent first; `other`: those of all further values."""

    key: str
    label: str
    kind: metric_keys.Kind
    values: list[CategoryValue]
    other: int
    instances: int


class AggregatedKeys(msgspec.Struct):
    """How many keys of an application are aggregated, at most `limit` (SHM_MAX_KEYS) and those with a setting.

    `refused_at`: when a snapshot last had a key beyond the limit, or a value beyond that of a string (SHM_MAX_VALUES).
    These are stored with their snapshots and are in no figure. Null: not in the last 7 days.
    """

    count: int
    limit: int
    refused_at: Timestamp | None


class ApplicationKpis(msgspec.Struct):
    """The body of `GET applications/{slug}/kpis`: business metrics first, then by key."""

    app: str
    name: str
    as_of: Timestamp
    spread_as_of: Timestamp | None
    active_window_s: int
    instances: InstanceCounts
    kpis: list[Kpi]
    flags: list[Flag]
    categories: list[Category]
    keys: AggregatedKeys


@dataclass(frozen=True, slots=True)
class _Row:
    section: str
    key: str
    instances: Decimal | int
    total: Decimal
    other: Decimal | None
    top: msgspec.Raw | None
    min: Decimal | None
    p50: Decimal | None
    p90: Decimal | None
    max: Decimal | None
    distribution_as_of: datetime | None
    refused_at: datetime | None

    @property
    def distribution(self) -> MetricDistribution | None:
        """The stored distribution, computed in the background; None if there is none."""
        if self.distribution_as_of is None:
            return None
        return MetricDistribution(self.key, self.min, self.p50, self.p90, self.max, self.distribution_as_of)


_top = msgspec.json.Decoder(list[CategoryValue])


class KpiReader:
    """Reads KPIs from one database."""

    def __init__(self, database: Database, distributions: DistributionReader, settings: Settings) -> None:
        self._database = database
        self._distributions = distributions
        self._max_keys = settings.max_keys
        self._window_s = int(settings.active_window.total_seconds())

    async def read_application(self, slug: str, *, counted_only: bool = False) -> tuple[int, ApplicationKpis]:
        """The KPIs of an application, and the feed cursor at which they are current. Raises NotFound."""
        return await self._database.read_consistently(lambda reader: self.read(reader, slug, counted_only=counted_only))

    async def read(self, reader: Reader, slug: str, *, counted_only: bool = False) -> tuple[int, ApplicationKpis]:
        """As `read_application`, with a reader whose statements see one snapshot of the database."""
        config = await applications.read_config(reader, slug)
        as_of = self._database.clock.now()
        rows = await reader.fetch(
            _Row, "kpis.select_kpis", app=slug, counted_only=counted_only, max_keys=MAX_KEYS, max_values=MAX_VALUES
        )
        head = next(row for row in rows if row.section == "head")
        cursor = int(head.instances)
        visible = _VisibleRows(rows, config.overrides)
        numbers = visible.in_section("numbers")
        instances = counts.sum_tallies(await counts.read_tallies(reader, slug))
        stored_distributions = {row.key: (int(row.instances), row.distribution) for _, row in numbers}
        distributions = await self._distributions.read(
            reader, slug, counted_only, instances.total, stored_distributions
        )
        return cursor, ApplicationKpis(
            app=slug,
            name=config.name,
            as_of=as_of,
            spread_as_of=min((distribution.as_of for distribution in distributions.values()), default=None),
            active_window_s=self._window_s,
            instances=instances,
            kpis=[_kpi(description, row, distributions.get(row.key, NOT_COMPUTED)) for description, row in numbers],
            flags=[
                Flag(description.key, description.label, description.kind, int(row.total), int(row.instances))
                for description, row in visible.in_section("flags")
            ],
            categories=[_category(description, row) for description, row in visible.in_section("categories")],
            keys=AggregatedKeys(int(head.total), self._max_keys, head.refused_at),
        )


class _VisibleRows:
    """The rows without hidden metrics, in the order of the response."""

    def __init__(self, rows: list[_Row], overrides: Mapping[str, metric_keys.MetricOverride]) -> None:
        described = [
            (metric_keys.describe(row.key, overrides.get(row.key, metric_keys.NO_OVERRIDE)), row) for row in rows
        ]
        shown = [pair for pair in described if not pair[0].hidden]
        self._rows = sorted(shown, key=lambda pair: (pair[0].kind, pair[0].key))

    def in_section(self, section: str) -> list[tuple[metric_keys.Description, _Row]]:
        """The rows of one section."""
        return [pair for pair in self._rows if pair[1].section == section]


def _kpi(description: metric_keys.Description, row: _Row, distribution: MetricDistribution) -> Kpi:
    instances = int(row.instances)
    return Kpi(
        key=description.key,
        label=description.label,
        kind=description.kind,
        aggregate=description.aggregate,
        unit=description.unit,
        format=description.format,
        value=aggregates.aggregate_value(description.aggregate, row.total, instances, distribution),
        instances=instances,
        min=distribution.min,
        p50=distribution.p50,
        p90=distribution.p90,
        max=distribution.max,
    )


def _category(description: metric_keys.Description, row: _Row) -> Category:
    values = _top.decode(row.top) if row.top is not None else []
    return Category(
        description.key, description.label, description.kind, values, int(row.other or 0), int(row.instances)
    )
