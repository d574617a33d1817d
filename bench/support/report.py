"""How a bench says what it found: a plain table, and each aim with its figure."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure that was measured more than once, on a machine that is never quiet: the median, and how far it went."""

    values: Sequence[float]

    @property
    def median(self) -> float:
        """The one to quote."""
        return statistics.median(self.values)

    def shown(self, digits: int = 0) -> str:
        """`2,710 (2,655-2,740)`, the median alone where there is one value."""
        if len(self.values) == 1:
            return f"{self.median:,.{digits}f}"
        return f"{self.median:,.{digits}f} ({min(self.values):,.{digits}f}-{max(self.values):,.{digits}f})"


def say(sentence: str = "") -> None:
    """A line of the report, at once: a bench takes minutes."""
    print(sentence, flush=True)


def say_aim(aim: str, figure: str, *, met: bool) -> None:
    """A promise and what was measured of it."""
    say(f"{'met    ' if met else 'not met'}  {aim}: {figure}")


class Table:
    """Rows under a head, each said as soon as it is known."""

    def __init__(self, *columns: tuple[str, int]) -> None:
        self._widths = [width for _, width in columns]
        self.row(*(name for name, _ in columns))

    def row(self, *cells: str) -> None:
        """A row, its cells to the right of their columns."""
        say("  ".join(cell.rjust(width) for cell, width in zip(cells, self._widths, strict=True)).rstrip())
