"""The format of a report: lines, tables, and targets with what was measured."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Samples:
    """One figure, measured several times because the machine is never idle."""

    values: Sequence[float]

    @property
    def median(self) -> float:
        """The value to quote."""
        return statistics.median(self.values)

    def format(self, digits: int = 0) -> str:
        """Median and range, `2,710 (2,655-2,740)`; the value alone where there is one."""
        if len(self.values) == 1:
            return f"{self.median:,.{digits}f}"
        return f"{self.median:,.{digits}f} ({min(self.values):,.{digits}f}-{max(self.values):,.{digits}f})"


def print_line(text: str = "") -> None:
    """Flushed at once, because a bench takes minutes."""
    print(text, flush=True)


def print_target(target: str, figure: str, *, met: bool) -> None:
    """A target and what was measured."""
    print_line(f"{'met    ' if met else 'not met'}  {target}: {figure}")


class Table:
    """Rows below a header; each is printed as soon as it is known."""

    def __init__(self, *columns: tuple[str, int]) -> None:
        self._widths = [width for _, width in columns]
        self.print_row(*(name for name, _ in columns))

    def print_row(self, *cells: str) -> None:
        """Right-aligned cells."""
        print_line("  ".join(cell.rjust(width) for cell, width in zip(cells, self._widths, strict=True)).rstrip())
