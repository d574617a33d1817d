"""A metric: its value over time, its distribution over the fleet, and its values by version or another dimension.

Another metric can be drawn over it, with an axis of its own. Of the past only the chart is known.
"""

import asyncio
from collections.abc import Callable
from decimal import Decimal

import msgspec

from shm_client import Category, Client, Flag, Kpi, Kpis, PastKpis
from shm_client.cancelling import result_of
from shm_client.figures import Breakdown, Group, Histogram, MetricSeries, Number
from shm_tui.model.place import Place
from shm_tui.model.views.base import (
    Frame,
    Page,
    PageRow,
    View,
    change_text,
    cycle,
    range_text,
    required_app,
    to_float,
)
from shm_tui.model.views.chart_block import SECOND, TimeAxis, line_block, reading_label
from shm_tui.model.views.dimensions import DEFAULT_DIMENSION, dimension_tabs, dimensions_of
from shm_tui.model.views.filter_terms import equals_term
from shm_tui.model.views.histogram_block import histogram_block, largest_bucket
from shm_tui.text.charts import share_bar
from shm_tui.text.formatting import UNKNOWN, compact, exact, plural, round_mean, share, with_unit
from shm_tui.text.lines import Line, TableColumn, facts, make_table

BAR_WIDTH = 20
MIN_CHART_HEIGHT, MAX_CHART_HEIGHT = 6, 22
MIN_TALL_HEIGHT = 30  # lines of a pane with a tall histogram
HISTOGRAM_HEIGHT, TALL_HISTOGRAM_HEIGHT = 4, 8
MIN_ROWS = 3  # that remain below the histogram


class MetricDocument(msgspec.Struct):
    """A metric's entry in the KPIs, its series and that of a second one, its values by a dimension, its histogram."""

    entry: Kpi | Flag | Category | None
    series: MetricSeries
    breakdown: Breakdown | None
    histogram: Histogram | None


