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

from .cells import cut, fit
from .columns import Column, Moment, Place, Row
from .state import state_of
from .store import Flush, Store

FLASH_S = 0.5  # how long a cell that changed is lit
GAP = 2  # cells between two columns
SAMPLE = 200  # rows that a column's width is measured on
EDGE = 1  # cells on either side
STYLES = ("head", "sorted", "row", "cursor", "flash", "dim", "good", "soft", "warn", "bad")


class LiveTable(ScrollView, can_focus=True):
    """Shows a store's rows. Whoever owns it calls `show`, `arranged` and `flushed`."""

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
        self.faded = False  # while the server is away
        self._widths: dict[str, int] = {}
        self._first = 0  # of the columns in the middle
        self._flashes: dict[str, tuple[set[str], float]] = {}
        self._ages: dict[str, str] = {}

    # What its owner says.

    def show(self, store: Store, columns: list[Column], moment: Moment) -> None:
        """Another store, or other columns."""
        if store is not self.store:
            self._flashes.clear()
            self._widths.clear()
            self.cursor_id = None
            self.store = store
            self.scroll_to(y=0, animate=False)
        self.columns, self.moment = columns, moment
        self._first = min(self._first, max(0, len(self._middle()) - 1))
        self._measure(self.store.ids[:SAMPLE])
        self.arranged()

    def arranged(self) -> None:
        """The order changed, or what is in it."""
        self.virtual_size = Size(self._room, len(self.store.ids) + 1)
        if self.store.find(self.cursor_id) is None:
            place = min(self.scroll_offset.y, len(self.store.ids) - 1)
            self.cursor_id = self.store.ids[place] if place >= 0 else None
            self.post_message(self.CursorMoved())
        self.refresh()

    def flushed(self, flush: Flush, moment: Moment) -> None:
        """Rows changed: light up what did, and draw anew only what is on screen."""
        self.moment = moment
        until = monotonic() + FLASH_S
        self._flashes.update((key, (names, until)) for key, names in flush.changed.items())
        if self._measure(key for key in flush.changed if key in self.store.rows):
            self.refresh()
        if flush.rearranged:
            self.arranged()
        else:
            self._refresh_rows(flush.changed.keys())

    def tick(self, moment: Moment) -> None:
        """Time went by: ages move on, and lights go out."""
        self.moment = moment
        now = monotonic()
        out = {key for key, (_, until) in self._flashes.items() if until <= now}
        for key in out:
            del self._flashes[key]
        age = self.columns[-1].text if self.columns else None
        older = {
            key
            for key in self._visible()
            if age and key in self.store.rows and self._ages.get(key) != age(self.store.rows[key], moment)
        }
        self._refresh_rows(out | older)

    # What a person does.

    def move(self, lines: int) -> None:
        """Moves the cursor, and the view with it."""
        if not self.store.ids:
            return
        place = self.store.find(self.cursor_id)
        self._stand(0 if place is None else place + lines)

    def page(self, direction: int) -> None:
        """A screenful up or down."""
        self.move(direction * max(1, self.size.height - 2))

    def first(self) -> None:
        """To the first row."""
        self._stand(0)

    def last(self) -> None:
        """To the last row."""
        self._stand(len(self.store.ids) - 1)

    def shift(self, columns: int) -> None:
        """Scrolls the metrics by whole columns."""
        shown, middle = len(self._shown_middle()), len(self._middle())
        self._first = max(0, min(self._first + columns, middle - shown))
        self.refresh()

    def reveal(self, column: Column) -> None:
        """Scrolls a column into view."""
        middle = self._middle()
        if column in middle:
            place = middle.index(column)
            if place < self._first:
                self._first = place
            while column not in self._shown_middle() and self._first < place:
                self._first += 1
        self.refresh()

    def hidden(self) -> tuple[int, int]:
        """How many metric columns lie to the left and to the right of what is shown."""
        shown = len(self._shown_middle())
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
        self.refresh()

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
        segments = [Segment(" " * EDGE, self._style("head"))]
        for column in self._shown():
            sorted_by = column.id == self.store.column.id
            arrow = (" ↓" if self.store.descending else " ↑") if sorted_by else ""
            width = self._widths[column.id]
            label = cut(column.label.upper(), width - len(arrow)) + arrow
            if column.place is Place.RIGHT:
                segments.append(self._spring(segments, width, self._style("head")))
            segments.append(Segment(fit(label, width, column.right), self._style("sorted" if sorted_by else "head")))
            segments.append(Segment(" " * GAP, self._style("head")))
        return Strip(segments).adjust_cell_length(self._room, self._style("head"))

    def _line(self, key: str, moment: Moment) -> Strip:
        row = self.store.rows[key]
        at_cursor = key == self.cursor_id
        base = self._style("row") + (self._style("cursor") if at_cursor else Style.null())
        faded = self.faded or state_of(row.instance, moment.now, moment.active_window_s).style == "dim"
        plain = base + self._style("dim") if faded else base
        lit = self._flashes.get(key, (set(), 0.0))[0]
        segments = [Segment(" " * EDGE, base)]
        for column in self._shown():
            text = column.text(row, moment)
            style = plain
            if column.id == "state" and not self.faded:
                style = base + self._style(state_of(row.instance, moment.now, moment.active_window_s).style)
            elif column.id in lit:
                style = base + self._style("flash")
            if column.place is Place.RIGHT:
                self._ages[key] = text
                style = base + self._style("dim")
                segments.append(self._spring(segments, self._widths[column.id], base))
            segments.append(Segment(fit(text, self._widths[column.id], column.right), style))
            segments.append(Segment(" " * GAP, base))
        return Strip(segments).adjust_cell_length(self._room, base)

    def _spring(self, before: list[Segment], width: int, style: Style) -> Segment:
        """What is left of the width, so that the last column keeps to the edge."""
        taken = sum(segment.cell_length for segment in before)
        return Segment(" " * max(0, self._room - EDGE - width - taken), style)

    @property
    def _room(self) -> int:
        """Cells of a line, without the scrollbar."""
        return self.scrollable_content_region.width

    def _style(self, name: str) -> Style:
        whole = self.get_component_rich_style(f"table--{name}")
        if name in ("head", "sorted", "row"):
            return whole
        if name == "cursor":
            return Style(bgcolor=whole.bgcolor, bold=whole.bold, reverse=whole.reverse)
        return Style(color=whole.color, bold=whole.bold)

    # Widths and what fits.

    def _measure(self, keys: Iterable[str]) -> bool:
        """Makes columns as wide as their texts, between their bounds; they never shrink. Whether any grew."""
        grew = False
        rows = [self.store.rows[key] for key in keys]
        for column in self.columns:
            wanted = max(column.least, min(column.most, self._wanted(column, rows)))
            if wanted > self._widths.get(column.id, 0):
                self._widths[column.id] = wanted
                grew = True
        return grew

    def _wanted(self, column: Column, rows: list[Row]) -> int:
        if self.moment is None:
            return column.least
        texts = max((cell_len(column.text(row, self.moment)) for row in rows), default=0)
        return max(texts, cell_len(column.label) + (len(" ↓") if column.label else 0))

    def _middle(self) -> list[Column]:
        return [column for column in self.columns if column.place is Place.MIDDLE]

    def _shown_middle(self) -> list[Column]:
        fixed = sum(self._widths[column.id] + GAP for column in self.columns if column.place is not Place.MIDDLE)
        room = self._room - 2 * EDGE - fixed + GAP
        shown = []
        for column in self._middle()[self._first :]:
            room -= self._widths[column.id] + GAP
            if room < 0:
                break
            shown.append(column)
        return shown

    def _shown(self) -> list[Column]:
        """The columns on screen, from left to right."""
        left = [column for column in self.columns if column.place is Place.LEFT]
        right = [column for column in self.columns if column.place is Place.RIGHT]
        return [*left, *self._shown_middle(), *right]

    def _column_at(self, x: int) -> Column | None:
        begin = EDGE
        if x >= self._room - EDGE - self._widths[self.columns[-1].id]:
            return self.columns[-1]
        for column in self._shown()[:-1]:
            end = begin + self._widths[column.id] + GAP
            if begin <= x < end:
                return column
            begin = end
        return None

    # The cursor and the view.

    def _stand(self, place: int) -> None:
        if not self.store.ids:
            return
        before = self.cursor_id
        place = max(0, min(place, len(self.store.ids) - 1))
        self.cursor_id = self.store.ids[place]
        top, rows = self.scroll_offset.y, max(1, self.size.height - 1)
        if place < top:
            self.scroll_to(y=place, animate=False)
        elif place >= top + rows:
            self.scroll_to(y=place - rows + 1, animate=False)
        self._refresh_rows({key for key in (before, self.cursor_id) if key is not None})
        if before != self.cursor_id:
            self.post_message(self.CursorMoved())

    def _visible(self) -> list[str]:
        top = self.scroll_offset.y
        return self.store.ids[top : top + max(0, self.size.height - 1)]

    def _refresh_rows(self, keys: Iterable[str]) -> None:
        wanted = set(keys)
        if not wanted:
            return
        for y, key in enumerate(self._visible(), 1):
            if key in wanted:
                self.refresh(Region(0, y, self._room, 1))
