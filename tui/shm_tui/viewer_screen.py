"""A viewer of a long text, where no pager may or can be executed: scrolls, and searches."""

from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widgets import Input, Static

from shm_tui.dialog import Dialog
from shm_tui.text.cells import cell_width

HINT = "/ search   n next   N previous   y copy   q close"


class TextView(ScrollView, can_focus=True):
    """Draws the visible lines of a text, with the matches of a search highlighted."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"text--line", "text--match"}

    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self.lines = lines
        self.pattern = ""  # case-folded
        self.virtual_size = Size(max(map(cell_width, lines), default=0), len(lines))

    def find(self, offset: int) -> bool:
        """Scrolls to the next line (1) or the previous one (-1) with the pattern. False if there is none."""
        count = len(self.lines)
        start = self.scroll_offset.y
        indexes = [(start + offset * step) % count for step in range(1, count + 1)] if count else []
        found = next(
            (index for index in indexes if self.pattern and self.pattern in self.lines[index].casefold()), None
        )
        if found is not None:
            self.scroll_to(y=found, animate=False)
        self.refresh()
        return found is not None

    def render_line(self, y: int) -> Strip:
        """One line of the view."""
        x, top = self.scroll_offset
        style = self.get_component_rich_style("text--line")
        if top + y >= len(self.lines):
            return Strip.blank(self.size.width, style)
        strip = Strip(self._segments(self.lines[top + y], style))
        return strip.crop_extend(x, x + self.size.width, style)

    def _segments(self, line: str, style: Style) -> list[Segment]:
        folded, length = line.casefold(), len(self.pattern)
        if not length or len(folded) != len(line):  # a letter that folds into two moves what follows
            return [Segment(line, style)]
        segments: list[Segment] = []
        start = 0
        while (found := folded.find(self.pattern, start)) >= 0:
            match = line[found : found + length]
            segments += [
                Segment(line[start:found], style),
                Segment(match, self.get_component_rich_style("text--match")),
            ]
            start = found + length
        return [*segments, Segment(line[start:], style)]


class ViewerScreen(Dialog[str | None]):
    """Shows a text over the whole screen. The result is the text if it is to be copied."""

    BINDINGS = [  # noqa: RUF012
        Binding("escape,q,ctrl+c", "close", "close"),
        Binding("slash", "search", "search", priority=True),  # before the next key is read, which is of the pattern
        Binding("n", "find(1)", "next"),
        Binding("N", "find(-1)", "previous"),
        Binding("y", "copy", "copy"),
        *(Binding(key, f"scroll({lines})", "scroll") for key, lines in (("j", 1), ("k", -1))),
        Binding("g", "edge(False)", "start"),
        Binding("G", "edge(True)", "end"),
    ]

    def __init__(self, title: str, text: str) -> None:
        super().__init__()
        self._text = text
        self._view = TextView(text.splitlines())
        self._title = Static(title, id="viewer-title", markup=False)
        self._hint = Static(HINT, id="viewer-hint", markup=False)
        self._field = Input(placeholder="search", classes="field", id="viewer-search")

    def compose(self) -> ComposeResult:
        """The title, the text, and the keys, or the input of a search."""
        with Vertical(id="viewer"):
            yield self._title
            yield self._view
            yield self._field
            yield self._hint

    def on_mount(self) -> None:
        """The text has the focus."""
        self._field.display = False
        self._view.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Finds the first line with the pattern, from the first one in view on."""
        event.stop()
        self._view.pattern = event.value.casefold()
        self._close_search()
        self.action_find(1)

    def on_input_changed(self, event: Input.Changed) -> None:
        """The app's own prompts do not get the pattern."""
        event.stop()

    def action_search(self) -> None:
        """Opens the input."""
        self._field.value = ""
        self._field.display = True
        self.set_focus(self._field)  # at once

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Leaves `/` to the input while it is open."""
        return action != "search" or not self._field.display

    def action_find(self, offset: int) -> None:
        """Scrolls to another line with the pattern."""
        is_found = self._view.find(offset)
        self._hint.update(
            HINT if is_found or not self._view.pattern else f"no line has “{self._view.pattern}”   {HINT}"
        )

    def action_scroll(self, lines: int) -> None:
        """Scrolls by lines."""
        self._view.scroll_relative(y=lines, animate=False)

    def action_edge(self, is_end: bool) -> None:
        """Scrolls to the start or the end."""
        self._view.scroll_end(animate=False) if is_end else self._view.scroll_home(animate=False)

    def action_copy(self) -> None:
        """Closes the viewer, and copies the text."""
        self.dismiss(self._text)

    def action_close(self) -> None:
        """Closes the input, else the viewer."""
        if self._field.display:
            self._close_search()
        else:
            self.dismiss(None)

    def _close_search(self) -> None:
        self._field.display = False
        self._view.focus()
