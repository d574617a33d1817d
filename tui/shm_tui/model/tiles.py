"""The contents of the tiles: one tile for each metric, whatever its key."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TypeVar

from shm_client import Category, Flag, Kpi, Kpis, MetricKey, Stats
from shm_client.figures import MetricSeries, Number
from shm_tui.model.columns import MetricDescriptions
from shm_tui.model.disk import database_limit, database_size
from shm_tui.model.tile_session import TileData
from shm_tui.model.views.base import change_text, to_float
from shm_tui.text.formatting import UNKNOWN, compact, share, with_unit
from shm_tui.text.glyphs import UNICODE

T = TypeVar("T", Kpi, Flag, Category)

AGGREGATE_PREFIXES = {"sum": "", "avg": "⌀ "}  # before a value; other aggregates are written with their name


@dataclass(frozen=True, slots=True)
class Tile:
    """A label, a value, and a note below the value."""

    label: str
    value: str
    note: str = ""
    bar: float | None = None  # a share from 0 to 1, drawn as a bar before the note
    key: str | None = None  # of the metric, which a click shows as a chart
    change: str = ""  # over the range, with an arrow
    trend: tuple[float | None, ...] = ()  # the values over the range


def number_tile(kpi: Kpi, series: MetricSeries | None = None) -> Tile:
    """A number's aggregate, with p50 and p90 of the instances below it; and its history up to now."""
    prefix = AGGREGATE_PREFIXES.get(kpi.aggregate, f"{kpi.aggregate} ")
    percentiles = f"p50 {compact(kpi.p50)}  p90 {compact(kpi.p90)}"
    note = f"of {kpi.instances:,}" if kpi.p50 is None else percentiles
    value = prefix + with_unit(kpi.value, kpi.unit, kpi.format)
    past = series.metrics.get(kpi.key, []) if series is not None else []
    return Tile(kpi.label or kpi.key, value, note, None, kpi.key, *_history(past, kpi.value))


def flag_tile(flag: Flag, series: MetricSeries | None = None) -> Tile:
    """The share of instances with the value true, among those that have the flag; and its history up to now."""
    true_share = flag.true / flag.instances if flag.instances else 0.0
    past = series.flags.get(flag.key) if series is not None else None
    shares: list[Number | None] = [
        None if true is None or not count else Decimal(true) / count
        for true, count in (zip(past.true, past.instances, strict=True) if past is not None else ())
    ]
    history = _history(shares, Decimal(flag.true) / flag.instances if flag.instances else None)
    value, note = share(flag.true, flag.instances), f"of {flag.instances:,}"
    return Tile(flag.label or flag.key, value, note, true_share, flag.key, *history)


def _history(past: Sequence[Number | None], now: Number | None) -> tuple[str, tuple[float | None, ...]]:
    """The change from the first value to the present one, and all values. The last one of the past was the present."""
    values = [*past[:-1], now]
    if sum(value is not None for value in values) < 2:
        return "", ()
    change = change_text(values, UNICODE)
    return "" if change[1:] == "0.0 %" else change, tuple(map(to_float, values))


def category_tile(category: Category) -> Tile:
    """The most frequent value, with the next two values below it."""
    if not category.values:
        return Tile(category.label or category.key, UNKNOWN, key=category.key)
    first, *others = category.values
    note = "  ".join(f"{other.value} {share(other.instances, category.instances)}" for other in others[:2])
    return Tile(
        category.label or category.key,
        f"{first.value} {share(first.instances, category.instances)}",
        note or f"all of {first.instances:,}",
        key=category.key,
    )


def shown_tiles(data: TileData, live: Kpis | None) -> list[Tile]:
    """The tiles of an application: as of a day, over a filter, or the live ones."""
    if data.request.at is not None:
        return [] if data.past is None else application_tiles(data.past.kpis, data.past.flags, [], data.series)
    kpis = data.filtered if data.request.is_filtered else live
    return [] if kpis is None else application_tiles(kpis.kpis, kpis.flags, kpis.categories, data.series)


def application_tiles(
    numbers: Sequence[Kpi], flags: Sequence[Flag], categories: Sequence[Category], series: MetricSeries | None = None
) -> list[Tile]:
    """Business metrics before system metrics; within each kind, numbers, then flags, then categories."""
    return [
        tile
        for kind in ("business", "system")
        for tile in (
            *(number_tile(kpi, series) for kpi in _sorted_entries(kind, numbers)),
            *(flag_tile(flag, series) for flag in _sorted_entries(kind, flags)),
            *(category_tile(category) for category in _sorted_entries(kind, categories)),
        )
    ]


def _pending_note(stats: Stats) -> str:
    """That new installs wait for approval, which an admin has to know; else the number of revoked ones."""
    if stats.pending_instances:  # also of an hour that is over, or of an application beyond a limit
        return "wait for approval"
    return f"{stats.revoked_instances:,} revoked"


def overview_tiles(stats: Stats, descriptions: MetricDescriptions, now: datetime) -> list[Tile]:
    """Counts and metrics over all applications, and the size of the database."""
    excluded = f"{stats.excluded_instances:,} excluded" if stats.excluded_instances else "all counted"
    metrics = sorted((descriptions[key] for key in stats.global_metrics), key=_sort_key)
    return [
        Tile("active", f"{stats.active_instances:,}", f"of {stats.total_instances:,}"),
        Tile("counted", f"{stats.counted_instances:,}", excluded),
        Tile("today", f"{stats.daily_active:,}", "seen in a day"),
        Tile("this week", f"{stats.weekly_active:,}", "seen in 7 days"),
        Tile("new this week", f"+{stats.new_this_week:,}", "first seen"),
        Tile("pending", f"{stats.pending_instances:,}", _pending_note(stats)),
        Tile("database", database_size(stats.disk), database_limit(stats.disk, now)),
        *(
            Tile(metric.label, with_unit(stats.global_metrics[metric.key], metric.unit, metric.format), _note(metric))
            for metric in metrics
            if not metric.hidden
        ),
    ]


def _sorted_entries(kind: str, entries: Iterable[T]) -> list[T]:
    """The entries of a kind, those with the most instances first.

    Counts are compared by their power of two, so that tiles do not change places whenever an instance reports.
    """
    return sorted(
        (entry for entry in entries if entry.kind == kind),
        key=lambda entry: (-entry.instances.bit_length(), getattr(entry, "aggregate", None) == "avg", entry.key),
    )


def _note(metric: MetricKey) -> str:
    return {"sum": "in total", "avg": "on average"}.get(metric.aggregate or "", "over all")


def _sort_key(metric: MetricKey) -> tuple[bool, bool, str]:
    return metric.kind == "system", metric.aggregate == "avg", metric.key
