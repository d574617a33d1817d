"""Builds one line of a table from texts at given cells."""

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from shm_tui.text.cells import cut


class LineBuilder:
    """A line under construction. Texts are added from left to right."""

    def __init__(self, style: Style) -> None:
        self._style = style
        self._segments: list[Segment] = []
        self._end = 0

    def add(self, text: str, x: int, width: int, style: Style, align_right: bool = False) -> None:
        """Adds `text` in exactly `width` cells from `x` on. `style` applies to the text, not to its padding."""
        short = cut(text, width)
        padding = width - cell_len(short)
        space_before = x - self._end + (padding if align_right else 0)
        self._segments.append(Segment(" " * space_before, self._style))
        self._segments.append(Segment(short, style))
        if padding and not align_right:
            self._segments.append(Segment(" " * padding, self._style))
        self._end = x + width

    def strip(self, width: int) -> Strip:
        """The line, padded or cut to `width` cells."""
        return Strip(self._segments, self._end).adjust_cell_length(width, self._style)
