"""Parameters of which the short suite runs only the first ones."""

from collections.abc import Iterable, Sequence

import pytest


def long_after(count: int, values: Iterable[object]) -> list[object]:
    """Parameters of one argument; those after the first `count` run in the long suite only."""
    return long_rows_after(count, ((value,) for value in values))


def long_rows_after(count: int, rows: Iterable[Sequence[object]]) -> list[object]:
    """Parameters of several arguments; those after the first `count` run in the long suite only."""
    return [pytest.param(*row, marks=[pytest.mark.long] if number >= count else []) for number, row in enumerate(rows)]
