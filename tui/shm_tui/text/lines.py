"""Lines of styled text, and tables of them. A style is a name, to which a widget gives a colour."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shm_tui.text.cells import cell_width, cut, cut_middle

Span = tuple[str, str]  # a text and the name of its style
Line = tuple[Span, ...]

GAP = 2  # cells between two columns
MIN_COLUMN = 6  # cells that a shortened column keeps
UNCUT_WIDTH = 10_000  # cells: wider lines are those of a file, in which nothing is cut


def plain(line: Line) -> str:
    """The text of a line."""
    return "".join(text for text, _ in line)


def width_of(line: Line) -> int:
    """The cells of a line."""
    return sum(cell_width(text) for text, _ in line)


def clip(line: Line, width: int) -> Line:
    """A line in at most `width` cells; … replaces the end of one that is cut."""
    spans: list[Span] = []
    for text, style in line:
        short = cut(text, width)
        spans.append((short, style))
        width -= cell_width(short)
        if short != text:
            break
    return tuple(spans)


def facts(title: str, parts: Iterable[str], width: int) -> Line:
    """A title and facts about it, the most important first. Facts that do not fit are left out as a whole."""
    line: list[Span] = [(f" {title}", "title")]
    used = cell_width(title) + 1
    for number, part in enumerate(part for part in parts if part):
        text = f"  ·  {part}" if number else f"   {part}"
        used += cell_width(text)
        if used > width:
            break
        line.append((text, "name"))
    return clip(tuple(line), width)


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column. Those with the largest `rank` are left out first where the line is too short; 0 is never left out."""

    head: str
    align_right: bool = False
    rank: int = 0
    max_width: int = 40


@dataclass(frozen=True, slots=True)
class Table:
    """A head and rows of one width. `hidden` are the heads of columns without room."""

    head: Line
    rows: list[Line]
    hidden: list[str]


def make_table(columns: Sequence[TableColumn], rows: Sequence[Sequence[Line]], width: int) -> Table:
    """Lays out cells in aligned columns of at most `width` cells. A left-aligned cell is cut in its middle."""
    needed = [
        max([cell_width(column.head), *(width_of(row[index]) for row in rows)]) for index, column in enumerate(columns)
    ]
    limits = [column.max_width if width < UNCUT_WIDTH else width for column in columns]
    widths = [min(limit, cells) for limit, cells in zip(limits, needed, strict=True)]
    shown = list(range(len(columns)))
    while sum(widths[index] + GAP for index in shown) - GAP > width:
        least = max(shown, key=lambda index: (columns[index].rank, index))
        if columns[least].rank == 0:
            break
        shown.remove(least)
    surplus = sum(widths[index] + GAP for index in shown) - GAP - width
    for index in (index for index in shown if not columns[index].align_right):
        shortened = max(min(widths[index], MIN_COLUMN), widths[index] - max(0, surplus))
        surplus -= widths[index] - shortened
        widths[index] = shortened
    placed = [(index, widths[index], columns[index].align_right) for index in shown]
    head = _join([((columns[index].head, "head"),) for index in shown], placed, width)
    lines = [_join([row[index] for index in shown], placed, width) for row in rows]
    return Table(head, lines, [column.head for index, column in enumerate(columns) if index not in shown])


def _join(cells: list[Line], placed: list[tuple[int, int, bool]], width: int) -> Line:
    line: list[Span] = []
    for cell, (_, column_width, align_right) in zip(cells, placed, strict=True):
        short = _shorten(cell, column_width)
        padding: Span = (" " * (column_width - width_of(short)), "")
        line += [padding, *short] if align_right else [*short, padding]
        line.append((" " * GAP, ""))
    return clip(tuple(span for span in line[:-1] if span[0]), width)


def _shorten(cell: Line, width: int) -> Line:
    if width_of(cell) <= width:
        return cell
    return ((cut_middle(cell[0][0], width), cell[0][1]),) if len(cell) == 1 else clip(cell, width)
