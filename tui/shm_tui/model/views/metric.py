"""A metric: its value over time, its distribution over the fleet, and its value by version."""

import asyncio
from collections.abc import Callable
from decimal import Decimal

import msgspec

from shm_client import Category, Client, Flag, Kpi, Kpis
from shm_client.figures import Breakdown, Group, MetricSeries, Number
from shm_tui.model.place import Place
from shm_tui.model.views.base import Frame, Page, PageRow, View, change_text, cycle, required_app, to_float
from shm_tui.model.views.chart_block import TimeAxis, line_block, reading_label
from shm_tui.model.views.filter_terms import equals_term
from shm_tui.text.charts import share_bar
from shm_tui.text.formatting import UNKNOWN, compact, exact, plural, round_mean, share, with_unit
from shm_tui.text.lines import Line, TableColumn, facts, make_table

BAR_WIDTH = 20


class MetricDocument(msgspec.Struct):
    """A metric's current entry in the KPIs, its series, and its breakdown by version."""

    entry: Kpi | Flag | Category | None
    series: MetricSeries
    by_version: Breakdown | None


class MetricView(View):
    """One metric of one application."""

    def __init__(self) -> None:
        self._key = ""
        self._series: MetricSeries | None = None
        self._by_version: Breakdown | None = None

    @property
    def has_data(self) -> bool:
        """Whether the metric has been loaded."""
        return self._series is not None

    async def load(self, client: Client, place: Place, on_change: Callable[[], None]) -> None:
        """Requests the KPIs, then the series of the metric; without an argument, of the first one."""
        app = required_app(place)
        self.kpis = await client.kpis(app)
        self._key = place.argument(0) or next(iter(_keys(self.kpis)), "")
        if isinstance(self._entry, Category) or not self._key:
            self._series, self._by_version = await client.series(app, place.range, [self._key]), None
            return
        metric = self._key if isinstance(self._entry, Kpi) else None
        self._series, self._by_version = await asyncio.gather(
            client.series(app, place.range, [self._key]), client.breakdown(app, "version", metric)
        )

    def document(self) -> object:
        """The entry, the series and the breakdown."""
        return None if self._series is None else MetricDocument(self._entry, self._series, self._by_version)

    def step(self, place: Place, columns: int, metrics: int) -> Place | None:
        """Another metric. Columns move the time that is read."""
        key = cycle(_keys(self.kpis), place.argument(0) or self._key, metrics)
        return place.to_view("metric", key) if metrics and key else None

    @property
    def _entry(self) -> Kpi | Flag | Category | None:
        entries: list[Kpi | Flag | Category] = [*self.kpis.kpis, *self.kpis.flags, *self.kpis.categories]
        return next((entry for entry in entries if entry.key == self._key), None)

    def page(self, frame: Frame) -> Page:
        """The chart with its reading, the distribution, and a row for each version."""
        series, entry = self._series, self._entry
        if series is None:
            return Page([], [])
        if not self._key:
            return Page([facts("Metric", [], frame.width)], [], empty="This application has no metric yet.")
        values, counts = _values(series, self._key)
        now = f"{_written(values[-1], entry)} now" if values and values[-1] is not None else "no current value"
        aggregate = entry.aggregate if isinstance(entry, Kpi) else "share of yes" if isinstance(entry, Flag) else ""
        title = facts(
            entry.label or self._key if entry else self._key,
            [f"{now} {change_text(values, frame.glyphs)}".rstrip(), aggregate, frame.place.range, self._key],
            frame.width,
        )
        if isinstance(entry, Category):
            return _category_page(title, entry, frame)
        if not any(value is not None for value in values):
            text = "No install sends it." if series.unknown_keys else "It has no value in this range."
            return Page([title], [], empty=text)
        axis = TimeAxis(series.timestamps, series.running_since)
        index = axis.index(frame.moment)
        head = [
            title,
            *line_block(
                [to_float(value) for value in values],
                axis,
                frame,
                max(6, min(22, frame.height // 2)),
                lambda value: compact(Decimal(repr(value))),
            ),
            _reading(values[index], counts[index], entry, reading_label(series.timestamps[index], axis, frame)),
        ]
        if isinstance(entry, Kpi):
            head.append(_distribution(entry))
        rows, table_head = self._version_rows(frame, entry)
        return Page([*head, (), *([table_head] if rows else [])], rows, series.timestamps)

    def _version_rows(self, frame: Frame, entry: Kpi | Flag | None) -> tuple[list[PageRow], Line]:
        data = self._by_version
        if data is None or not isinstance(entry, Kpi):
            return [], ()
        columns = [TableColumn("VERSION"), TableColumn("VALUE", align_right=True), TableColumn("OF", align_right=True)]
        columns.append(TableColumn("", rank=1))
        groups = data.values
        most = max((abs(to_float(group.metric) or 0.0) for group in groups), default=0.0)
        table = make_table(columns, [_version_cells(group, entry, most, frame) for group in groups], frame.width - 2)
        rows = []
        for group, line in zip(groups, table.rows, strict=True):
            term = equals_term("version", group.value)
            target = None if term is None else frame.place.to_view("instances", filter_text=term)
            rows.append(PageRow(group.value or "", ((" ", ""), *line), target))
        return rows, ((" ", ""), *table.head)


def _keys(kpis: Kpis) -> list[str]:
    """The keys with a chart, business metrics first; strings have none."""
    entries: list[Kpi | Flag] = [*kpis.kpis, *kpis.flags]
    return [entry.key for entry in sorted(entries, key=lambda entry: entry.kind == "system")]


def _values(series: MetricSeries, key: str) -> tuple[list[Number | None], list[int | None]]:
    """The values and the numbers of instances that they are of; of a flag, the share of yes in per cent."""
    if key in series.flags:
        flag = series.flags[key]
        shares: list[Number | None] = [
            None if true is None or not count else Decimal(repr(round(100 * true / count, 1)))
            for true, count in zip(flag.true, flag.instances, strict=True)
        ]
        return shares, flag.instances
    none: list[None] = [None] * len(series.timestamps)
    return series.metrics.get(key, [*none]), series.instances.get(key, [*none])


def _written(value: Number | None, entry: Kpi | Flag | Category | None) -> str:
    if isinstance(entry, Flag):
        return UNKNOWN if value is None else f"{compact(value)} %"
    return with_unit(value, entry.unit, entry.format) if isinstance(entry, Kpi) else compact(value)


def _reading(value: Number | None, count: int | None, entry: Kpi | Flag | None, time: str) -> Line:
    if value is None:
        return ((f" {time}", "value"), ("   no value", "name"))
    unit = f" {entry.unit}" if isinstance(entry, Kpi) and entry.unit else " %" if isinstance(entry, Flag) else ""
    of = "" if count is None else f"   of {plural(count, 'instance')}"
    return ((f" {time}", "value"), (f"   {exact(round_mean(value))}{unit}", "value"), (of, "name"))


def _distribution(kpi: Kpi) -> Line:
    numbers = [("min", kpi.min), ("p50", kpi.p50), ("p90", kpi.p90), ("max", kpi.max)]
    spans = [(" over the instances now:", "name")]
    for name, value in numbers:
        spans += [(f"  {name} ", "name"), (with_unit(value, kpi.unit, kpi.format), "value")]
    return tuple(spans)


def _version_cells(group: Group, kpi: Kpi, most: float, frame: Frame) -> list[Line]:
    filled, rest = share_bar(abs(to_float(group.metric) or 0.0) / most if most else 0.0, BAR_WIDTH, frame.glyphs)
    return [
        ((group.value or UNKNOWN, "value"),),
        ((with_unit(group.metric, kpi.unit, kpi.format), "value"),),
        ((f"{group.answered:,}", "name"),),
        ((filled, "chart"), (rest, "track")),
    ]


def _category_page(title: Line, category: Category, frame: Frame) -> Page:
    columns = [
        TableColumn("VALUE"),
        TableColumn("INSTANCES", align_right=True),
        TableColumn("SHARE", align_right=True),
    ]
    cells: list[list[Line]] = [
        [
            ((item.value, "value"),),
            ((f"{item.instances:,}", "value"),),
            ((share(item.instances, category.instances), "name"),),
        ]
        for item in category.values
    ]
    table = make_table(columns, cells, frame.width - 2)
    rows = []
    for item, line in zip(category.values, table.rows, strict=True):
        term = equals_term(f"metrics.{category.key}", item.value)
        target = None if term is None else frame.place.to_view("instances", filter_text=term)
        rows.append(PageRow(item.value, ((" ", ""), *line), target))
    note: Line = ((" Strings have no chart over time.", "name"),)
    return Page([title, note, (), ((" ", ""), *table.head)], rows)
