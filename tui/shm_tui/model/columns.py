"""What a column is: its label, its place, how it writes a row and how it sorts one.

Fixed columns come from what every instance has; metric columns from whatever keys arrive, business before system, the
most answered first. Nothing here draws, and nothing here knows how wide the screen is but for the order of the columns.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Protocol

from shm_client.model import Instance, MetricKey, Value, flatten_metrics
from shm_tui.model.state import RANK, state_of
from shm_tui.text.formatting import NOTHING, age, compact

METRIC = "metric:"  # begins the id of a metric's column, so that a metric called `version` is not the version
SHORT_ID = 8  # the characters of an instance's id that tell it from its neighbours
WIDE = 150  # from here on the columns of the machine stand before those of the metrics


@dataclass(frozen=True, slots=True)
class Moment:
    """What a row is looked at with: the server's time, and the length of the active window in seconds."""

    now: datetime
    active_window_s: int


@dataclass(slots=True)
class Row:
    """An instance with its metrics flattened."""

    instance: Instance
    leaves: dict[str, Value] = field(init=False)
    haystack: str | None = None  # every text of the row in lower case, once somebody searches

    def __post_init__(self) -> None:
        self.leaves = dict(flatten_metrics(self.instance.metrics))


class Place(Enum):
    """Where a column stands: left and right stay, the middle scrolls."""

    LEFT = "left"
    MIDDLE = "middle"
    RIGHT = "right"


SortKey = tuple[Any, ...]


class Described(Protocol):
    """Descriptions of metric keys, by key; of any key, also before the server has described it."""

    def __getitem__(self, key: str) -> MetricKey: ...


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `text` writes a row's cell; `key` sorts it, None always going last."""

    id: str
    label: str
    place: Place
    least: int
    most: int
    text: Callable[[Row, Moment], str]
    key: Callable[[Row, Moment], SortKey | None]
    right: bool = False
    metric: str | None = None


def _state_text(row: Row, moment: Moment) -> str:
    return state_of(row.instance, moment.now, moment.active_window_s).glyph


def _state_key(row: Row, moment: Moment) -> SortKey:
    return (RANK[state_of(row.instance, moment.now, moment.active_window_s)],)


def _named(attribute: str) -> dict[str, Any]:
    """Text and key of a plain text attribute of the instance."""

    def text(row: Row, _moment: Moment) -> str:
        return str(getattr(row.instance, attribute))

    def key(row: Row, _moment: Moment) -> SortKey | None:
        value = str(getattr(row.instance, attribute))
        return (value.casefold(), value) if value else None

    return {"text": text, "key": key}


def _seen_key(row: Row, _moment: Moment) -> SortKey | None:
    seen = row.instance.last_seen_at
    return None if seen is None else (-seen.timestamp(),)  # as ages: the shortest first


def _version_key(row: Row, _moment: Moment) -> SortKey | None:
    version = row.instance.app_version
    return (row.instance.version_rank, version) if version else None


STATE = Column("state", "", Place.LEFT, 1, 1, _state_text, _state_key)
INSTANCE = Column(
    "instance",
    "instance",
    Place.LEFT,
    SHORT_ID,
    SHORT_ID,
    lambda row, _: row.instance.instance_id[:SHORT_ID],
    lambda row, _: (row.instance.instance_id,),
)
APPLICATION = Column("application", "application", Place.LEFT, 6, 14, **_named("app_name"))
VERSION = Column(
    "version",
    "version",
    Place.LEFT,
    7,
    12,
    lambda row, _: row.instance.app_version,
    _version_key,
)
OS = Column("os", "os", Place.MIDDLE, 5, 14, **_named("os_arch"))
ENVIRONMENT = Column("environment", "env", Place.MIDDLE, 5, 12, **_named("environment"))
MODE = Column("mode", "mode", Place.MIDDLE, 6, 12, **_named("deployment_mode"))
SEEN = Column("seen", "seen", Place.RIGHT, 6, 6, lambda row, m: age(row.instance.last_seen_at, m.now), _seen_key, True)

MACHINE = (OS, ENVIRONMENT, MODE)
FIXED = (STATE, INSTANCE, APPLICATION, VERSION, *MACHINE, SEEN)


def metric_column(key: str, label: str, numeric: bool) -> Column:
    """The column of one metric key; numbers to the right, texts to the left."""
    return Column(
        METRIC + key,
        label,
        Place.MIDDLE,
        6,
        16,
        lambda row, _: value_text(row.leaves.get(key)),
        lambda row, _: value_key(row.leaves.get(key)),
        numeric,
        key,
    )


def columns_for(
    answered: Mapping[str, int],
    numeric: Iterable[str],
    descriptions: Described,
    *,
    one_application: bool,
    width: int,
) -> list[Column]:
    """Every column, in order. `answered` counts instances per metric key; hidden keys have no column."""
    numbers = frozenset(numeric)
    described = {key: descriptions[key] for key in answered}
    ordered = sorted(
        (key for key in answered if not described[key].hidden),
        # Keys that (nearly) all answer would swap places with every install; a power of two apart they stand still.
        key=lambda key: (
            described[key].kind == "system",
            -answered[key].bit_length(),
            key not in numbers,
            described[key].aggregate == "avg",  # totals first: they are what installs are compared by
            key,
        ),
    )
    metrics = [metric_column(key, described[key].label, key in numbers) for key in ordered]
    left = [STATE, INSTANCE, VERSION] if one_application else [STATE, INSTANCE, APPLICATION, VERSION]
    middle = [*MACHINE, *metrics] if width >= WIDE else [*metrics, *MACHINE]
    return [*left, *middle, SEEN]


def value_text(value: Value) -> str:
    """A metric's value, as short as a cell wants it."""
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | Decimal):
        return compact(value)
    return value if isinstance(value, str) else f"[{len(value)}]"


def value_key(value: Value) -> SortKey | None:
    """Sorts what is alike together: truths, numbers, texts, lists; what is not there goes last."""
    if value is None:
        return None
    if isinstance(value, bool):
        return (0, value)
    if isinstance(value, int | Decimal):
        return (1, value)
    return (2, value.casefold()) if isinstance(value, str) else (3, len(value))
