"""The layout of a line: which columns fit, their widths, and which of the scrolling columns are visible.

Columns pinned to the left or the right are always visible. The scrolling columns between them fill the rest of the
line from `first` on. Remaining space widens the visible ones.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from shm_tui.model.column_heads import head_width
from shm_tui.model.columns import Column, Pinning
from shm_tui.model.row import Row
from shm_tui.model.state import Clock
from shm_tui.text.cells import cell_width

GAP = 2  # cells between two columns
PADDING = 1  # cells at either end of a line
OVERFLOW_WIDTH = 5  # cells of the number of columns further to the right
MAX_SHORT_WIDTH = 6  # cells of a number within these limits, such as -1.28k or 0.0123
SHORT_FRACTION, SHORT_NUMBER = Decimal("0.01"), 999 * 10**12
MAX_STRETCH = 6  # cells that a column is widened by where there is space


@dataclass(frozen=True, slots=True)
class PlacedColumn:
    """A column with its first cell and its width."""

    column: Column
    x: int
    width: int


def place_columns(
    columns: Sequence[Column], widths: Mapping[str, int], line_width: int, first: int
) -> list[PlacedColumn]:
    """The columns that fit into `line_width` cells, from left to right. `first` is the first scrolling column."""
    placed: list[PlacedColumn] = []
    x = PADDING
    for column in _with_pinning(columns, Pinning.LEFT):
        placed.append(PlacedColumn(column, x, widths[column.id]))
        x += widths[column.id] + GAP
    right_columns = _with_pinning(columns, Pinning.RIGHT)
    right_x = line_width - PADDING - sum(widths[column.id] for column in right_columns)
    visible, spare = _take_fitting(_with_pinning(columns, Pinning.NONE)[first:], widths, right_x - x)
    stretch = min(MAX_STRETCH, spare // len(visible)) if visible else 0
    for column in visible:
        width = widths[column.id] + (stretch if column.min_width < column.max_width else 0)  # else it has been chosen
        placed.append(PlacedColumn(column, x, width))
        x += width + GAP
    for column in right_columns:
        placed.append(PlacedColumn(column, max(x, right_x), widths[column.id]))
        right_x += widths[column.id]
    return placed


def _with_pinning(columns: Sequence[Column], pinning: Pinning) -> list[Column]:
    return [column for column in columns if column.pinning is pinning]


def _take_fitting(columns: Sequence[Column], widths: Mapping[str, int], space: int) -> tuple[list[Column], int]:
    """The leading columns that fit into `space`, each with its gap, and the cells that remain."""
    if sum(widths[column.id] + GAP for column in columns) > space:
        space -= OVERFLOW_WIDTH + GAP
    fitting = []
    for column in columns:
        if widths[column.id] + GAP > space:
            break
        space -= widths[column.id] + GAP
        fitting.append(column)
    return fitting, space


class ColumnLayout:
    """The columns of one table: their widths, and how far they are scrolled."""

    def __init__(self) -> None:
        self.columns: list[Column] = []
        self._line_width = 0
        self._widths: dict[str, int] = {}
        self._first = 0  # index of the first visible column among the scrolling ones
        self._placed: list[PlacedColumn] | None = None

    def reset(self) -> None:
        """Forgets widths and scroll position: the rows are those of another application."""
        self._widths.clear()
        self._first = 0

    def set_columns(self, columns: list[Column]) -> None:
        """Replaces the columns; `widen` must follow, because new columns have no width yet."""
        self.columns = columns
        for column in columns:
            if column.id in self._widths:  # another width may have been chosen
                width = self._widths[column.id]
                self._widths[column.id] = max(column.min_width, min(column.max_width, width))
        self._first = min(self._first, max(0, len(self._scrolling()) - 1))
        self._placed = None

    def set_line_width(self, line_width: int) -> None:
        """Sets the cells of a line."""
        if line_width != self._line_width:
            self._line_width = line_width
            self._placed = None

    def width_of(self, column: Column) -> int:
        """The cells of a column, visible or not, before it is widened by spare space."""
        return self._widths.get(column.id, column.min_width)

    def placed(self) -> list[PlacedColumn]:
        """The visible columns, from left to right."""
        if self._placed is None:
            self._placed = place_columns(self.columns, self._widths, self._line_width, self._first)
        return self._placed

    def widen(self, cells: Iterable[tuple[Row, Collection[str]]], clock: Clock) -> bool:
        """Widens columns to cells, within their bounds. Columns never shrink. True if any grew.

        `cells` are rows, each with the IDs of its columns to measure; none for all of them.
        """
        growing = {each.id: each for each in self.columns if self._widths.get(each.id, 0) < each.max_width}
        needed = {column_id: head_width(column.label.upper()) for column_id, column in growing.items()}
        for row, column_ids in cells:
            for column_id in column_ids or growing:
                if (column := growing.get(column_id)) is not None and not _is_short(column, row):
                    needed[column_id] = max(needed[column_id], cell_width(column.text(row, clock)))
        has_grown = False
        for column_id, column in growing.items():
            width = max(column.min_width, min(column.max_width, needed[column_id]))
            if width > self._widths.get(column_id, 0):
                self._widths[column_id] = width
                self._placed = None
                has_grown = True
        return has_grown

    def hidden_counts(self) -> tuple[int, int]:
        """The numbers of scrolling columns to the left and to the right of the visible ones."""
        visible = sum(placed.column.pinning is Pinning.NONE for placed in self.placed())
        return self._first, max(0, len(self._scrolling()) - self._first - visible)

    def scroll(self, count: int) -> None:
        """Scrolls by `count` columns; a negative count scrolls to the left."""
        left, right = self.hidden_counts()
        self._first = max(0, self._first + max(-left, min(count, right)))
        self._placed = None

    def scroll_to(self, column: Column) -> None:
        """Scrolls until `column` is visible. A pinned column always is."""
        scrolling = self._scrolling()
        if column not in scrolling:
            return
        index = scrolling.index(column)
        self._first = min(self._first, index)
        self._placed = None
        while self._first < index and all(placed.column is not column for placed in self.placed()):
            self._first += 1
            self._placed = None

    def column_at(self, x: int) -> Column | None:
        """The column at a cell of the line. The gap after a column belongs to it."""
        return next((placed.column for placed in self.placed() if placed.x <= x < placed.x + placed.width + GAP), None)

    def _scrolling(self) -> list[Column]:
        return _with_pinning(self.columns, Pinning.NONE)


def _is_short(column: Column, row: Row) -> bool:
    """Whether a cell is a number that no column is too narrow for: most changes are of such numbers."""
    if column.metric is None or column.min_width < MAX_SHORT_WIDTH:
        return False
    value = row.metrics.get(column.metric)
    if type(value) is int:
        return -SHORT_NUMBER < value < SHORT_NUMBER
    return type(value) is Decimal and SHORT_FRACTION < value < SHORT_NUMBER
