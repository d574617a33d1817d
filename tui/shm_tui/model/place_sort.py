"""The sort order of a place: the name of a column or of a metric, with a minus for descending order."""

from collections.abc import Iterable

from shm_tui.model.columns import FIXED_COLUMNS, METRIC_PREFIX, STATE, Column, MetricDescriptions, metric_column

# The API's fields of the columns. Ages sort in the opposite order of times.
_FIELDS = {column.id: column.field for column in FIXED_COLUMNS}


def server_sorting(text: str) -> tuple[str, str]:
    """The field and the direction of an order for the API; without one, those seen last come first."""
    if not text:
        return "last_seen_at", "desc"
    name = text.removeprefix("-")
    is_descending = text.startswith("-") != (name == "seen")
    field = _FIELDS.get(name) or f"metrics.{name.removeprefix(METRIC_PREFIX)}"
    return field, "desc" if is_descending else "asc"


def column_sorting(column: Column, is_descending: bool) -> tuple[str, str] | None:
    """The same for a column of the table; None for its order of the states, which the server does not have."""
    if column.metric is not None:
        return f"metrics.{column.metric}", "desc" if is_descending else "asc"
    return None if column is STATE else server_sorting(sort_text(column, is_descending))


def sort_text(column: Column, is_descending: bool) -> str:
    """The text of an order, such as `-invoices_sent`. A metric with the name of a column keeps its prefix."""
    name = column.id.removeprefix(METRIC_PREFIX)
    return ("-" if is_descending else "") + (column.id if name in _FIELDS else name)


def find_column(text: str, columns: Iterable[Column], descriptions: MetricDescriptions) -> tuple[Column, bool]:
    """The column of an order, and whether the order is descending. Any other name is a metric's key."""
    name = text.removeprefix("-")
    column_id = name if name in _FIELDS or name.startswith(METRIC_PREFIX) else METRIC_PREFIX + name
    key = column_id.removeprefix(METRIC_PREFIX)
    shown = next((column for column in [*columns, *FIXED_COLUMNS] if column.id == column_id), None)
    return shown or metric_column(key, descriptions[key].label, is_numeric=True), text.startswith("-")
