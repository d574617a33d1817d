"""A chart with its axes, the time under the cursor and the running bucket, as lines of a page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby

from shm_tui.model.views.base import Frame
from shm_tui.text.charts import Values, column_of, line_chart, stacked_columns, value_range
from shm_tui.text.lines import Line, Span

PADDING = 1  # cells at either end of a line
SECOND = "band1"  # the style of a second line
MAX_BAND_COLOURS = 6  # bands with a colour of their own; further ones are drawn as the rest
BAND_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class TimeAxis:
    """The times of a chart's values; the bucket from `running_since` to the last time is not complete."""

    times: Sequence[datetime]
    running_since: datetime | None

    def index(self, time: datetime | None) -> int:
        """The value nearest to a time; the last one for None."""
        if time is None or not self.times:
            return len(self.times) - 1
        return min(range(len(self.times)), key=lambda index: abs(self.times[index] - time))

    def is_running(self, index: int) -> bool:
        """Whether a value is of the bucket that is not complete."""
        return self.running_since is not None and self.times[index] > self.running_since


def time_label(time: datetime, period: str) -> str:
    """A time below a chart: 14:00, Nov 28 or 2026-11-28."""
    utc = time.astimezone(UTC)
    return utc.strftime({"24h": "%H:%M", "1y": "%Y-%m-%d", "all": "%Y-%m-%d"}.get(period, "%b %d"))


def reading_label(time: datetime, axis: TimeAxis, frame: Frame) -> str:
    """The time of the value that is read, and whether it is the current or an incomplete one."""
    text = time.astimezone(UTC).strftime("%Y-%m-%d %H:%MZ")
    index = axis.index(frame.selected_time)
    if index == len(axis.times) - 1 and frame.place.past is None:
        return f"{text}, now"
    return f"{text}, running" if axis.is_running(index) else text


def line_block(
    values: Values,
    axis: TimeAxis,
    frame: Frame,
    height: int,
    label: Callable[[float], str],
    label_width: int = 0,
    second: Values = (),
) -> list[Line]:
    """A line chart in `height` lines, the last one with times. `label_width`: the least cells of the labels.

    `second`: the values of another line, with an axis of its own on the right.
    """
    plot_height = max(2, height - 1)
    labels = _axis_labels(values, plot_height, label)
    second_labels = _axis_labels(second, plot_height, label) if second else {}
    label_width = PADDING + max(label_width, *map(len, labels.values()))
    second_width = max(map(len, second_labels.values()), default=-PADDING) + PADDING
    width = max(2, frame.chart_width - label_width - 2 - PADDING - second_width)
    plot = line_chart(values, width, plot_height, *value_range(values), frame.glyphs)
    second_plot = line_chart(second, width, plot_height, *value_range(second), frame.glyphs)
    styles = _column_styles(axis, frame, width, "chart")
    lines: list[Line] = [
        (
            *((f"{labels.get(row, ''):>{label_width}} ", "name"), (frame.glyphs.axis, "name")),
            *_styled(text, second_plot[row], styles, frame),
            (f" {second_labels[row]}" if row in second_labels else "", SECOND),
        )
        for row, text in enumerate(plot)
    ]
    return [*lines, _time_line(axis, frame, label_width + 1, width)]


def _axis_labels(values: Values, height: int, label: Callable[[float], str]) -> dict[int, str]:
    """The labels of an axis by line: the ends, and the middle unless it would be labelled as one of them."""
    low, high = value_range(values)
    middle = height // 2
    ends = {0: label(high), height - 1: label(low)}
    middle_label = label(high - (high - low) * middle / (height - 1))
    return ends if middle_label in ends.values() else ends | {middle: middle_label}


def stacked_block(counts: Sequence[Values], axis: TimeAxis, frame: Frame, height: int) -> list[Line]:
    """Shares over time, the first band on top. Bands after the first `MAX_BAND_COLOURS` have the style `rest`."""
    plot_height = max(2, height - 1)
    labels = {0: "100 %", plot_height // 2: " 50 %", plot_height - 1: "  0 %"}
    width = max(2, frame.chart_width - 8 - PADDING)
    cursor = (
        column_of(axis.index(frame.selected_time), len(axis.times), width) if frame.selected_time is not None else None
    )
    lines: list[Line] = []
    for row, bands in enumerate(stacked_columns(counts, width, plot_height)):
        spans: list[Span] = [(f"{labels.get(row, ''):>6} ", "name"), (frame.glyphs.axis, "name")]
        cells = [
            (frame.glyphs.cursor, "cursor") if column == cursor else band_mark(band, frame)
            for column, band in enumerate(bands)
        ]
        spans += [("".join(text for text, _ in run), style) for style, run in groupby(cells, lambda cell: cell[1])]
        lines.append(tuple(spans))
    return [*lines, _time_line(axis, frame, 7, width)]


def band_mark(band: int | None, frame: Frame) -> Span:
    """A cell of a band: coloured, or a letter where there are no colours."""
    if band is None:
        return " ", ""
    style = f"band{band}" if band < MAX_BAND_COLOURS else "rest"
    if not frame.has_colours:
        return BAND_LETTERS[min(band, len(BAND_LETTERS) - 1)], style
    return ("█" if frame.glyphs.has_braille else "#"), style


def _column_styles(axis: TimeAxis, frame: Frame, width: int, style: str) -> list[str]:
    count = len(axis.times)
    complete = [index for index in range(count) if not axis.is_running(index)]
    running_from = column_of(complete[-1], count, width) if complete else -1
    styles = [style if column <= running_from or len(complete) == count else "running" for column in range(width)]
    if frame.selected_time is not None and count:
        styles[column_of(axis.index(frame.selected_time), count, width)] = "cursor"
    return styles


def _styled(text: str, second: str, styles: list[str], frame: Frame) -> list[Span]:
    """The text in runs of one style, with the second line where the first is blank. The cursor is where both are."""
    cells = [
        (first, style)
        if first != " "
        else (other, SECOND)
        if other != " "
        else (frame.glyphs.cursor if style == "cursor" else " ", style)
        for first, other, style in zip(text, second, styles, strict=True)
    ]
    return [("".join(character for character, _ in run), style) for style, run in groupby(cells, lambda cell: cell[1])]


def _time_line(axis: TimeAxis, frame: Frame, indent: int, width: int) -> Line:
    """The first, the middle and the last time."""
    if not axis.times:
        return ()
    period = frame.place.range
    first, last = time_label(axis.times[0], period), time_label(axis.times[-1], period)
    middle = time_label(axis.times[len(axis.times) // 2], period)
    space = width - len(first) - len(last) - len(middle)
    if space < 4 or len(axis.times) < 3:
        gap = max(1, width - len(first) - len(last))
        return ((" " * (indent + 1), ""), (first + " " * gap + last, "name"))
    left = max(1, width // 2 - len(first) - len(middle) // 2)
    return (
        (" " * (indent + 1), ""),
        (first + " " * left + middle + " " * max(1, space - left) + last, "name"),
    )
