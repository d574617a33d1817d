"""The live table: draws only the visible lines, and redraws only those that changed.

The cursor belongs to an instance and not to a line: when rows move, it moves with its instance.
"""

from collections.abc import Collection, Iterable
from time import monotonic
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Region, Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from shm_tui.model.column_heads import HEAD_LINES, head_lines
from shm_tui.model.column_layout import GAP, OVERFLOW_WIDTH, ColumnLayout
from shm_tui.model.columns import INSTANCE, SEEN, Column, Pinning
from shm_tui.model.row_store import FlushResult, RowStore
from shm_tui.model.state import Clock, State, state_of
from shm_tui.text.formatting import UNKNOWN
from shm_tui.widgets.delayed_call import call_after
from shm_tui.widgets.line_builder import LineBuilder
from shm_tui.widgets.messages import CursorMoved, LayoutChanged, RowOpened, SortRequested

HIGHLIGHT_S = 0.6  # how long a changed cell is highlighted at most
HIGHLIGHT_SLACK_S = 0.15  # by which a highlight ends earlier with other changes: one frame costs less than two
MARK = "*"  # before the state, whose column begins at the second cell
WHEEL_LINES = 3  # of one step of the mouse's wheel
MEASURED_ROWS = 200  # rows that determine the first width of a column
DIMMED_STATES = frozenset({State.SILENT, State.REVOKED})  # their values are outdated
STYLES = ("header", "sorted", "row", "cursor", "highlight", "dim", "good", "soft", "warn", "bad")
OWN_BACKGROUND = ("header", "sorted", "row", "highlight")  # the other styles are drawn on the row's background


