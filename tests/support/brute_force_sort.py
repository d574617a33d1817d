"""Sorts instances as `GET instances` does, in plain Python, from what the API says of them."""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from shm.analytics.instance_fields import TIME_COLUMNS


def brute_force_sort(
    items: Iterable[dict[str, Any]], by: str, versions: Sequence[str] = (), *, descending: bool
) -> list[dict[str, Any]]:
    """Sorts numbers before booleans, texts and missing values; equal values by ID. `versions`: in their order."""
    groups: list[list[tuple[Any, str, dict[str, Any]]]] = [[], [], [], []]
    for item in items:
        value = leaf(item["metrics"], by) if by.startswith("metrics.") else item[by]
        if by == "app_version" and value:
            value = f"{versions.index(value):02}"
        rank = 3
        if isinstance(value, bool):
            rank = 1
        elif isinstance(value, int | Decimal) or (by in TIME_COLUMNS and value is not None):
            rank = 0
        elif isinstance(value, str) and (len(value) <= 64 if by.startswith("metrics.") else value):
            rank = 2
        groups[rank].append((value if rank < 3 else 0, item["instance_id"], item))
    return [row[2] for group in groups for row in sorted(group, key=lambda row: row[:2], reverse=descending)]


def leaf(metrics: Any, by: str) -> Any:
    """The value of the metric that `by` names."""
    for name in by.split(".")[1:]:
        metrics = metrics.get(name) if isinstance(metrics, dict) else None
    return metrics
