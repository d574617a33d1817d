"""The dimensions that instances are divided by: columns, flags and categories."""

from shm_client import Kpis
from shm_tui.model.views.filter_terms import COLUMN_FIELDS
from shm_tui.text.cells import cell_width
from shm_tui.text.lines import Line, Span

DEFAULT_DIMENSION = "version"
METRIC_PREFIX = "metrics."  # distinguishes a key from a column of the same name


def dimensions_of(kpis: Kpis) -> list[str]:
    """The dimensions of an application, by the names that the API has for them."""
    keys = [flag.key for flag in kpis.flags] + [category.key for category in kpis.categories]
    return [*COLUMN_FIELDS, *(f"{METRIC_PREFIX}{key}" if key in COLUMN_FIELDS else key for key in keys)]


def dimension_tabs(dimensions: list[str], current: str, width: int) -> Line:
    """The dimensions around the current one that fit."""
    first = 0
    while first < len(dimensions) and current in dimensions[first:]:
        spans: list[Span] = [("‹ " if first else "  ", "name")]
        used = 2
        for name in dimensions[first:]:
            used += cell_width(name) + 2
            if used > width - 2:
                spans.append(("›", "name"))
                break
            spans.append((f"{name}  ", "accent" if name == current else "name"))
        if any(style == "accent" for _, style in spans):
            return tuple(spans)
        first += 1
    return ((f"  {current}", "accent"),)
