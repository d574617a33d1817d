"""The lifecycle: active instances by day, new, lost and returned ones, and the survival of weekly cohorts."""

from collections.abc import Sequence
from datetime import UTC, datetime

from shm_client import Client
from shm_client.figures import Cohort, Day, Lifecycle
from shm_tui.model.place import Place
from shm_tui.model.views.base import DataView, Frame, Page, PageRow, required_app, to_float
from shm_tui.model.views.chart_block import TimeAxis, line_block
from shm_tui.text.charts import column_of
from shm_tui.text.formatting import clock_time, compact
from shm_tui.text.glyphs import Glyphs
from shm_tui.text.lines import Line, facts

WEEK_WIDTH, SIZE_WIDTH, CELL_WIDTH = 10, 6, 5  # cells of a cohort's week, size, and of each later week


class LifecycleView(DataView[Lifecycle]):
    """The lifecycle of one application."""

    refresh_s = 60.0  # the server computes it at most once a minute

    async def fetch(self, client: Client, place: Place) -> Lifecycle:
        """Requests the days and the cohorts."""
        return await client.lifecycle(required_app(place), place.range)

    def data_page(self, data: Lifecycle, frame: Frame) -> Page:
        """A line of the active instances, bars of the others, and a row for each cohort, the newest first."""
        sums = {name: sum(getattr(day, name) for day in data.days) for name in ("new", "lost", "returned", "revoked")}
        changes = [f"{sums[name]:,} {name}" for name in ("new", "lost", "returned")]
        title = facts("Lifecycle", [frame.place.range, *changes, f"as of {clock_time(data.as_of)}"], frame.width)
        if not any(map(_has_any, data.days)):
            return Page([title], [], empty="No instance was active in this range.")
        times = [datetime(day.day.year, day.day.month, day.day.day, tzinfo=UTC) for day in data.days]
        axis = TimeAxis(times, times[-2] if len(times) > 1 else None)
        chart = line_block(
            [to_float(day.active) for day in data.days],
            axis,
            frame,
            max(4, min(12, frame.height - 14)),
            lambda value: compact(round(value)),
            len("returned"),
        )
        bars = _bar_lines(data.days, frame, chart[0])
        day = data.days[axis.index(frame.selected_time)]
        reading: Line = (
            (f" {day.day.isoformat()}{', running' if day is data.days[-1] else ''}", "value"),
            (f"   {day.active:,} active  {day.new:,} new  {day.lost:,} lost  {day.returned:,} returned", "name"),
            (f"  {day.revoked:,} revoked" if day.revoked else "", "name"),
        )
        weeks = max((len(cohort.active) for cohort in data.cohorts), default=0)
        room = max(1, (frame.width - 1 - WEEK_WIDTH - SIZE_WIDTH - 2) // CELL_WIDTH)
        hidden = f"  +{weeks - room} weeks" if weeks > room else ""
        head: Line = (
            (f" {'FIRST SEEN':<{WEEK_WIDTH}}{'SIZE':>{SIZE_WIDTH}}  ", "head"),
            (f"active after 1, 2, … weeks, in %{hidden}", "head"),
        )
        rows = [PageRow(cohort.week.isoformat(), _cohort_line(cohort, room)) for cohort in reversed(data.cohorts)]
        return Page([title, *chart[:-1], *bars, chart[-1], reading, (), head], rows, times)


def _has_any(day: Day) -> bool:
    return bool(day.active or day.new or day.lost or day.returned or day.revoked)


def _bar_lines(days: Sequence[Day], frame: Frame, chart_line: Line) -> list[Line]:
    """A line of bars for each kind of change, below the days of the chart."""
    indent = len(chart_line[0][0]) + 1
    width = max(2, frame.chart_width - indent - 1)
    lines: list[Line] = []
    for name, style in (("new", "good"), ("lost", "bad"), ("returned", "chart")):
        counts = [int(getattr(day, name)) for day in days]
        lines.append(
            (
                (f"{name:>{indent - 2}} ", "name"),
                (frame.glyphs.axis, "name"),
                (_bars(counts, width, frame.glyphs), style),
            )
        )
    return lines


def _bars(counts: Sequence[int], width: int, glyphs: Glyphs) -> str:
    """A bar at the cell of each day; days that share a cell are added up. A day without any is blank."""
    cells = [0] * width
    for index, count in enumerate(counts):
        cells[column_of(index, len(counts), width)] += count
    high = max(cells)
    return "".join(glyphs.levels[round(count / high * (len(glyphs.levels) - 1))] if count else " " for count in cells)


def _cohort_line(cohort: Cohort, room: int) -> Line:
    spans = [
        (f" {cohort.week.isoformat():<{WEEK_WIDTH}}", "value"),
        (f"{cohort.size:>{SIZE_WIDTH},}  ", "value"),
    ]
    for active in cohort.active[:room]:
        percent = round(100 * active / cohort.size) if cohort.size else 0
        spans.append(
            (f"{percent:>{CELL_WIDTH - 1}} ", "good" if percent >= 80 else "value" if percent >= 50 else "warn")
        )
    return tuple(spans)
