"""KPIs: what each metric reads over the current snapshots, and the counts beside them. The definitions live here.

All metrics of one answer come from one statement, so they are true at one moment and at one cursor of the feed; the
counts of instances beside them are read right after it.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

import msgspec

from shm import metrics
from shm.database import Database
from shm.settings import Settings
from shm.shapes import Moment

MOST_KEYS = 500  # of each sort (numbers, flags, categories): more is no panel but a log of whoever invents keys
MOST_VALUES = 20  # of a category; the rest is one figure
MOST_APPLICATIONS = 1_000  # in per_app_counts


class InstanceCounts(msgspec.Struct):
    """Instances of an application. `counted` and `excluded` are the two parts of `active`."""

    total: int
    active: int
    pending: int
    revoked: int
    counted: int
    excluded: int


class Kpi(msgspec.Struct):
    """A number's aggregate; `instances` is how many answered."""

    key: str
    label: str
    kind: metrics.Kind
    aggregate: metrics.Aggregate
    unit: str | None
    value: Decimal
    instances: int
    min: Decimal
    p50: Decimal
    p90: Decimal
    max: Decimal


class Flag(msgspec.Struct):
    """A boolean: how many say true, of how many that answered."""

    key: str
    label: str
    kind: metrics.Kind
    true: int
    instances: int


class CategoryValue(msgspec.Struct):
    """One value of a category and how many instances say it."""

    value: str
    instances: int


class Category(msgspec.Struct):
    """A short string: instances for each value, the most frequent first; `other` counts those of all further values."""

    key: str
    label: str
    kind: metrics.Kind
    values: list[CategoryValue]
    other: int
    instances: int


class Metrics(msgspec.Struct):
    """Every metric, business ones first, then by key; true at `cursor`."""

    cursor: int
    kpis: list[Kpi]
    flags: list[Flag]
    categories: list[Category]


class Application(msgspec.Struct):
    """What the vendor ships, with its counts."""

    slug: str
    name: str
    created_at: Moment
    updated_at: Moment
    stars: int
    github_url: str | None
    logo_url: str | None
    instances: InstanceCounts


class ApplicationKpis(msgspec.Struct):
    """The body of `GET applications/{slug}/kpis`."""

    app: str
    name: str
    as_of: Moment
    active_window_s: int
    instances: InstanceCounts
    kpis: list[Kpi]
    flags: list[Flag]
    categories: list[Category]


class Stats(msgspec.Struct):
    """The body of `GET stats`: the original's four fields first. `global_metrics` is each key's aggregate over all."""

    total_instances: int
    active_instances: int
    global_metrics: dict[str, Decimal]
    per_app_counts: dict[str, int]
    daily_active: int
    weekly_active: int
    monthly_active: int
    counted_instances: int
    excluded_instances: int
    pending_instances: int
    revoked_instances: int
    new_this_week: int
    active_window_s: int


@dataclass(frozen=True, slots=True)
class _Part:
    part: str
    key: str
    instances: Decimal | int
    total: Decimal
    mean: Decimal
    least: Decimal
    p50: Decimal
    p90: Decimal
    most: Decimal
    trues: int
    other: Decimal | int
    top: msgspec.Raw


@dataclass(frozen=True, slots=True)
class _ApplicationRow:
    slug: str
    name: str
    github_url: str | None
    logo_url: str | None
    stars: int
    created_at: datetime
    updated_at: datetime
    total: int
    active: int
    pending: int
    revoked: int
    counted: int

    def application(self) -> Application:
        return Application(
            slug=self.slug,
            name=self.name,
            created_at=self.created_at,
            updated_at=self.updated_at,
            stars=self.stars,
            github_url=self.github_url,
            logo_url=self.logo_url,
            instances=InstanceCounts(
                total=self.total,
                active=self.active,
                pending=self.pending,
                revoked=self.revoked,
                counted=self.counted,
                excluded=self.active - self.counted,
            ),
        )


@dataclass(frozen=True, slots=True)
class _Counts:
    total: int
    pending: int
    revoked: int
    active: int
    daily: int
    weekly: int
    monthly: int
    new_this_week: int
    counted: int


