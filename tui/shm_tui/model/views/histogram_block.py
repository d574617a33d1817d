"""A histogram as lines of a page: a bar for each bucket, and the bounds below."""

from collections.abc import Callable
from math import ceil

from shm_client.figures import Histogram, Number
from shm_tui.model.views.base import Frame
from shm_tui.text.cells import cell_width
from shm_tui.text.lines import Line

MAX_BAR_WIDTH = 8  # cells of a bucket
INDENT = 2
LABEL_GAP = 2  # cells between two bounds


def histogram_block(histogram: Histogram, frame: Frame, height: int, label: Callable[[Number], str]) -> list[Line]:
    """The buckets in `height` lines, the last one with the bounds. Buckets without room are left out, which it says."""
    room = frame.chart_width - INDENT - 1
    buckets = histogram.buckets[: max(1, room)]
    width = max(1, min(MAX_BAR_WIDTH, room // max(1, len(buckets))))
    gap = 1 if width > 2 else 0
    most = max((bucket.instances for bucket in buckets), default=0)
    bars = [_bar(bucket.instances / most if most else 0.0, height - 1, frame.glyphs.levels) for bucket in buckets]
    lines: list[Line] = []
    for row in range(height - 1):
        text = "".join(bar[row] * (width - gap) + " " * gap for bar in bars)
        lines.append(((" " * INDENT, ""), (text, "chart")))
    left_out = len(histogram.buckets) - len(buckets)
    bounds = _bounds([label(bucket.lower) for bucket in buckets], width)
    return [*lines, ((" " * INDENT, ""), (bounds, "name"), (f" +{left_out} buckets" if left_out else "", "name"))]


def largest_bucket(histogram: Histogram, label: Callable[[Number], str]) -> str:
    """The bucket with the most instances, in words."""
    most = max(histogram.buckets, key=lambda bucket: bucket.instances)
    return f"most: {most.instances:,} from {label(most.lower)} to {label(most.upper)}"


def _bar(share: float, height: int, levels: str) -> list[str]:
    """The cells of a bar, from the top. The smallest bar of an instance is visible."""
    eighths = ceil(share * height * len(levels))
    cells = []
    for row in reversed(range(height)):
        filled = max(0, min(len(levels), eighths - row * len(levels)))
        cells.append(levels[filled - 1] if filled else " ")
    return cells


def _bounds(labels: list[str], width: int) -> str:
    """The lower bounds below their buckets, as many as have room."""
    text = ""
    for index, each in enumerate(labels):
        start = index * width
        if not text or start >= cell_width(text) + LABEL_GAP:
            text = text.ljust(start) + each
    return text
