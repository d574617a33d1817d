"""A row of the table: an instance with its metrics, and the short form of a metric's value."""

from decimal import Decimal

import msgspec

from shm_client.model import Instance, Value, flatten_metrics
from shm_tui.text.formatting import UNKNOWN, compact


class Row(msgspec.Struct, gc=False):  # a table holds thousands, which are in no cycle
    """An instance with its metrics flattened to one level: `mail.sent` is a key."""

    instance: Instance
    metrics: dict[str, Value] = {}
    search_text: str | None = None  # all texts of the row, case-folded; computed by the first search

    def __post_init__(self) -> None:
        self.metrics = dict(flatten_metrics(self.instance.metrics))


def format_value(value: Value) -> str:
    """A metric's value as short as a cell needs it; a list is its length."""
    if value is None:
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | Decimal):
        return compact(value)
    return value if isinstance(value, str) else f"[{len(value)}]"
