"""The pane of a view: draws the lines of its page, and writes only the cells that changed.

The cursor is on a row's key and the reading on a time, so that new data move neither.
"""

import os
import sys
from datetime import datetime
from itertools import groupby
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Region
from textual.scroll_view import ScrollView
from textual.strip import Strip

from shm_tui.model.place import Place
from shm_tui.model.view_session import ViewSession
from shm_tui.model.views.base import Frame, Page
from shm_tui.text.cells import wrap
from shm_tui.text.formatting import age
from shm_tui.text.glyphs import choose_glyphs
from shm_tui.text.lines import Line, clip, plain, width_of
from shm_tui.text.sanitizing import ELLIPSIS
from shm_tui.widgets.messages import PlaceRequested

WHEEL_LINES = 3  # of one step of the mouse's wheel
MESSAGE_INDENT = 4  # cells
EMPTY_PAGE = Page([], [])
STYLES = (
    *("title", "head", "name", "value", "accent", "chart", "track", "running", "cursor", "good", "warn", "bad"),
    *(f"band{number}" for number in range(6)),
    *("rest", "selected"),
)


class ViewPane(ScrollView, can_focus=True, inherit_bindings=False):
    """Shows a view's session. Its owner calls `show` and `draw`. The head of the page stays; its rows scroll below."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"view--{name}" for name in STYLES}

    def __init__(self) -> None:
        super().__init__()
        self.session: ViewSession | None = None
        self._page = EMPTY_PAGE
        self._message: list[str] = []  # in place of rows
        self._note = ""  # in the last line: why the data are old
        self._key: str | None = None  # of the row under the cursor
        self._index = 0  # the last known index of that row
        self._top = 0  # the index of the first visible row
        self._selected_time: datetime | None = None  # in a chart; None: the last one
        self._drawn: list[Strip] = []
        self._styles: dict[str, Style] = {}
        self._glyphs = choose_glyphs(getattr(sys.__stdout__, "encoding", "utf-8"), os.environ.get("TERM", ""))

    # Updates by the owner.

    def show(self, session: ViewSession) -> None:
        """Shows another view, from its first row."""
        self.session = session
        self._page, self._key, self._index, self._top, self._selected_time = EMPTY_PAGE, None, 0, 0, None
        self.draw()

    def draw(self) -> None:
        """Draws the page again: the cells that differ are written."""
        session = self.session
        if session is None or not self.size.height:
            return
        self._message, self._note = [], ""
        if session.view.has_data:
            self._page = session.view.page(self._frame(session))
            self._message = self._page.empty.splitlines()
            if session.error:
                self._note = f"data of {age(session.loaded_at, session.now())} ago: {session.error}. {session.remedy}"
        else:
            self._message = [session.error, "", f"No data has arrived yet. {session.remedy}"]
            self._message = self._message if session.error else ["Loading…"]
        self._follow_cursor()
        self._write()

    @property
    def place(self) -> Place | None:
        """The place of the view; None until one has been shown."""
        return self.session.place if self.session else None

    @property
    def target(self) -> Place | None:
        """The place that the row under the cursor leads to."""
        return self._page.rows[self._index].target if self._page.rows else None

    @property
    def row_key(self) -> str:
        """The key of the row under the cursor; "" without rows."""
        return self._page.rows[self._index].key if self._page.rows else ""

    @property
    def line(self) -> str:
        """The text of the row under the cursor, else of the title."""
        lines = [self._page.rows[self._index].line] if self._page.rows else self._page.head[:1]
        return "\n".join(plain(line).strip() for line in lines)

    # Input of the user.

    def move_cursor(self, lines: int) -> None:
        """Moves the cursor by lines, and the view with it."""
        self._move_to(self._index + lines)

    def move_page(self, direction: int) -> None:
        """Moves the cursor by the height of the rows."""
        self.move_cursor(direction * max(1, self._row_count - 1))

    def move_to_first(self) -> None:
        """Moves the cursor to the first row."""
        self._move_to(0)

    def move_to_last(self) -> None:
        """Moves the cursor to the last row."""
        self._move_to(len(self._page.rows) - 1)

    def scroll_columns(self, count: int) -> None:
        """Reads an earlier or a later time of the chart."""
        times = self._page.times
        if not times:
            return
        current = len(times) - 1
        if self._selected_time is not None:
            selected_time = self._selected_time
            current = min(range(len(times)), key=lambda index: abs(times[index] - selected_time))
        index = max(0, min(current + count, len(times) - 1))
        self._selected_time = None if index == len(times) - 1 else times[index]
        self.draw()

    def on_click(self, event: events.Click) -> None:
        """A click moves the cursor to a row, and on the cursor it opens the row."""
        index = self._top + event.y - len(self._head)
        if event.y < len(self._head) or index >= len(self._page.rows):
            return
        is_on_cursor = index == self._index
        self._move_to(index)
        if is_on_cursor and (target := self.target) is not None:
            self.post_message(PlaceRequested(target))

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """The wheel moves the cursor and the rows with it."""
        event.stop()
        self.move_cursor(WHEEL_LINES)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """The wheel in the other direction."""
        event.stop()
        self.move_cursor(-WHEEL_LINES)

    def on_resize(self) -> None:
        """Another size has another page."""
        self._drawn = []
        self.draw()

    def on_focus(self) -> None:
        """Draws the cursor in its colour with the focus."""
        self._redraw()

    def on_blur(self) -> None:
        """Draws the cursor in its colour without the focus."""
        self._redraw()

    def notify_style_update(self) -> None:
        """Draws in the colours of another theme."""
        super().notify_style_update()
        self._redraw()

    def _redraw(self) -> None:
        self._styles = {}
        if self.is_mounted:
            self._write()

    def _move_to(self, index: int) -> None:
        rows = self._page.rows
        if rows:
            self._index = max(0, min(index, len(rows) - 1))
            self._key = rows[self._index].key
            self._scroll_to_cursor()
            self._write()

    # Drawing.

    def render_line(self, y: int) -> Strip:
        """A line that `draw` has made."""
        return self._drawn[y] if y < len(self._drawn) else Strip.blank(self.size.width, self._style("value"))

    @property
    def _head(self) -> list[Line]:
        return self._page.head[: max(0, self.size.height - 1)]

    @property
    def _row_count(self) -> int:
        """Rows that fit below the head, above the note."""
        return max(1, self.size.height - len(self._head) - bool(self._note))

    def _frame(self, session: ViewSession) -> Frame:
        return Frame(
            self.size.width,
            self.size.height,
            session.now(),
            session.place,
            self._glyphs,
            self._selected_time,
            not self.app.no_color,
        )

    def _follow_cursor(self) -> None:
        """Finds the cursor's row again; a row that is gone leaves the cursor at its place."""
        rows = self._page.rows
        if not rows:
            return
        index = next((index for index, row in enumerate(rows) if row.key == self._key), None)
        if self._key is None or index is None:
            index = max(0, min(self._index, len(rows) - 1))
        self._index, self._key = index, rows[index].key
        self._scroll_to_cursor()

    def _scroll_to_cursor(self) -> None:
        self._top = max(self._index - self._row_count + 1, min(self._top, self._index))
        self._top = max(0, min(self._top, len(self._page.rows) - self._row_count))

    def _write(self) -> None:
        """Draws all lines, and refreshes the cells that differ from those on the screen."""
        lines = self._strips()
        if len(lines) != len(self._drawn):
            self._drawn = lines
            self.refresh()
            return
        for y, (before, after) in enumerate(zip(self._drawn, lines, strict=True)):
            if before != after:
                self._drawn[y] = after
                self.refresh(_changed_region(y, before, after))

    def _strips(self) -> list[Strip]:
        width, height = self.size
        strips = [self._strip(line) for line in self._head]
        if strips and len(self._page.rows) > self._row_count:
            strips[0] = self._with_position(strips[0])
        rows = self._page.rows[self._top : self._top + self._row_count]
        strips += [self._strip(row.line, is_selected=index == self._index) for index, row in enumerate(rows, self._top)]
        if self._message:
            strips += [self._strip(())]
            room = max(1, width - 2 * MESSAGE_INDENT)
            texts = [part for text in self._message for part in wrap(text, room)]
            strips += [self._strip(((" " * MESSAGE_INDENT + text, "name"),)) for text in texts]
        blank = Strip.blank(width, self._style("value"))
        strips = [*strips, *[blank] * (height - len(strips))][:height]
        if self._note and strips:
            strips[-1] = self._strip(((f" {self._note}", "warn"),), is_note=True)
        return strips

    def _with_position(self, title: Strip) -> Strip:
        """The title with the number of the cursor's row at its end. A title without room is cut with an ellipsis."""
        position = f" row {self._index + 1:,} of {len(self._page.rows):,} "
        room = self.size.width - len(position)
        if title.crop(room).text.strip():
            position = f"{ELLIPSIS}{position}"
        end = Strip([Segment(position, self._style("name"))], len(position))
        return Strip.join([title.crop(0, self.size.width - len(position)), end])

    def _strip(self, line: Line, *, is_selected: bool = False, is_note: bool = False) -> Strip:
        base = self._style("selected") if is_selected else Style()
        is_dimmed = bool(self.session and self.session.error) and not is_note
        segments = [
            Segment(text, self._style("name" if is_dimmed else style or "value") + base)
            for text, style in clip(line, self.size.width)
        ]
        strip = Strip(segments, width_of(clip(line, self.size.width)))
        return strip.adjust_cell_length(self.size.width, self._style("value") + base)

    def _style(self, name: str) -> Style:
        if name not in self._styles:
            style = self.get_component_rich_style(f"view--{name}")
            if name == "selected":
                style = Style(bgcolor=style.bgcolor, bold=style.bold, reverse=style.reverse)
            self._styles[name] = style
        return self._styles[name]


def _changed_region(y: int, before: Strip, after: Strip) -> Region:
    """The cells of a line from the first that differs to the last one."""
    old, new = _cells(before), _cells(after)
    different = [x for x, (left, right) in enumerate(zip(old, new, strict=False)) if left != right]
    if not different or len(old) != len(new):
        return Region(0, y, max(len(old), len(new)), 1)
    return Region(different[0], y, different[-1] - different[0] + 1, 1)


def _cells(strip: Strip) -> list[tuple[str, Style | None]]:
    """The characters of a line with their styles, a wide one once for each of its cells."""
    cells: list[tuple[str, Style | None]] = []
    for segment in strip:
        for character, run in groupby(segment.text):
            count = sum(1 for _ in run)
            wide = width_of(((character, ""),)) or 1
            cells += [(character, segment.style)] * (count * wide)
    return cells
