"""The user's choice of columns: which are hidden, which are pinned, their order and their widths.

`arrange` applies it to the columns of `columns.build_columns`.

The names are those of `--columns`: `version`, `invoices_sent`, and `metrics.version` for a metric with the name of a
column. The state and the ID of an instance are always the first two columns, and `seen` is the last one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import msgspec

from shm_tui.model.columns import (
    APPLICATION,
    FIXED_COLUMNS,
    INSTANCE,
    METRIC_PREFIX,
    SEEN,
    STATE,
    VERSION,
    Column,
    Pinning,
)

MIN_COLUMN_WIDTH, MAX_COLUMN_WIDTH = 3, 60  # cells that can be chosen
MAX_NAMES = 1_000  # in one list: more than anybody arranges
DEFAULT_PINNED = (APPLICATION.id, VERSION.id)
PLACED = (STATE.id, INSTANCE.id, SEEN.id)  # columns with a place of their own
EXPORT_PREFIX = "metrics."  # of a metric in exports
_NAMES = {name: column.id for column in FIXED_COLUMNS for name in (column.id, column.label, column.field) if name}


class ColumnChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The choice for the list of one application. `order`: these first, then the others in their own order."""

    hidden: tuple[str, ...] = ()
    pinned: tuple[str, ...] = DEFAULT_PINNED
    order: tuple[str, ...] = ()
    widths: Mapping[str, int] = {}


def column_name(column: Column) -> str:
    """The column's name in the configuration file and for `--columns`."""
    if column.metric is None:
        return column.id
    is_unambiguous = column.metric not in _NAMES and not column.metric.startswith(EXPORT_PREFIX)
    return column.metric if is_unambiguous else EXPORT_PREFIX + column.metric


def check_choice(choice: ColumnChoice) -> None:
    """Raises ValueError for a choice that cannot be drawn."""
    if max(map(len, (choice.hidden, choice.pinned, choice.order, choice.widths))) > MAX_NAMES:
        raise ValueError(f"at most {MAX_NAMES:,} columns are possible")
    for name, width in choice.widths.items():
        if not MIN_COLUMN_WIDTH <= width <= MAX_COLUMN_WIDTH:
            raise ValueError(f"the width of {name} is from {MIN_COLUMN_WIDTH} to {MAX_COLUMN_WIDTH} cells")


def arrange(columns: Sequence[Column], choice: ColumnChoice, line_width: int) -> list[Column]:
    """The columns as chosen. Pinned ones take two thirds of a line at most; those without room scroll."""
    hidden, pinned = _ids(choice.hidden), _ids(choice.pinned)
    if not columns:
        return []
    shown = [_widened(column, choice) for column in in_order(columns, choice) if column.id not in hidden]
    left, scrolling = [], []
    used = 0
    for column in shown:
        if column.id in pinned and used + column.max_width <= line_width * 2 // 3:
            used += column.max_width
            left.append(_with_pinning(column, Pinning.LEFT))
        else:
            scrolling.append(_with_pinning(column, Pinning.NONE))
    seen = [SEEN] if SEEN.id not in hidden else []
    return [STATE, INSTANCE, *left, *scrolling, *seen]


def in_order(columns: Sequence[Column], choice: ColumnChoice) -> list[Column]:
    """The columns that can be moved, hidden ones too: first the pinned ones."""
    positions = {column_id: index for index, column_id in enumerate(_ids(choice.order))}
    pinned = _ids(choice.pinned)
    movable = [column for column in columns if column.id not in PLACED]
    return sorted(movable, key=lambda column: (column.id not in pinned, positions.get(column.id, len(positions))))


def toggled(choice: ColumnChoice, part: str, column: Column) -> ColumnChoice:
    """With the column hidden or shown again, or pinned or not: `part` is `hidden` or `pinned`."""
    names: tuple[str, ...] = getattr(choice, part)
    others = tuple(name for name in names if _id(name) != column.id)
    return msgspec.structs.replace(
        choice, **{part: others if len(others) < len(names) else (*names, column_name(column))}
    )


def moved(choice: ColumnChoice, columns: Sequence[Column], column: Column, offset: int) -> ColumnChoice:
    """With the column before or after its neighbour. Pinned columns remain before the others."""
    ordered = in_order(columns, choice)
    index = next(index for index, each in enumerate(ordered) if each.id == column.id)
    other, pinned = index + offset, _ids(choice.pinned)
    if not 0 <= other < len(ordered) or (ordered[other].id in pinned) != (column.id in pinned):
        return choice
    ordered[index], ordered[other] = ordered[other], ordered[index]
    names = tuple(map(column_name, ordered))
    for count in range(len(names) + 1):  # as few names as lead to this order: columns that appear later follow
        shorter = msgspec.structs.replace(choice, order=names[:count])
        if [each.id for each in in_order(columns, shorter)] == [each.id for each in ordered]:
            return shorter
    return choice


def with_width(choice: ColumnChoice, column: Column, width: int) -> ColumnChoice:
    """With another width of the column."""
    others = {name: each for name, each in choice.widths.items() if _id(name) != column.id}
    limited = max(MIN_COLUMN_WIDTH, min(MAX_COLUMN_WIDTH, width))
    return msgspec.structs.replace(choice, widths=others | {column_name(column): limited})


def chosen_width(choice: ColumnChoice, column: Column) -> int | None:
    """The width that has been chosen; None if the column is as wide as its cells."""
    return next((width for name, width in choice.widths.items() if _id(name) == column.id), None)


def is_in(names: Iterable[str], column: Column) -> bool:
    """Whether a list of names has the column."""
    return column.id in _ids(names)


def _with_pinning(column: Column, pinning: Pinning) -> Column:
    return column if column.pinning is pinning else replace(column, pinning=pinning)


def _widened(column: Column, choice: ColumnChoice) -> Column:
    width = chosen_width(choice, column)
    return column if width is None else replace(column, min_width=width, max_width=width)


def _ids(names: Iterable[str]) -> dict[str, None]:
    return dict.fromkeys(map(_id, names))


def _id(name: str) -> str:
    return _NAMES.get(name) or METRIC_PREFIX + name.removeprefix(EXPORT_PREFIX)
