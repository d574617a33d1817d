"""Charts as text: pure functions from numbers to lines. None is a gap: no value is drawn and no line crosses it."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import floor, log10

from shm_tui.text.glyphs import Glyphs

Values = Sequence[float | None]

BRAILLE = 0x2800
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # bits of a cell, by column and line
DOT_COLUMNS, DOT_LINES = 2, 4
ZERO_SHARE = 0.6  # an axis begins at zero if the smallest value is below this share of the largest


def value_range(values: Values) -> tuple[float, float]:
    """The ends of an axis for these values: round numbers, and zero unless all values are far from it."""
    known = [value for value in values if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    if 0 <= low < ZERO_SHARE * high or low == high:
        low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        return low, low + 1.0
    step = _round_up((high - low) / 4)
    return min(low, floor(low / step) * step), max(high, -floor(-high / step) * step)  # products are rounded


def _round_up(number: float) -> float:
    """The next of 1, 2, 2.5, 5 and 10 times a power of ten."""
    power = 10.0 ** floor(log10(number))
    return next(factor * power for factor in (1.0, 2.0, 2.5, 5.0, 10.0, 20.0) if factor * power >= number)


def column_of(index: int, count: int, width: int) -> int:
    """The cell of value `index` of `count` in a chart of `width` cells."""
    return 0 if count < 2 else _dot_column(index, count, width) // DOT_COLUMNS


def index_at(column: int, count: int, width: int) -> int:
    """The value that is nearest to a cell."""
    return 0 if width < 2 else round(column * (count - 1) / (width - 1))


def line_chart(values: Values, width: int, height: int, low: float, high: float, glyphs: Glyphs) -> list[str]:
    """A line through the values, in `height` lines of `width` cells. Values outside `low` to `high` are at its edge."""
    scale = (DOT_COLUMNS, DOT_LINES) if glyphs.has_braille else (1, 1)
    rows = height * scale[1]
    points = [
        None
        if value is None
        else (
            _dot_column(index, len(values), width) * scale[0] // DOT_COLUMNS,
            rows - 1 - round((min(max(value, low), high) - low) / (high - low) * (rows - 1)),
        )
        for index, value in enumerate(values)
    ]
    dots = {point for point in points if point is not None}
    for start, end in pairwise(points):
        if start is not None and end is not None:
            dots.update(_line(start, end))
    return _braille(dots, width, height) if glyphs.has_braille else _plain(dots, width, height)


def _dot_column(index: int, count: int, width: int) -> int:
    return 0 if count < 2 else round(index * (width * DOT_COLUMNS - 1) / (count - 1))


def _line(start: tuple[int, int], end: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """The dots between two dots."""
    (x, y), (end_x, end_y) = start, end
    steps = max(abs(end_x - x), abs(end_y - y), 1)
    for step in range(steps + 1):
        yield x + round(step * (end_x - x) / steps), y + round(step * (end_y - y) / steps)


def _braille(dots: set[tuple[int, int]], width: int, height: int) -> list[str]:
    cells = [[0] * width for _ in range(height)]
    for x, y in dots:
        cells[y // DOT_LINES][x // DOT_COLUMNS] |= DOTS[x % DOT_COLUMNS][y % DOT_LINES]
    return ["".join(chr(BRAILLE + bits) if bits else " " for bits in row) for row in cells]


def _plain(dots: set[tuple[int, int]], width: int, height: int) -> list[str]:
    return ["".join("*" if (x, y) in dots else " " for x in range(width)) for y in range(height)]


def sparkline(values: Values, width: int, glyphs: Glyphs) -> str:
    """The values as bars, one in a cell, from zero unless all values are far from it. A gap is blank."""
    if not values:
        return " " * width
    sampled = [values[index_at(column, len(values), width)] for column in range(width)]
    known = [value for value in sampled if value is not None]
    low, high = min(known, default=0.0), max(known, default=0.0)
    if 0 <= low < ZERO_SHARE * high:
        low = 0.0
    return "".join(" " if value is None else _level(value, low, high, glyphs.levels) for value in sampled)


def _level(value: float, low: float, high: float, levels: str) -> str:
    if high == low:
        return levels[0] if not value else levels[len(levels) // 2]
    return levels[round((value - low) / (high - low) * (len(levels) - 1))]


def stacked_columns(counts: Sequence[Values], width: int, height: int) -> list[list[int | None]]:
    """Shares of 100 %: for each line and cell the index of its band, the first band on top; None where no value is.

    `counts` has a list for each band. A cell shows the values at the nearest time.
    """
    times = len(counts[0]) if counts else 0
    grid: list[list[int | None]] = [[None] * width for _ in range(height)]
    for column in range(width if times else 0):
        at = [band[index_at(column, times, width)] or 0.0 for band in counts]
        for line, band in enumerate(_bands(at, height)):
            grid[line][column] = band
    return grid


def _bands(counts: list[float], height: int) -> list[int]:
    """The band of each line, from the top: each line belongs to the band at its middle."""
    total = sum(counts)
    bands: list[int] = []
    end = 0.0
    for band, count in enumerate(counts):
        end += count
        while total and len(bands) < height and (len(bands) + 0.5) / height * total < end:
            bands.append(band)
    return bands


def share_bar(part: float, width: int, glyphs: Glyphs) -> tuple[str, str]:
    """The filled and the empty part of a bar, to half a cell. `part` is clamped to 0..1."""
    full, half = divmod(round(max(0.0, min(1.0, part)) * width * 2), 2)
    filled = glyphs.full * full + glyphs.half * half
    return filled, glyphs.rest * (width - len(filled))
