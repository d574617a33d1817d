"""The detail panel: everything about one instance, with every digit."""

from decimal import Decimal
from typing import Any, ClassVar

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text
from textual.containers import VerticalScroll
from textual.widgets import Static

from shm_client.model import Value
from shm_tui.model.columns import HOST_COLUMNS, VERSION, MetricDescriptions
from shm_tui.model.row import Row
from shm_tui.model.row_store import RowStore
from shm_tui.model.state import Clock, State, state_of
from shm_tui.text.cells import cut_middle
from shm_tui.text.formatting import UNKNOWN, age, exact, timestamp
from shm_tui.text.json_text import format_json

LABEL_WIDTH = 12  # cells of a label
MIN_KEY_WIDTH, MAX_KEY_WIDTH = 12, 30  # cells of a metric's key, which is cut in its middle
VALUE_WIDTH = 22  # cells of a metric's value, aligned on the right
IDENTITY_COLUMNS = (VERSION, *sorted(HOST_COLUMNS, key=lambda column: column.id))
ERASED = "erased"
STYLES = ("title", "heading", "name", "value", *(state.style for state in State))


class DetailPanel(VerticalScroll):
    """Shows the instance that was opened, whatever the table's cursor does.

    It keeps the last state of an instance that is gone. `instance_id` is None until an instance has been opened.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"detail--{name}" for name in STYLES}

    def __init__(self) -> None:
        super().__init__()
        self._body = Static()
        self.instance_id: str | None = None
        self._row: Row | None = None
        self._shown: tuple[RowStore, Clock, MetricDescriptions] | None = None

    def on_resize(self) -> None:
        """Another width has other lines."""
        if self._shown is not None:
            self.show(*self._shown)

    def compose(self) -> Any:
        """One text; the panel scrolls it."""
        yield self._body

    def pin(self, row: Row) -> None:
        """Shows this instance until another one is pinned."""
        if row.instance.instance_id != self.instance_id:
            self.scroll_home(animate=False)
        self.instance_id, self._row = row.instance.instance_id, row

    def move_cursor(self, lines: int) -> None:
        """Scrolls by lines."""
        self.scroll_relative(y=lines, animate=False)

    def move_page(self, direction: int) -> None:
        """Scrolls by the height of the panel."""
        self.scroll_relative(y=direction * self.size.height, animate=False)

    def move_to_first(self) -> None:
        """Scrolls to the first line."""
        self.scroll_home(animate=False)

    def move_to_last(self) -> None:
        """Scrolls to the last line."""
        self.scroll_end(animate=False)

    def scroll_columns(self, count: int) -> None:
        """There is one column."""

    @property
    def row(self) -> Row | None:
        """The last state of the pinned instance."""
        return self._row

    def show(self, store: RowStore, clock: Clock, descriptions: MetricDescriptions) -> None:
        """Draws the pinned instance, with a note if it is not among the visible rows of `store`."""
        self._shown = store, clock, descriptions
        if self.instance_id is None:
            return
        self._row = store.rows.get(self.instance_id, self._row)
        if self._row is not None:
            style = {name: self.get_component_rich_style(f"detail--{name}", partial=True) for name in STYLES}
            note = absence_note(store, self.instance_id)
            width = self.scrollable_content_region.width
            self._body.update(render_details(self._row, clock, style, descriptions, note, width))


def absence_note(store: RowStore, instance_id: str) -> str:
    """Why an instance is not in the table; "" if it is."""
    if instance_id not in store.rows:
        return ERASED if len(store.rows) < store.limit else "no longer in the table"
    return "" if store.is_visible(instance_id) else "no longer matches the filter"


def render_details(
    row: Row, clock: Clock, style: dict[str, Style], descriptions: MetricDescriptions, note: str, width: int
) -> Text:
    """State, identity, times and metrics of an instance, and its JSON as it was sent, in lines of `width` cells.

    `note` follows the state, which an erased instance no longer has.
    """
    instance = row.instance
    key_width = max(MIN_KEY_WIDTH, min(MAX_KEY_WIDTH, width - VALUE_WIDTH))
    state = state_of(instance, clock)
    lines = [Text.assemble((instance.instance_id, style["title"]))]
    if note == ERASED:
        lines.append(Text("erased: its last data follow", style["bad"]))
    else:
        lines.append(Text.assemble((state.glyph, style[state.style]), (f" {state.meaning}", style["name"])))
        lines += [Text(note, style["bad"])] if note else []

    def section(title: str, pairs: list[tuple[str, str]]) -> None:
        if not pairs:
            return
        lines.extend((Text(), Text(title, style["heading"])))
        for name, value in pairs:
            lines.append(Text.assemble((_pad(name, LABEL_WIDTH), style["name"]), (value, style["value"])))

    section(
        "IDENTITY",
        [
            ("application", f"{instance.app_name or UNKNOWN}  ({instance.app_slug})"),
            *((column.id, column.text(row, clock) or UNKNOWN) for column in IDENTITY_COLUMNS),
        ],
    )
    section(
        "TIMES",
        [
            ("last seen", _format_time(instance.last_seen_at, clock)),
            ("first seen", _format_time(instance.first_seen_at, clock)),
            ("snapshot of", _format_time(instance.snapshot_at, clock)),
        ],
    )
    described = [descriptions[key] for key in sorted(row.metrics)]
    for title, kind in (("METRICS", "business"), ("SYSTEM", "system")):
        of_kind = [metric for metric in described if metric.kind == kind and not metric.hidden]
        if of_kind:
            lines.extend((Text(), Text(title, style["heading"])))
        for metric in of_kind:
            value = format_exact(row.metrics[metric.key], metric.unit)
            padding = " " * max(0, VALUE_WIDTH - cell_len(value))
            name = _pad(cut_middle(metric.key, key_width - 1), key_width)
            lines.append(Text.assemble((name + padding, style["name"]), (value, style["value"])))
    lines.extend((Text(), Text("METRICS AS SENT", style["heading"])))
    lines.append(Text(format_json(instance.metrics), style["name"]))
    return Text("\n").join(lines)


def format_exact(value: Value, unit: str | None = None) -> str:
    """A metric's value with every digit; a number has its unit."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | Decimal):
        return f"{exact(value)} {unit}" if unit else exact(value)
    return value if isinstance(value, str) else format_json(value)


def _format_time(time: Any, clock: Clock) -> str:
    return UNKNOWN if time is None else f"{timestamp(time)}  {age(time, clock.now)} ago"


def _pad(name: str, width: int) -> str:
    return name + " " * max(1, width - cell_len(name))