class LiveTable(ScrollView, can_focus=True, inherit_bindings=False):
    """Shows the rows of a store. Its owner calls `show`, `update_order` and `apply_flush`.

    ScrollView's own bindings are not inherited, because they scroll without moving the cursor.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"table--{name}" for name in STYLES}

    def __init__(self) -> None:
        super().__init__()
        self.store = RowStore()
        self.clock: Clock | None = None
        self.cursor_id: str | None = None
        self.is_loading = True  # pages are still arriving: an untouched cursor stays on the first row
        self._is_cursor_touched = False
        self._cursor_index = 0  # the last known index of the cursor's instance
        self._column_layout = ColumnLayout()
        self._is_dimmed = False
        self._styles: dict[str, Style] = {}
        self._highlights: dict[str, tuple[set[str], float]] = {}  # by instance: columns, and when they end
        self._drawn_ages: dict[str, str] = {}
        self._drawn_rows: dict[int, str | None] = {}  # by line of the view: the instance; None without one

    @property
    def columns(self) -> list[Column]:
        """All columns, visible or not."""
        return self._column_layout.columns

    def width_of(self, column: Column) -> int:
        """The cells of a column, visible or not."""
        return self._column_layout.width_of(column)

    # Updates by the owner.

    def show(self, store: RowStore, columns: list[Column], clock: Clock) -> None:
        """Replaces the store or the columns. Another store resets cursor and scroll position; the former one ends."""
        if store is not self.store:
            self._highlights.clear()
            self._column_layout.reset()
            self.cursor_id = None
            self._is_cursor_touched, self._cursor_index = False, 0
            self.store.discard()
            self.store = store
            self.scroll_to(y=0, animate=False)
        self.clock = clock
        self._column_layout.set_columns(columns)
        self._column_layout.set_line_width(self._line_width)
        self._widen_columns((key, ()) for key in self.store.visible_ids[:MEASURED_ROWS])
        self.update_order()

    def update_order(self) -> None:
        """Redraws after a change of the order, or of the columns."""
        self._follow_cursor()
        self.refresh()

    def _follow_cursor(self) -> None:
        """Scrolls after a change of the rows' order or number, so that the cursor's row remains visible if it was.

        In a window, it stays on its line of the screen.
        """
        store, count = self.store, self.store.row_count
        self.virtual_size = Size(self._line_width, count + HEAD_LINES)
        if self.scroll_offset.y > self.max_scroll_y:
            self.scroll_to(y=self.max_scroll_y, animate=False, immediate=True)
        before, top = self.cursor_id, self.scroll_offset.y
        was_visible = 0 <= self._cursor_index - top < self._row_count
        index = store.index_of(before)
        is_free = not self._is_cursor_touched and (self.is_loading or store.is_windowed)
        if index is None or is_free:
            index = max(0, min(self._cursor_index, count - 1)) if self._is_cursor_touched else 0
        elif was_visible and store.is_windowed:
            self.scroll_to(y=max(0, top + index - self._cursor_index), animate=False, immediate=True)
        elif was_visible and not top <= index < top + self._row_count:
            self.scroll_to(y=max(0, index - (self._cursor_index - top)), animate=False)
        self._cursor_index = index
        self._set_cursor_id(store.id_at(index))
        if self.cursor_id != before:
            self._refresh_rows({key for key in (before, self.cursor_id) if key is not None})
            self.post_message(CursorMoved())
        self._set_rows_in_view()

    def apply_flush(self, flush: FlushResult, clock: Clock) -> None:
        """Highlights the changed cells and redraws their rows."""
        self.clock = clock
        now = monotonic()
        ended, end = self._drop_highlights(now + HIGHLIGHT_SLACK_S) if flush.changed else set(), now + HIGHLIGHT_S
        self._highlights.update((key, (column_ids, end)) for key, column_ids in flush.changed.items())
        if flush.changed:
            call_after(self, HIGHLIGHT_S, self._end_highlights)
        if self._widen_columns((key, () if INSTANCE.id in ids else ids) for key, ids in flush.changed.items()):
            self.refresh()
        if flush.is_other_list:
            self._cursor_index, self.cursor_id, self._is_cursor_touched = 0, None, False
            self.scroll_to(y=0, animate=False, immediate=True)
        if flush.order_changed:
            self._follow_cursor()
            self._refresh_moved_rows()
        self._refresh_rows(flush.changed.keys() | ended)

    def update_ages(self, clock: Clock) -> None:
        """Redraws the visible rows whose age is written differently now."""
        self.clock = clock
        age = next((column.text for column in self.columns if column.id == SEEN.id), None)
        self._refresh_rows(
            key
            for key in self._visible_keys()
            if age and key in self.store.rows and self._drawn_ages.get(key) != age(self.store.rows[key], clock)
        )

    def set_dimmed(self, is_dimmed: bool) -> None:
        """Dims all rows, while the server is unavailable."""
        if is_dimmed != self._is_dimmed:
            self._is_dimmed = is_dimmed
            self.refresh()

    def _end_highlights(self) -> None:
        self._refresh_rows(self._drop_highlights(monotonic()))

    def _drop_highlights(self, end: float) -> set[str]:
        """Forgets the highlights that end at a time or before. Returns the instances that had them."""
        ended = {key for key, (_, each) in self._highlights.items() if each <= end}
        for key in ended:
            del self._highlights[key]
        return ended

    # Input of the user.

    def move_cursor(self, lines: int) -> None:
        """Moves the cursor by lines, and the view with it."""
        index = self.store.index_of(self.cursor_id)
        self.move_cursor_to((self._cursor_index if index is None else index) + lines)

    def toggle_mark(self, limit: int) -> bool:
        """Marks the instance under the cursor or removes its mark, and moves to the next row. False at the limit."""
        row = self.store.rows.get(self.cursor_id or "")
        if row is None:
            return True
        marked = self.store.marked
        if marked.pop(row.instance.instance_id, None) is None:
            if len(marked) >= limit:
                return False
            marked[row.instance.instance_id] = row.instance
        self._refresh_rows([row.instance.instance_id])
        self.move_cursor(1)
        return True

    def move_page(self, direction: int) -> None:
        """Moves the cursor by the height of the view."""
        self.move_cursor(direction * max(1, self._row_count - 1))

    def move_to_first(self) -> None:
        """Moves the cursor to the first row."""
        self.move_cursor_to(0)

    def move_to_last(self) -> None:
        """Moves the cursor to the last row."""
        self.move_cursor_to(self.store.row_count - 1)

    def scroll_columns(self, count: int) -> None:
        """Scrolls by columns; a negative count scrolls to the left."""
        self._column_layout.scroll(count)
        self.refresh()

    def scroll_to_column(self, column: Column) -> None:
        """Scrolls until `column` is visible."""
        self._column_layout.scroll_to(column)
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        """A click on a header sorts, on a row it moves the cursor, and on the cursor it opens the row."""
        if event.y < HEAD_LINES:
            column = self._column_layout.column_at(event.x)
            if column is not None:
                self.post_message(SortRequested(column))
            return
        index = self.scroll_offset.y + event.y - HEAD_LINES
        if index < self.store.row_count:
            is_on_cursor = self.store.id_at(index) == self.cursor_id is not None
            self.move_cursor_to(index)
            if is_on_cursor:
                self.post_message(RowOpened())

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """The wheel moves the view and the cursor together, so that the cursor remains in sight."""
        self._scroll_with_cursor(event, WHEEL_LINES)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """The wheel in the other direction."""
        self._scroll_with_cursor(event, -WHEEL_LINES)

    def _scroll_with_cursor(self, event: events.MouseEvent, lines: int) -> None:
        event.stop()
        event.prevent_default()  # the widget's own handler scrolls without the cursor
        top = max(0, min(self.scroll_offset.y + lines, self.store.row_count - self._row_count))
        self.scroll_to(y=top, animate=False, immediate=True)
        self.move_cursor(lines)

    def on_resize(self) -> None:
        """Another width shows other columns."""
        self.virtual_size = Size(self._line_width, self.store.row_count + HEAD_LINES)
        self._set_rows_in_view()
        self._column_layout.set_line_width(self._line_width)
        self.refresh()
        self.post_message(LayoutChanged())

    def notify_style_update(self) -> None:
        """Drops cached styles: the theme changed."""
        super().notify_style_update()
        self._styles = {}

    def on_focus(self) -> None:
        """Drops cached styles: the cursor has another colour with the focus."""
        self._styles = {}

    def on_blur(self) -> None:
        """Drops cached styles: the cursor has another colour without the focus."""
        self._styles = {}

    # Drawing.

    def render_line(self, y: int) -> Strip:
        """One line of the view: a line of the header, a row, or a blank line."""
        if y < HEAD_LINES:
            return self._render_header(y)
        index = self.scroll_offset.y + y - HEAD_LINES
        key = self._drawn_rows[y] = self.store.id_at(index)
        if key is not None and key in self.store.rows and self.clock is not None:
            return self._render_row(key, self.clock)
        is_on_cursor = index == self._cursor_index < self.store.row_count  # its row is being loaded
        return Strip.blank(self._line_width, self._style("row") + self._style("cursor" if is_on_cursor else "row"))

    def _render_header(self, line_number: int) -> Strip:
        plain, sorted_style = self._style("header"), self._style("sorted")
        line = LineBuilder(plain)
        left, right = self._column_layout.hidden_counts()
        all_placed = self._column_layout.placed()
        for placed in all_placed:
            column = placed.column
            is_last_line = line_number == HEAD_LINES - 1
            if column.pinning is Pinning.RIGHT and right and is_last_line:
                line.add(f"+{right}›", placed.x - GAP - OVERFLOW_WIDTH, OVERFLOW_WIDTH, plain, align_right=True)
            is_sorted = column.id == self.store.sort_column.id
            style = sorted_style if is_sorted else plain
            text = head_lines(column.label.upper(), placed.width)[line_number]
            line.add(text, placed.x, placed.width, style, column.align_right)
            if is_sorted and is_last_line:  # the arrow is in the gap, so that labels stay aligned with their values
                line.add("↓" if self.store.is_descending else "↑", placed.x + placed.width, 1, sorted_style)
        strip = line.strip(self._line_width)
        first_x = next((placed.x for placed in all_placed if placed.column.pinning is Pinning.NONE), 0)
        if left and first_x > GAP and line_number == HEAD_LINES - 1:
            arrow = Strip([Segment("‹", sorted_style)], 1)
            strip = Strip.join([strip.crop(0, first_x - GAP), arrow, strip.crop(first_x - GAP + 1, self._line_width)])
        return strip

    def _render_row(self, key: str, clock: Clock) -> Strip:
        row = self.store.rows[key]
        state = state_of(row.instance, clock)
        base = self._style("row")
        if key == self.cursor_id:
            base += self._style("cursor")
        dim = base + self._style("dim")
        plain = dim if self._is_dimmed or state in DIMMED_STATES else base
        highlighted: set[str] = self._highlights[key][0] if key in self._highlights else set()
        line = LineBuilder(base)
        if key in self.store.marked:
            line.add(MARK, 0, 1, base + self._style("warn"))
        for placed in self._column_layout.placed():
            column, style = placed.column, plain
            text = column.text(row, clock)
            if column.id == "state":
                style = dim if self._is_dimmed else base + self._style(state.style)
            elif column.id in highlighted:
                style = base + self._style("highlight")
            elif column.id == SEEN.id:
                self._drawn_ages[key] = text
                style = dim
            elif text == UNKNOWN:
                style = dim
            line.add(text, placed.x, placed.width, style, column.align_right)
        return line.strip(self._line_width)

    @property
    def _line_width(self) -> int:
        """Cells of a line, without the scrollbar."""
        return self.scrollable_content_region.width

    @property
    def _row_count(self) -> int:
        """Rows that fit below the header."""
        return max(1, self.size.height - HEAD_LINES)

    def _style(self, name: str) -> Style:
        if name not in self._styles:
            style = self.get_component_rich_style(f"table--{name}")
            if name == "cursor":
                style = Style(bgcolor=style.bgcolor, bold=style.bold, reverse=style.reverse)
            elif name not in OWN_BACKGROUND:
                style = Style(color=style.color, bold=style.bold, dim=style.dim)
            self._styles[name] = style
        return self._styles[name]

    def _widen_columns(self, cells: Iterable[tuple[str, Collection[str]]]) -> bool:
        """Widens columns to cells of these rows; without IDs of columns, to all of a row."""
        if self.clock is None:
            return False
        rows = self.store.rows
        return self._column_layout.widen(((rows[key], ids) for key, ids in cells if key in rows), self.clock)

    # The cursor and the view.

    def move_cursor_to(self, index: int) -> None:
        """Moves the cursor to a row, at most to the first or the last one."""
        store = self.store
        if not store.row_count:
            return
        before, was_touched = self.cursor_id, self._is_cursor_touched
        index = max(0, min(index, store.row_count - 1))
        self._cursor_index, self._is_cursor_touched = index, True
        self._set_cursor_id(store.id_at(index))
        top, row_count = self.scroll_offset.y, self._row_count
        if index < top:
            self.scroll_to(y=index, animate=False)
        elif index >= top + row_count:
            self.scroll_to(y=index - row_count + 1, animate=False)
        self._set_rows_in_view()
        if self.cursor_id is None:
            self.refresh()
        self._refresh_rows({key for key in (before, self.cursor_id) if key is not None})
        if before != self.cursor_id or not was_touched:  # the top line has the number of a row that was chosen
            self.post_message(CursorMoved())

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Requests the rows that came into view."""
        super().watch_scroll_y(old_value, new_value)
        self._set_rows_in_view()

    def _set_rows_in_view(self) -> None:
        top = self.scroll_offset.y
        self.store.set_rows_in_view(range(top, top + self._row_count))

    def _set_cursor_id(self, instance_id: str | None) -> None:
        self.cursor_id = instance_id
        self.store.anchor_id = instance_id if self._is_cursor_touched else None

    def _visible_keys(self) -> list[str | None]:
        top = self.scroll_offset.y
        return [self.store.id_at(index) for index in range(top, min(top + self._row_count, self.store.row_count))]

    def _refresh_rows(self, keys: Iterable[str]) -> None:
        changed = set(keys)
        if not changed:
            return
        for y, key in enumerate(self._visible_keys(), HEAD_LINES):
            if key in changed:
                self.refresh(Region(0, y, self._line_width, 1))

    def _refresh_moved_rows(self) -> None:
        """Redraws the lines that have another row now, and those whose row is not loaded: one may have the cursor."""
        for y in range(HEAD_LINES, self.size.height):
            key = self.store.id_at(self.scroll_offset.y + y - HEAD_LINES)
            if key is None or key != self._drawn_rows.get(y):
                self.refresh(Region(0, y, self._line_width, 1))
