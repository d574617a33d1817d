"""The columns of the table and their default order: label, pinning, the text of a cell, and the sort key.

Fixed columns show what every instance has. Metric columns are built from the reported keys: business metrics first,
and those of the most instances first. `column_choice` then hides, pins and moves them as the user wants, and
`column_layout` computes widths and which of them fit into a line.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import Enum
from typing import Any, Protocol

from shm_client.model import MetricKey, Value
from shm_tui.model.row import Row, format_value
from shm_tui.model.state import SORT_RANK, Clock, state_of
from shm_tui.text.formatting import age

METRIC_PREFIX = "metric:"  # of a metric column's ID, so that a metric named `version` is not the column of versions
SHORT_ID_CHARS = 8  # characters of an instance ID that distinguish it from its neighbours
HOST_FIRST_WIDTH = 150  # cells: screens at least this wide show the host's columns before the metrics
MAX_SORTED_CHARS = 64  # of a metric's string; longer ones have no place in an order, as on the server


class Pinning(Enum):
    """The side at which a column remains visible; columns without a side scroll."""

    LEFT = "left"
    NONE = "none"
    RIGHT = "right"


SortKey = tuple[Any, ...]
MISSING: SortKey = (4,)


class MetricDescriptions(Protocol):
    """Descriptions by metric key. Every key has one, also before the server's answer."""

    def __getitem__(self, key: str) -> MetricKey: ...


@dataclass(frozen=True, slots=True)
class Column:
    """A column. `text` formats the cell of a row.

    `sort_key` starts with the rank of the value's type: 1 for numbers and times, 2 for booleans, 3 for texts, 4 without
    a value. `sorts_ages`: its keys are times, and the rows are sorted by the ages of these, the shortest first.
    `field` is the name in the API of what a fixed column shows.
    """

    id: str
    label: str
    pinning: Pinning
    min_width: int
    max_width: int
    text: Callable[[Row, Clock], str]
    sort_key: Callable[[Row, Clock], SortKey]
    align_right: bool = False
    metric: str | None = None
    field: str = ""
    sorts_ages: bool = False


def _state_text(row: Row, clock: Clock) -> str:
    return state_of(row.instance, clock).glyph


def _state_sort_key(row: Row, clock: Clock) -> SortKey:
    return (1, SORT_RANK[state_of(row.instance, clock)])


def _text_column(id: str, label: str, pinning: Pinning, widths: tuple[int, int], field: str) -> Column:
    """The column of a text field of the instance. `widths`: the smallest and the largest one."""

    def text(row: Row, _clock: Clock) -> str:
        return str(getattr(row.instance, field))

    def sort_key(row: Row, _clock: Clock) -> SortKey:
        value = str(getattr(row.instance, field))
        return (3, value) if value else MISSING

    return Column(id, label, pinning, *widths, text, sort_key, field=field)


def _last_seen_text(row: Row, clock: Clock) -> str:
    return age(row.instance.last_seen_at, clock.now)


def _last_seen_sort_key(row: Row, _clock: Clock) -> SortKey:
    last_seen = row.instance.last_seen_at
    return MISSING if last_seen is None else (1, last_seen)


def _version_sort_key(row: Row, _clock: Clock) -> SortKey:
    version = row.instance.app_version
    return (3, row.instance.version_rank, version) if version else MISSING


STATE = Column("state", "", Pinning.LEFT, 1, 1, _state_text, _state_sort_key, field="status")
INSTANCE = Column(
    "instance",
    "instance",
    Pinning.LEFT,
    SHORT_ID_CHARS,
    SHORT_ID_CHARS,
    lambda row, _: row.instance.instance_id[:SHORT_ID_CHARS],
    lambda row, _: (3, row.instance.instance_id),
    field="instance_id",
)
APPLICATION = _text_column("application", "application", Pinning.LEFT, (6, 14), "app_name")
VERSION = replace(_text_column("version", "version", Pinning.LEFT, (7, 12), "app_version"), sort_key=_version_sort_key)
OS = _text_column("os", "os", Pinning.NONE, (5, 14), "os_arch")
ENVIRONMENT = _text_column("environment", "env", Pinning.NONE, (5, 12), "environment")
MODE = _text_column("mode", "mode", Pinning.NONE, (6, 12), "deployment_mode")
SEEN = Column(
    "seen",
    "seen",
    Pinning.RIGHT,
    6,
    6,
    _last_seen_text,
    _last_seen_sort_key,
    align_right=True,
    field="last_seen_at",
    sorts_ages=True,
)

# Filters, sort orders, exports, searches and the highlighting of changes follow from these.
HOST_COLUMNS = (OS, ENVIRONMENT, MODE)
TEXT_COLUMNS = (APPLICATION, VERSION, *HOST_COLUMNS)
FIXED_COLUMNS = (STATE, INSTANCE, *TEXT_COLUMNS, SEEN)


def metric_column(key: str, label: str, is_numeric: bool) -> Column:
    """The column of a metric key. Numbers are aligned on the right, texts on the left."""
    return Column(
        METRIC_PREFIX + key,
        label,
        Pinning.NONE,
        6,
        16,
        lambda row, _: format_value(row.metrics.get(key)),
        lambda row, _: value_sort_key(row.metrics.get(key)),
        is_numeric,
        key,
    )


def build_columns(
    key_counts: Mapping[str, int],
    numeric: Iterable[str],
    descriptions: MetricDescriptions,
    *,
    one_application: bool,
    width: int,
    shown_before: Iterable[str] = (),
) -> list[Column]:
    """Every column, in order. Hidden keys have none.

    `key_counts` is the number of instances by metric key; `numeric` are the keys whose values are mostly numbers.
    `shown_before` are the keys of the columns on the screen: they keep their order, and new keys follow them.
    """
    positions = {key: position for position, key in enumerate(shown_before)}
    numeric_keys = frozenset(numeric)
    described = {key: descriptions[key] for key in key_counts}
    ordered = sorted(
        (key for key in key_counts if not described[key].hidden),
        # Counts are compared by their power of two, so that columns do not change places with every new instance.
        key=lambda key: (
            positions.get(key, len(positions)),
            described[key].kind == "system",
            -key_counts[key].bit_length(),
            key not in numeric_keys,
            described[key].aggregate == "avg",  # sums before averages: instances are compared by sums
            key,
        ),
    )
    metrics = [metric_column(key, described[key].label, key in numeric_keys) for key in ordered]
    left = [STATE, INSTANCE, VERSION] if one_application else [STATE, INSTANCE, APPLICATION, VERSION]
    middle = [*HOST_COLUMNS, *metrics] if width >= HOST_FIRST_WIDTH else [*metrics, *HOST_COLUMNS]
    return [*left, *middle, SEEN]


def value_sort_key(value: Value) -> SortKey:
    """Numbers come before booleans, and booleans before texts, compared by code point. Lists have no place."""
    if isinstance(value, bool):
        return (2, value)
    if isinstance(value, int | Decimal):
        return (1, value)
    return (3, value) if isinstance(value, str) and len(value) <= MAX_SORTED_CHARS else MISSING
