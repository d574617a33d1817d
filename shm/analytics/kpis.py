"""KPIs: the aggregate of each metric of an application over the current snapshots. This module defines them.

Sums and counts come from the tallies. The statements that change instances update the tallies, so a read costs the same
at any fleet size. A response is read in one transaction: all of it, including the overrides, is of one moment and of
one feed cursor. Only the distributions of large fleets (`shm.analytics.percentiles`) are older. KPIs over a filter are
in `shm.analytics.filtered_kpis`, those of the past in `shm.analytics.past_kpis`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol, TypeVar

import msgspec

from shm.analytics import applications, counts
from shm.analytics.applications import AppConfig
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
    """The body of `GET applications/{slug}/kpis`: business metrics first, then by key.

    `reporting`: how many instances the KPIs are over. With a filter, `instances` and `kpis` are those of the instances
    that it selects. `instances`, `categories` and `keys` are null as of a day in the past.
    """

    app: str
    name: str
    as_of: Timestamp
    spread_as_of: Timestamp | None
    active_window_s: int
    instances: InstanceCounts | None
    reporting: int
    kpis: list[Kpi]
    flags: list[Flag]
    categories: list[Category] | None
    keys: AggregatedKeys | None


@dataclass(frozen=True, slots=True)
class KpiRow:
    """A row of the part `kpi_rows` in `sql/parts/kpis.sql`."""

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


@dataclass(frozen=True, slots=True)
class KpiRows:
    """The rows of an application's KPIs, with the application that they are of."""

    config: AppConfig
    rows: list[KpiRow]

    @property
    def head(self) -> KpiRow:
        """The row that is not of a metric."""
        return next(row for row in self.rows if row.section == "head")

    @property
    def cursor(self) -> int:
        """The feed cursor at which all rows are current."""
        return int(self.head.instances)

    def numbers(self) -> list[KpiRow]:
        """The numbers that are not hidden."""
        return [row for _, row in self._described("numbers")]

    def to_response(
        self,
        distributions: Mapping[str, MetricDistribution],
        instances: InstanceCounts,
        reporting: int,
        as_of: datetime,
        settings: Settings,
    ) -> ApplicationKpis:
        """The response, with these distributions by key."""
        return ApplicationKpis(
            app=self.config.slug,
            name=self.config.name,
            as_of=as_of,
            spread_as_of=min((distribution.as_of for distribution in distributions.values()), default=None),
            active_window_s=int(settings.active_window.total_seconds()),
            instances=instances,
            reporting=reporting,
            kpis=[
                to_kpi(description, row.total, int(row.instances), distributions.get(row.key, NOT_COMPUTED))
                for description, row in self._described("numbers")
            ],
            flags=[
                to_flag(description, row.total, int(row.instances)) for description, row in self._described("flags")
            ],
            categories=[_category(description, row) for description, row in self._described("categories")],
            keys=AggregatedKeys(int(self.head.total), settings.max_keys, self.head.refused_at),
        )

    def _described(self, section: str) -> list[tuple[metric_keys.Description, KpiRow]]:
        return describe_visible((row for row in self.rows if row.section == section), self.config)


_top = msgspec.json.Decoder(list[CategoryValue])


class KpiReader:
    """Reads KPIs from one database."""

    def __init__(self, database: Database, distributions: DistributionReader, settings: Settings) -> None:
        self._database = database
        self._distributions = distributions
        self._settings = settings

    async def read_application(self, slug: str, *, counted_only: bool = False) -> tuple[int, ApplicationKpis]:
        """The KPIs of an application, and the feed cursor at which they are current. Raises NotFound."""
        return await self._database.read_consistently(lambda reader: self.read(reader, slug, counted_only=counted_only))

    async def read(self, reader: Reader, slug: str, *, counted_only: bool = False) -> tuple[int, ApplicationKpis]:
        """As `read_application`, with a reader whose statements see one snapshot of the database."""
        config = await applications.read_config(reader, slug)
        as_of = self._database.clock.now()
        rows = KpiRows(
            config,
            await reader.fetch(
                KpiRow,
                "kpis.select_kpis",
                app=slug,
                counted_only=counted_only,
                max_keys=MAX_KEYS,
                max_values=MAX_VALUES,
            ),
        )
        tallies = await counts.read_tallies(reader, slug)
        instances = counts.sum_tallies(tallies)
        stored_distributions = {row.key: (int(row.instances), row.distribution) for row in rows.numbers()}
        distributions = await self._distributions.read(
            reader, slug, counted_only, instances.total, stored_distributions
        )
        reporting = counts.count_reporting(tallies, counted_only=counted_only)
        return rows.cursor, rows.to_response(distributions, instances, reporting, as_of, self._settings)


class _HasKey(Protocol):
    @property
    def key(self) -> str: ...


T = TypeVar("T", bound=_HasKey)


def describe_visible(rows: Iterable[T], config: AppConfig) -> list[tuple[metric_keys.Description, T]]:
    """The rows without hidden metrics, each with the description of its metric, in the order of a response."""
    described = [(metric_keys.describe(row.key, config.override_of(row.key)), row) for row in rows]
    shown = [pair for pair in described if not pair[0].hidden]
    return sorted(shown, key=lambda pair: (pair[0].kind, pair[0].key))


def to_kpi(
    description: metric_keys.Description, total: Decimal, instances: int, distribution: aggregates.Distribution
) -> Kpi:
    """The KPI of a number with this sum over `instances` instances."""
    return Kpi(
        key=description.key,
        label=description.label,
        kind=description.kind,
        aggregate=description.aggregate,
        unit=description.unit,
        format=description.format,
        value=aggregates.aggregate_value(description.aggregate, total, instances, distribution),
        instances=instances,
        min=distribution.min,
        p50=distribution.p50,
        p90=distribution.p90,
        max=distribution.max,
    )


def to_flag(description: metric_keys.Description, total: Decimal, instances: int) -> Flag:
    """The flag that `total` of `instances` instances report as true."""
    return Flag(description.key, description.label, description.kind, int(total), instances)


def _category(description: metric_keys.Description, row: KpiRow) -> Category:
    values = _top.decode(row.top) if row.top is not None else []
    return Category(
        description.key, description.label, description.kind, values, int(row.other or 0), int(row.instances)
    )
