"""KPIs: the aggregate of each metric of an application over the current snapshots. This module defines them.

Sums and counts come from the tallies. The statements that change instances update the tallies, so a read costs the same
at any fleet size. A response is read in one transaction: all of it, including the overrides, is of one moment and of
one feed cursor. Only the distributions of large fleets (`shm.analytics.percentiles`) are older.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

import msgspec

from shm.analytics import applications, counts
from shm.analytics.counts import InstanceCounts
from shm.analytics.percentiles import NOT_COMPUTED, Distribution, DistributionReader
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


@dataclass(frozen=True, slots=True)
class _Part:
    part: str
    key: str
    instances: Decimal | int
    total: Decimal
    other: Decimal | None
    top: msgspec.Raw | None
    min: Decimal | None
    p50: Decimal | None
    p90: Decimal | None
    max: Decimal | None
    spread_as_of: datetime | None

    @property
    def spread(self) -> Distribution | None:
        """The last distribution that was computed in the background."""
        if self.spread_as_of is None:
            return None
        return Distribution(self.key, self.min, self.p50, self.p90, self.max, self.spread_as_of)


_top = msgspec.json.Decoder(list[CategoryValue])


class KpiReader:
    """Reads KPIs from one database."""

    def __init__(self, database: Database, spreads: DistributionReader, settings: Settings) -> None:
        self._database = database
        self._spreads = spreads
        self._window_s = int(settings.active_window.total_seconds())

    async def read_application(self, slug: str, *, counted_only: bool = False) -> tuple[int, ApplicationKpis]:
        """The KPIs of an application, and the feed cursor at which they are current. Raises NotFound."""
        return await self._database.read_consistently(lambda reader: self.read(reader, slug, counted_only=counted_only))

    async def read(self, reader: Reader, slug: str, *, counted_only: bool = False) -> tuple[int, ApplicationKpis]:
        """The same, with a reader whose statements see one snapshot of the database."""
        known = await applications.read_config(reader, slug)
        as_of = datetime.now(UTC)
        rows = await reader.fetch(
            _Part, "kpis.select_kpis", app=slug, counted_only=counted_only, max_keys=MAX_KEYS, max_values=MAX_VALUES
        )
        cursor = next(int(row.instances) for row in rows if row.part == "head")
        parts = _Parts(rows, known.overrides)
        numbers = parts.named("numbers")
        instances = counts.sum_tallies(await counts.read_tallies(reader, slug))
        known_spreads = {row.key: (int(row.instances), row.spread) for _, row in numbers}
        spreads = await self._spreads.read(reader, slug, counted_only, instances.total, known_spreads)
        return cursor, ApplicationKpis(
            app=slug,
            name=known.name,
            as_of=as_of,
            spread_as_of=min((spread.as_of for spread in spreads.values()), default=None),
            active_window_s=self._window_s,
            instances=instances,
            kpis=[_kpi(described, row, spreads.get(row.key, NOT_COMPUTED)) for described, row in numbers],
            flags=[
                Flag(described.key, described.label, described.kind, int(row.total), int(row.instances))
                for described, row in parts.named("flags")
            ],
            categories=[_category(described, row) for described, row in parts.named("categories")],
        )


class _Parts:
    """The rows of the statement without hidden metrics, in the order of the response."""

    def __init__(self, rows: list[_Part], overrides: Mapping[str, metric_keys.MetricOverride]) -> None:
        described = [
            (metric_keys.describe(row.key, overrides.get(row.key, metric_keys.NO_OVERRIDE)), row) for row in rows
        ]
        shown = [pair for pair in described if not pair[0].hidden]
        self._rows = sorted(shown, key=lambda pair: (pair[0].kind, pair[0].key))

    def named(self, part: str) -> list[tuple[metric_keys.Description, _Part]]:
        """The rows of one part."""
        return [pair for pair in self._rows if pair[1].part == part]


def _kpi(described: metric_keys.Description, row: _Part, spread: Distribution) -> Kpi:
    instances = int(row.instances)
    return Kpi(
        key=described.key,
        label=described.label,
        kind=described.kind,
        aggregate=described.aggregate,
        unit=described.unit,
        format=described.format,
        value=aggregates.aggregate_value(described.aggregate, row.total, instances, spread),
        instances=instances,
        min=spread.min,
        p50=spread.p50,
        p90=spread.p90,
        max=spread.max,
    )


def _category(described: metric_keys.Description, row: _Part) -> Category:
    values = _top.decode(row.top) if row.top is not None else []
    return Category(described.key, described.label, described.kind, values, int(row.other or 0), int(row.instances))
