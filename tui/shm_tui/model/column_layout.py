"""Which columns a width has room for, and where each of them stands.

Left and right columns are always there; the middle shows what fits from its first column on, and room to spare is
shared out. Nothing here draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shm_tui.model.columns import Column, Place

GAP = 2  # cells between two columns
EDGE = 1  # cells on either side
HINT = 5  # cells that say how many columns lie further to the right
STRETCH = 6  # cells that a column is widened by, at most, where there is room to spare


@dataclass(frozen=True, slots=True)
class Laid:
    """A column where it stands on the screen."""

    column: Column
    begin: int
    width: int


def lay(columns: Sequence[Column], widths: Mapping[str, int], room: int, first: int) -> list[Laid]:
    """The columns that `room` cells show, from left to right; `first` counts the columns of the middle."""
    laid: list[Laid] = []
    begin = EDGE
    for column in _at(columns, Place.LEFT):
        laid.append(Laid(column, begin, widths[column.id]))
        begin += widths[column.id] + GAP
    at_right = _at(columns, Place.RIGHT)
    end = room - EDGE - sum(widths[column.id] for column in at_right)
    shown, spare = _fitting(_at(columns, Place.MIDDLE)[first:], widths, end - begin)
    stretch = min(STRETCH, spare // len(shown)) if shown else 0
    for column in shown:
        laid.append(Laid(column, begin, widths[column.id] + stretch))
        begin += widths[column.id] + stretch + GAP
    for column in at_right:
        laid.append(Laid(column, max(begin, end), widths[column.id]))
        end += widths[column.id]
    return laid


def _at(columns: Sequence[Column], place: Place) -> list[Column]:
    return [column for column in columns if column.place is place]


def _fitting(rest: Sequence[Column], widths: Mapping[str, int], room: int) -> tuple[list[Column], int]:
    """Those of `rest` that fit, each with its gap, and the cells that are left over."""
    if sum(widths[column.id] + GAP for column in rest) > room:
        room -= HINT + GAP
    shown = []
    for column in rest:
        if widths[column.id] + GAP > room:
            break
        room -= widths[column.id] + GAP
        shown.append(column)
    return shown, room