class MetricView(View):
    """One metric of one application."""

    def __init__(self) -> None:
        self._key = ""
        self._series: MetricSeries | None = None
        self._breakdown: Breakdown | None = None
        self._histogram: Histogram | None = None
        self._past: PastKpis | None = None

    @property
    def has_data(self) -> bool:
        """Whether the metric has been loaded."""
        return self._series is not None

    async def load(self, client: Client, place: Place, on_change: Callable[[], None]) -> None:
        """Requests the KPIs, then the series of the metric; without an argument, of the first one."""
        app = required_app(place)
        self.kpis = await client.kpis(app)
        self._past = None if place.past is None else await client.past_kpis(app, place.past)
        self._key = place.argument(0) or next(iter(_keys(self.kpis)), "")
        second = place.argument(2)
        keys = [self._key, *([second] if second else [])]
        is_number = isinstance(self._entry, Kpi) and self._past is None
        if not is_number:
            self._breakdown = self._histogram = None
            self._series = await client.series(app, place.range, keys, place.past)
            return
        self._series, self._breakdown, self._histogram = await result_of(
            asyncio.gather(
                client.series(app, place.range, keys),
                client.breakdown(app, place.argument(1) or DEFAULT_DIMENSION, self._key, with_spread=True),
                client.histogram(app, self._key),
            )
        )

    def document(self) -> object:
        """The entry, the series, the values by the dimension and the histogram."""
        if self._series is None:
            return None
        return MetricDocument(self._entry, self._series, self._breakdown, self._histogram)

    def unknown_names(self) -> list[str]:
        """The metrics without any value in the range that no instance sends, and the dimension."""
        parts = [part for part in (self._series, self._breakdown) if part is not None and self._key]
        return list(dict.fromkeys(key for part in parts for key in part.unknown_keys))

    def step(self, place: Place, columns: int, metrics: int) -> Place | None:
        """Another metric. Columns move the time that is read."""
        key = cycle(_keys(self.kpis), place.argument(0) or self._key, metrics)
        return place.to_view("metric", key, *place.arguments[1:]) if metrics and key else None

    def next_dimension(self, place: Place) -> Place | None:
        """The values by another dimension."""
        key = place.argument(0) or self._key
        by = cycle(dimensions_of(self.kpis), place.argument(1) or DEFAULT_DIMENSION, 1) or DEFAULT_DIMENSION
        return place.to_view("metric", key, by, *place.arguments[2:]) if key else None

    def next_second(self, place: Place) -> Place | None:
        """Another metric over this one; after the last one none."""
        key = place.argument(0) or self._key
        others = ["", *(other for other in _keys(self.kpis) if other != key)]
        second = cycle(others, place.argument(2) or "", 1)
        by = place.argument(1) or DEFAULT_DIMENSION
        return place.to_view("metric", key, by, *([second] if second else [])) if key else None

    @property
    def _entry(self) -> Kpi | Flag | Category | None:
        return self._find(self._key)

    def _find(self, key: str | None) -> Kpi | Flag | Category | None:
        """The entry of a metric: as of the day in the past, if there was one then."""
        past: list[Kpi | Flag | Category] = [] if self._past is None else [*self._past.kpis, *self._past.flags]
        entries = [*past, *self.kpis.kpis, *self.kpis.flags, *self.kpis.categories]
        return next((entry for entry in entries if entry.key == key), None)

    def page(self, frame: Frame) -> Page:
        """The chart with its reading, the distribution, and a row for each value of the dimension."""
        series, entry = self._series, self._entry
        if series is None:
            return Page([], [])
        if not self._key:
            return Page([facts("Metric", [], frame.width)], [], empty="This application has no metric yet.")
        values, counts = _values(series, self._key)
        title = self._title(values, frame)
        if isinstance(entry, Category):
            if self._past is not None:
                return Page([title], [], empty="Values of strings in the past are not known.")
            return _category_page(title, entry, frame)
        if not any(value is not None for value in values):
            text = "No install sends it." if series.unknown_keys else "It has no value in this range."
            return Page([title], [], empty=text)
        axis = TimeAxis(series.timestamps, series.running_since if frame.place.past is None else None)
        index = axis.index(frame.selected_time)
        second = frame.place.argument(2)
        second_values = _values(series, second)[0] if second else []
        if not any(value is not None for value in second_values):
            second_values = []
        histogram_lines = self._histogram_lines(frame)
        reading = _reading(values[index], counts[index], entry, reading_label(series.timestamps[index], axis, frame))
        if second_values:
            reading = (*reading, *_second_reading(second_values[index], self._find(second), second or ""))
        head = [
            title,
            *line_block(
                [to_float(value) for value in values],
                axis,
                frame,
                max(MIN_CHART_HEIGHT, min(MAX_CHART_HEIGHT, (frame.height - len(histogram_lines)) // 2)),
                lambda value: compact(Decimal(repr(value))),
                second=[to_float(value) for value in second_values],
            ),
            reading,
            *histogram_lines,
        ]
        rows, table_head = self._rows(frame, entry)
        return Page([*head, *([(), *table_head] if rows else [])], rows, series.timestamps)

    def _title(self, values: list[Number | None], frame: Frame) -> Line:
        entry = self._entry
        when = "now" if frame.place.past is None else "then"
        current = f"{_written(values[-1], entry)} {when}" if values and values[-1] is not None else f"no value {when}"
        aggregate = entry.aggregate if isinstance(entry, Kpi) else "share of yes" if isinstance(entry, Flag) else ""
        second = self._find(frame.place.argument(2))
        parts = [
            f"{current} {change_text(values, frame.glyphs)}".rstrip(),
            aggregate,
            range_text(frame.place),
            f"over it: {second.label or second.key}" if second else "",
            self._key,
        ]
        return facts(entry.label or self._key if entry else self._key, parts, frame.width)

    def _histogram_lines(self, frame: Frame) -> list[Line]:
        """The percentiles over the instances, and as many bars as there is room for."""
        kpi, histogram = self._entry, self._histogram
        if histogram is None or histogram.percentiles is None or not isinstance(kpi, Kpi):
            return []

        def label(value: Number) -> str:
            return compact(value)

        numbers = [("min", histogram.min), *histogram.percentiles.items(), ("max", histogram.max)]
        texts = [f"{name} {with_unit(value, kpi.unit, kpi.format)}" for name, value in numbers]
        largest = largest_bucket(histogram, label)
        heading = facts(f"Over {plural(histogram.instances, 'instance')} now", ["  ".join(texts), largest], frame.width)
        if len(heading) < 2:  # the percentiles do not fit in one line
            short = [text for text in texts if text.startswith(("min", "p50", "p90", "max"))]
            heading = facts(f"Over {histogram.instances:,} now", ["  ".join(short)], frame.width)
        height = TALL_HISTOGRAM_HEIGHT if frame.height >= MIN_TALL_HEIGHT else HISTOGRAM_HEIGHT
        if frame.height < MIN_CHART_HEIGHT + height + MIN_ROWS + 6:  # the lines between these
            return [heading]
        return [heading, *histogram_block(histogram, frame, height, label)]

    def _rows(self, frame: Frame, entry: Kpi | Flag | None) -> tuple[list[PageRow], list[Line]]:
        """A row for each value of the dimension, and the lines above them."""
        data = self._breakdown
        if data is None or not isinstance(entry, Kpi):
            return [], []
        columns = [
            TableColumn(data.by.upper(), max_width=32),
            TableColumn("VALUE", align_right=True),
            TableColumn("", rank=1),
            *(TableColumn(name, align_right=True, rank=2) for name in ("P50", "P90", "MAX")),
            TableColumn("OF", align_right=True),
        ]
        groups = data.values
        most = max((abs(to_float(group.metric) or 0.0) for group in groups), default=0.0)
        table = make_table(columns, [_cells(group, entry, most, frame) for group in groups], frame.width - 2)
        rows = []
        for group, line in zip(groups, table.rows, strict=True):
            term = equals_term(data.by, group.value)
            target = None if term is None else frame.place.to_view("instances", filter_text=term)
            rows.append(PageRow(group.value or "", ((" ", ""), *line), target))
        tabs = dimension_tabs(dimensions_of(self.kpis), data.by, frame.width)
        return rows, [tabs, ((" ", ""), *table.head)]


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


def _second_reading(value: Number | None, entry: Kpi | Flag | Category | None, key: str) -> Line:
    name = entry.label or key if entry else key
    return (("   ", ""), (f"{name} {_written(value, entry)}", SECOND))


def _cells(group: Group, kpi: Kpi, most: float, frame: Frame) -> list[Line]:
    filled, rest = share_bar(abs(to_float(group.metric) or 0.0) / most if most else 0.0, BAR_WIDTH, frame.glyphs)
    return [
        ((group.value or UNKNOWN, "value"),),
        ((with_unit(group.metric, kpi.unit, kpi.format), "value"),),
        ((filled, "chart"), (rest, "track")),
        *(((with_unit(value, kpi.unit, kpi.format), "name"),) for value in (group.p50, group.p90, group.max)),
        ((f"{group.answered:,}", "name"),),
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
