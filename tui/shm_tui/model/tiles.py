"""The contents of the tiles: one tile for each metric, whatever its key."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from shm_client import Category, Flag, Kpi, Kpis, MetricKey, Stats
from shm_tui.model.columns import MetricDescriptions
from shm_tui.model.disk import database_limit, database_size
from shm_tui.text.formatting import UNKNOWN, compact, share, with_unit

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


def number_tile(kpi: Kpi) -> Tile:
    """A number's aggregate, with p50 and p90 of the instances below it."""
    prefix = AGGREGATE_PREFIXES.get(kpi.aggregate, f"{kpi.aggregate} ")
    percentiles = f"p50 {compact(kpi.p50)}  p90 {compact(kpi.p90)}"
    value = prefix + with_unit(kpi.value, kpi.unit, kpi.format)
    return Tile(kpi.label or kpi.key, value, percentiles, key=kpi.key)


def flag_tile(flag: Flag) -> Tile:
    """The share of instances with the value true, among those that have the flag."""
    true_share = flag.true / flag.instances if flag.instances else 0.0
    return Tile(
        flag.label or flag.key, share(flag.true, flag.instances), f"of {flag.instances:,}", true_share, flag.key
    )


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


def application_tiles(kpis: Kpis) -> list[Tile]:
    """Business metrics before system metrics; within each kind, numbers, then flags, then categories."""
    return [
        tile
        for kind in ("business", "system")
        for tile in (
            *(number_tile(kpi) for kpi in _sorted_entries(kind, kpis.kpis)),
            *(flag_tile(flag) for flag in _sorted_entries(kind, kpis.flags)),
            *(category_tile(category) for category in _sorted_entries(kind, kpis.categories)),
        )
    ]


def _pending_note(stats: Stats) -> str:
    """That new installs wait for approval, which an admin has to know; else the number of revoked ones."""
    if stats.activation == "manual" and stats.pending_instances:
        return "wait for approval"
    return f"{stats.revoked_instances:,} revoked"


def overview_tiles(stats: Stats, descriptions: MetricDescriptions, now: datetime) -> list[Tile]:
    """Counts and metrics over all applications, and the size of the database."""
    excluded = f"{stats.excluded_instances:,} dev and ci excluded" if stats.excluded_instances else "all counted"
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
