"""A breakdown: instances by the values of a column or metric, with another metric's aggregate for each value."""

import asyncio

import msgspec

from shm_client import Client, Kpi
from shm_client.cancelling import result_of
from shm_client.figures import Breakdown, Group
from shm_tui.model.place import Place
from shm_tui.model.views.base import DataView, Frame, Page, PageRow, cycle, required_app
from shm_tui.model.views.dimensions import DEFAULT_DIMENSION, dimension_tabs, dimensions_of
from shm_tui.model.views.filter_terms import equals_term
from shm_tui.text.charts import share_bar
from shm_tui.text.formatting import UNKNOWN, clock_time, plural, share, with_unit
from shm_tui.text.lines import Line, TableColumn, facts, make_table

MAX_BAR_WIDTH = 30
OTHER_VALUES = "all others"


class BreakdownDocument(msgspec.Struct):
    """A breakdown, and the dimensions that the application has."""

    breakdown: Breakdown
    dimensions: list[str]


class BreakdownView(DataView[Breakdown]):
    """A breakdown of one application's instances."""

    refresh_s = 60.0  # the server computes it at most once a minute

    async def fetch(self, client: Client, place: Place) -> Breakdown:
        """Requests the groups, and the metrics that can be chosen."""
        app = required_app(place)
        by = place.argument(0) or DEFAULT_DIMENSION
        data, self.kpis = await result_of(
            asyncio.gather(client.breakdown(app, by, place.argument(1)), client.kpis(app))
        )
        return data

    def document(self) -> object:
        """The groups and the dimensions."""
        return None if self._data is None else BreakdownDocument(self._data, dimensions_of(self.kpis))

    def unknown_names(self) -> list[str]:
        """The dimension, if no instance sends it, and the metric."""
        return [] if self._data is None else self._data.unknown_keys

    def step(self, place: Place, columns: int, metrics: int) -> Place | None:
        """Another dimension, or another metric: after the last one none."""
        by = cycle(dimensions_of(self.kpis), place.argument(0) or DEFAULT_DIMENSION, columns) or DEFAULT_DIMENSION
        keys = ["", *(kpi.key for kpi in self.kpis.kpis)]
        metric = cycle(keys, place.argument(1) or "", metrics)
        return place.to_view("breakdown", by, *([metric] if metric else []))

    def data_page(self, data: Breakdown, frame: Frame) -> Page:
        """The dimensions, and a row for each value, the most frequent first."""
        kpi = next((kpi for kpi in self.kpis.kpis if kpi.key == data.metric), None)
        groups = [*data.values, *([data.rest] if data.rest else [])]
        total = sum(group.instances for group in groups)
        aggregate = f"{data.aggregate} of {kpi.label if kpi else data.metric}" if data.metric else ""
        unknown = f"no install sends {', '.join(data.unknown_keys)}" if data.unknown_keys else ""
        title = facts(
            "Breakdown",
            [f"by {data.by}", aggregate, plural(total, "instance"), unknown, f"as of {clock_time(data.as_of)}"],
            frame.width,
        )
        head = [title, dimension_tabs(dimensions_of(self.kpis), data.by, frame.width)]
        if not groups:
            return Page(head, [], empty=f"No instance has a value of {data.by}.")
        columns = [
            TableColumn("VALUE", max_width=40),
            TableColumn("INSTANCES", align_right=True),
            TableColumn("SHARE", align_right=True),
            TableColumn("", rank=2),
            *([TableColumn("METRIC", align_right=True), TableColumn("OF", align_right=True, rank=1)] if kpi else []),
        ]
        bar_width = max(8, min(MAX_BAR_WIDTH, frame.width - 60))
        table = make_table(
            columns, [_cells(group, data, total, kpi, frame, bar_width) for group in groups], frame.width - 2
        )
        rows = [
            PageRow(
                f"{number}" if group is data.rest else f"={group.value}",
                ((" ", ""), *line),
                _target(frame, data, group),
            )
            for number, (group, line) in enumerate(zip(groups, table.rows, strict=True))
        ]
        return Page([*head, (), ((" ", ""), *table.head)], rows)


def _target(frame: Frame, data: Breakdown, group: Group) -> Place | None:
    term = None if group is data.rest else equals_term(data.by, group.value)
    return None if term is None else frame.place.to_view("instances", filter_text=term)


def _cells(group: Group, data: Breakdown, total: int, kpi: Kpi | None, frame: Frame, bar_width: int) -> list[Line]:
    name = OTHER_VALUES if group is data.rest else group.value or UNKNOWN
    filled, rest = share_bar(group.instances / total if total else 0.0, bar_width, frame.glyphs)
    cells: list[Line] = [
        ((name, "name" if group is data.rest else "value"),),
        ((f"{group.instances:,}", "value"),),
        ((share(group.instances, total), "value"),),
        ((filled, "chart"), (rest, "track")),
    ]
    if kpi is not None:
        cells += [((with_unit(group.metric, kpi.unit, kpi.format), "value"),), ((f"{group.answered:,}", "name"),)]
    return cells
