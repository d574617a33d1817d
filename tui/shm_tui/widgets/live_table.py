"""The live table: draws only the lines on screen, and of those repaints only what changed.

Columns on the left and the age on the right stay where they are; the metrics between them scroll. The cursor stands on
an instance and not on a line, so it goes where its instance goes.
"""

from collections.abc import Iterable
from time import monotonic
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from shm_tui.model.column_layout import GAP, HINT, Laid, lay
from shm_tui.model.columns import Column, Moment, Place, Row
from shm_tui.model.row_store import Flush, Store
from shm_tui.model.state import State, state_of
from shm_tui.text.cells import cut
from shm_tui.text.formatting import NOTHING

FLASH_S = 0.5  # how long a cell that changed is lit
SAMPLE = 200  # rows that a column's width is measured on
QUIET_STATES = frozenset({State.SILENT, State.REVOKED})  # their figures are of the past
STYLES = ("head", "sorted", "row", "cursor", "flash", "dim", "good", "soft", "warn", "bad")


class LiveTable(ScrollView, can_focus=True, inherit_bindings=False):
    """Shows a store's rows. Whoever owns it calls `show`, `arranged` and `flushed`.

    A ScrollView's own keys would scroll the view away from the cursor; here the keys are the registry's.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"table--{name}" for name in STYLES}

    class Opened(Message):
        """Somebody wants to see the instance under the cursor."""

    class SortAsked(Message):
        """Somebody clicked a column's head."""

        def __init__(self, column: Column) -> None:
            super().__init__()
            self.column = column

    class CursorMoved(Message):
        """The cursor stands on another instance."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store()
        self.moment: Moment | None = None
        self.columns: list[Column] = []
        self.cursor_id: str | None = None
        self._faded = False
        self.filling = True  # while pages still come, a cursor that nobody moved stays on the first row
        self._touched = False
        self._place = 0  # where the cursor's instance stood when it was last looked for
        self._widths: dict[str, int] = {}
        self._first = 0  # of the columns in the middle
        self._layout: list[Laid] | None = None
        self._styles: dict[str, Style] = {}
        self._flashes: dict[str, tuple[set[str], float]] = {}
        self._ages: dict[str, str] = {}

    # What its owner says.

    def show(self, store: Store, columns: list[Column], moment: Moment) -> None:
        """Another store, or other columns."""
        if store is not self.store:
            self._flashes.clear()
            self._widths.clear()
            self.cursor_id = None
            self._touched, self._place, self._first = False, 0, 0
            self.store = store
            self.scroll_to(y=0, animate=False)
        self.columns, self.moment, self._layout = columns, moment, None
        self._first = min(self._first, max(0, len(self._middle()) - 1))
        self._measure(self.store.ids[:SAMPLE])
        self.arranged()

    def arranged(self) -> None:
        """The order changed, or what is in it. The cursor goes with its instance, and the view with the cursor."""
        ids = self.store.ids
        self.virtual_size = Size(self._room, len(ids) + 1)
        before, top = self.cursor_id, self.scroll_offset.y
        was_visible = 0 <= self._place - top < self._height
        place = self.store.find(before)
        if place is None or (self.filling and not self._touched):
            place = max(0, min(self._place, len(ids) - 1)) if self._touched else 0
        elif was_visible and not top <= place < top + self._height:
            self.scroll_to(y=max(0, place - (self._place - top)), animate=False)
        self._place = place
        self.cursor_id = ids[place] if ids else None
        if self.cursor_id != before:
            self.post_message(self.CursorMoved())
        self.refresh()

    def flushed(self, flush: Flush, moment: Moment) -> None:
        """Rows changed: light up what did, and draw anew only what is on screen."""
        self.moment = moment
        until = monotonic() + FLASH_S
        self._flashes.update((key, (names, until)) for key, names in flush.changed.items())
        if flush.changed:
            self.set_timer(FLASH_S, self._lights_out)
        if self._measure(key for key in flush.changed if key in self.store.rows):
            self.refresh()
        if flush.rearranged:
            self.arranged()
        else:
            self._refresh_rows(flush.changed.keys())

    def tick(self, moment: Moment) -> None:
        """Time went by: of the rows on screen, those whose age reads differently are drawn anew."""
        self.moment = moment
        age = self.columns[-1].text if self.columns else None
        self._refresh_rows(
            key for key in self._visible() if age and self._ages.get(key) != age(self.store.rows[key], moment)
        )

    def fade(self, faded: bool) -> None:
        """While the server is away all rows are dimmed; they stay where they are."""
        if faded != self._faded:
            self._faded = faded
            self.refresh()

    def _lights_out(self) -> None:
        now = monotonic()
        out = {key for key, (_, until) in self._flashes.items() if until <= now}
        for key in out:
            del self._flashes[key]
        self._refresh_rows(out)

    # What a person does.

    def move(self, lines: int) -> None:
        """Moves the cursor, and the view with it."""
        if not self.store.ids:
            return
        place = self.store.find(self.cursor_id)
        self._stand(0 if place is None else place + lines)

    def page(self, direction: int) -> None:
        """A screenful up or down."""
        self.move(direction * max(1, self._height - 1))

    def first(self) -> None:
        """To the first row."""
        self._stand(0)

    def last(self) -> None:
        """To the last row."""
        self._stand(len(self.store.ids) - 1)

    def shift(self, columns: int) -> None:
        """Scrolls the metrics by whole columns."""
        left, right = self.hidden()
        self._first = max(0, self._first + max(-left, min(columns, right)))
        self._laid_anew()

    def reveal(self, column: Column) -> None:
        """Scrolls a column into view."""
        middle = self._middle()
        if column in middle:
            place = middle.index(column)
            self._first = min(self._first, place)
            self._layout = None
            while self._first < place and all(laid.column is not column for laid in self._laid()):
                self._first += 1
                self._layout = None
        self._laid_anew()

    def hidden(self) -> tuple[int, int]:
        """How many columns lie to the left and to the right of what is shown of the middle."""
        shown = sum(laid.column.place is Place.MIDDLE for laid in self._laid())
        return self._first, max(0, len(self._middle()) - self._first - shown)

    def on_click(self, event: events.Click) -> None:
        """A head sorts, a row takes the cursor, and a second click opens it."""
        if event.y == 0:
            column = self._column_at(event.x)
            if column is not None:
                self.post_message(self.SortAsked(column))
            return
        place = self.scroll_offset.y + event.y - 1
        if place < len(self.store.ids):
            again = self.store.ids[place] == self.cursor_id
            self._stand(place)
            if again:
                self.post_message(self.Opened())

    def on_resize(self) -> None:
        """The view is another size; what fits is another set of columns."""
        self.virtual_size = Size(self._room, len(self.store.ids) + 1)
        self._laid_anew()

    def notify_style_update(self) -> None:
        """Other colours."""
        super().notify_style_update()
        self._styles = {}

    def on_focus(self) -> None:
        """The cursor's colour says where the keys go."""
        self._styles = {}

    def on_blur(self) -> None:
        """The keys go elsewhere."""
        self._styles = {}

    # Drawing.

    def render_line(self, y: int) -> Strip:
        """One line of the view: the head, or a row."""
        width = self._room
        if y == 0:
            return self._head()
        place = self.scroll_offset.y + y - 1
        if place >= len(self.store.ids) or self.moment is None:
            return Strip.blank(width, self._style("row"))
        return self._line(self.store.ids[place], self.moment)

    def _head(self) -> Strip:
        plain, chosen = self._style("head"), self._style("sorted")
        line = _Line(plain)
        left, right = self.hidden()
        for laid in self._laid():
            column = laid.column
            if column.place is Place.RIGHT and right:
                line.put(f"+{right}›", laid.begin - GAP - HINT, HINT, plain, right=True)
            sorted_by = column.id == self.store.column.id
            line.put(column.label.upper(), laid.begin, laid.width, chosen if sorted_by else plain, column.right)
            if sorted_by:  # the arrow stands in the gap, so that labels stay above their figures
                line.put("↓" if self.store.descending else "↑", laid.begin + laid.width, 1, chosen)
        first = next((laid.begin for laid in self._laid() if laid.column.place is Place.MIDDLE), 0)
        strip = line.strip(self._room)
        if left and first > GAP:
            mark = Strip([Segment("‹", chosen)], 1)
            strip = Strip.join([strip.crop(0, first - GAP), mark, strip.crop(first - GAP + 1, self._room)])
        return strip

    def _line(self, key: str, moment: Moment) -> Strip:
        row = self.store.rows[key]
        state = state_of(row.instance, moment.now, moment.active_window_s)
        base = self._style("row")
        if key == self.cursor_id:
            base += self._style("cursor")
        dim = base + self._style("dim")
        plain = dim if self._faded or state in QUIET_STATES else base
        lit: set[str] = self._flashes[key][0] if key in self._flashes else set()
        line = _Line(base)
        for laid in self._laid():
            column, style = laid.column, plain
            text = column.text(row, moment)
            if column.id == "state":
                style = dim if self._faded else base + self._style(state.style)
            elif column.id in lit:
                style = base + self._style("flash")
            elif column.place is Place.RIGHT:
                self._ages[key] = text
                style = dim
            elif text == NOTHING:
                style = dim
            line.put(text, laid.begin, laid.width, style, column.right)
        return line.strip(self._room)

    @property
    def _room(self) -> int:
        """Cells of a line, without the scrollbar."""
        return self.scrollable_content_region.width

    @property
    def _height(self) -> int:
        """Rows on screen, below the head."""
        return max(1, self.size.height - 1)

    def _style(self, name: str) -> Style:
        if name not in self._styles:
            whole = self.get_component_rich_style(f"table--{name}")
            if name == "cursor":
                whole = Style(bgcolor=whole.bgcolor, bold=whole.bold, reverse=whole.reverse)
            elif name not in ("head", "sorted", "row", "flash"):
                whole = Style(color=whole.color, bold=whole.bold, dim=whole.dim)
            self._styles[name] = whole
        return self._styles[name]

    # Widths and what fits.

    def _measure(self, keys: Iterable[str]) -> bool:
        """Makes columns as wide as their texts, between their bounds; they never shrink. Whether any grew."""
        grew = False
        rows = [self.store.rows[key] for key in keys]
        for column in self.columns:
            wanted = max(column.least, min(column.most, self._wanted(column, rows)))
            if wanted > self._widths.get(column.id, 0):
                self._widths[column.id] = wanted
                self._layout = None
                grew = True
        return grew

    def _wanted(self, column: Column, rows: list[Row]) -> int:
        if self.moment is None:
            return column.least
        texts = max((cell_len(column.text(row, self.moment)) for row in rows), default=0)
        return max(texts, cell_len(column.label.upper()))

    def _middle(self) -> list[Column]:
        return [column for column in self.columns if column.place is Place.MIDDLE]

    def _laid_anew(self) -> None:
        self._layout = None
        self.refresh()

    def _laid(self) -> list[Laid]:
        """The columns on screen, from left to right, and where each of them stands."""
        if self._layout is None:
            self._layout = lay(self.columns, self._widths, self._room, self._first)
        return self._layout

    def _column_at(self, x: int) -> Column | None:
        return next((laid.column for laid in self._laid() if laid.begin <= x < laid.begin + laid.width + GAP), None)

    # The cursor and the view.

    def _stand(self, place: int) -> None:
        if not self.store.ids:
            return
        before = self.cursor_id
        place = max(0, min(place, len(self.store.ids) - 1))
        self.cursor_id, self._place, self._touched = self.store.ids[place], place, True
        top, rows = self.scroll_offset.y, self._height
        if place < top:
            self.scroll_to(y=place, animate=False)
        elif place >= top + rows:
            self.scroll_to(y=place - rows + 1, animate=False)
        self._refresh_rows({key for key in (before, self.cursor_id) if key is not None})
        if before != self.cursor_id:
            self.post_message(self.CursorMoved())

    def _visible(self) -> list[str]:
        top = self.scroll_offset.y
        return self.store.ids[top : top + self._height]

    def _refresh_rows(self, keys: Iterable[str]) -> None:
        wanted = set(keys)
        if not wanted:
            return
        for y, key in enumerate(self._visible(), 1):
            if key in wanted:
                self.refresh(Region(0, y, self._room, 1))


class _Line:
    """A line of the screen in the making: texts put at their places, from left to right."""

    def __init__(self, style: Style) -> None:
        self._style = style
        self._segments: list[Segment] = []
        self._taken = 0

    def put(self, text: str, begin: int, width: int, style: Style, right: bool = False) -> None:
        """`text` in exactly `width` cells from `begin` on; a light is on the text alone, not on the space around it."""
        short = cut(text, width)
        blank = width - cell_len(short)
        before = begin - self._taken + (blank if right else 0)
        self._segments.append(Segment(" " * before, self._style))
        self._segments.append(Segment(short, style))
        if blank and not right:
            self._segments.append(Segment(" " * blank, self._style))
        self._taken = begin + width

    def strip(self, width: int) -> Strip:
        """The line, filled up to `width`."""
        return Strip(self._segments, self._taken).adjust_cell_length(width, self._style)