@dataclass(frozen=True, slots=True)
class _PerApplication:
    name: str
    instances: int


_top = msgspec.json.Decoder(list[CategoryValue])


class Kpis:
    """Reads KPIs and counts from one database."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._window = settings.active_window
        self._uncounted = sorted(settings.uncounted_environments)

    async def metrics(self, app: str | None, *, counted_only: bool = False) -> Metrics:
        """Every metric of one application, or over all of them."""
        rows = await self._database.fetch(
            _Part,
            "kpis.kpis",
            app=app,
            active_window=self._window,
            counted_only=counted_only,
            uncounted=self._uncounted,
            most_keys=MOST_KEYS,
            most_values=MOST_VALUES,
        )
        named = sorted(((metrics.naming(row.key), row) for row in rows), key=lambda pair: (pair[0].kind, pair[0].key))
        return Metrics(
            cursor=next(int(row.instances) for row in rows if row.part == "head"),
            kpis=[_kpi(naming, row) for naming, row in named if row.part == "numbers"],
            flags=[
                Flag(naming.key, naming.label, naming.kind, row.trues, int(row.instances))
                for naming, row in named
                if row.part == "flags"
            ],
            categories=[_category(naming, row) for naming, row in named if row.part == "categories"],
        )

    async def applications(self, *, slug: str | None = None, after: str | None = None, most: int) -> list[Application]:
        """Applications by slug, after one, or the one of that slug."""
        rows = await self._database.fetch(
            _ApplicationRow,
            "applications.page",
            slug=slug,
            after=after,
            most=most,
            active_window=self._window,
            uncounted=self._uncounted,
        )
        return [row.application() for row in rows]

    async def application(self, slug: str, *, counted_only: bool = False) -> tuple[int, ApplicationKpis] | None:
        """An application's KPIs with the feed's cursor that they are true at; None if there is no such application."""
        found = await self.metrics(slug, counted_only=counted_only)
        told = await self.applications(slug=slug, most=1)
        if not told:
            return None
        return found.cursor, ApplicationKpis(
            app=slug,
            name=told[0].name,
            as_of=datetime.now(UTC),
            active_window_s=int(self._window.total_seconds()),
            instances=told[0].instances,
            kpis=found.kpis,
            flags=found.flags,
            categories=found.categories,
        )

    async def stats(self) -> Stats:
        """The counts and aggregates over all applications."""
        counts = await self._database.fetch_one(
            _Counts, "kpis.stats", active_window=self._window, uncounted=self._uncounted
        )
        assert counts is not None  # noqa: S101 - an aggregate always has a row
        per_app = await self._database.fetch(_PerApplication, "kpis.per_app_counts", most=MOST_APPLICATIONS)
        found = await self.metrics(None)
        return Stats(
            total_instances=counts.total,
            active_instances=counts.active,
            global_metrics={kpi.key: kpi.value for kpi in found.kpis},
            per_app_counts={row.name: row.instances for row in per_app},
            daily_active=counts.daily,
            weekly_active=counts.weekly,
            monthly_active=counts.monthly,
            counted_instances=counts.counted,
            excluded_instances=counts.active - counts.counted,
            pending_instances=counts.pending,
            revoked_instances=counts.revoked,
            new_this_week=counts.new_this_week,
            active_window_s=int(self._window.total_seconds()),
        )


def _kpi(naming: metrics.Naming, row: _Part) -> Kpi:
    return Kpi(
        key=naming.key,
        label=naming.label,
        kind=naming.kind,
        aggregate=naming.aggregate,
        unit=naming.unit,
        value=row.total if naming.aggregate == "sum" else row.mean,
        instances=int(row.instances),
        min=row.least,
        p50=row.p50,
        p90=row.p90,
        max=row.most,
    )


def _category(naming: metrics.Naming, row: _Part) -> Category:
    values = _top.decode(row.top)
    return Category(naming.key, naming.label, naming.kind, values, int(row.other), int(row.instances))
