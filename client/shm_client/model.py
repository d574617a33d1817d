"""What the admin API says, as values: decoded once, trusted from then on.

`decode` is the only door. It keeps every digit of a number and gives one of the types below. Members that a newer
server adds are let be.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, TypeVar

import msgspec

from .errors import AnswerError

MAX_EXPONENT = 1000  # the server takes what a double holds, 324; sums of it are hardly longer
MAX_INT_DIGITS = 80  # beyond it a Decimal holds the digits as well, and converts without Python's quadratic cost

# A leaf of the metrics object. A list is kept and shown, never calculated with.
Value = int | Decimal | bool | str | list[Any] | None

Time = Annotated[datetime, msgspec.Meta(tz=True)]  # one without a zone could not be compared with now

T = TypeVar("T")

# What is done to a JSON value before it is trusted; a program that draws texts on a terminal cleans them here.
Border = Callable[[object], object]


class Counts(msgspec.Struct, frozen=True):
    total: int = 0
    active: int = 0
    pending: int = 0
    revoked: int = 0
    counted: int = 0
    excluded: int = 0


class Stats(msgspec.Struct, frozen=True):
    total_instances: int = 0
    active_instances: int = 0
    daily_active: int = 0
    weekly_active: int = 0
    monthly_active: int = 0
    counted_instances: int = 0
    excluded_instances: int = 0
    pending_instances: int = 0
    revoked_instances: int = 0
    new_this_week: int = 0
    per_app_counts: dict[str, int] = {}
    global_metrics: dict[str, int | Decimal | None] = {}
    active_window_s: int = 30 * 86400


class Application(msgspec.Struct, frozen=True):
    slug: str
    name: str
    instances: Counts = Counts()


class Instance(msgspec.Struct, frozen=True):
    instance_id: str
    status: str
    app_name: str = ""
    app_slug: str = ""
    app_version: str = ""
    version_rank: str = ""  # what versions are ordered by, as texts; spellings of one release have the same
    environment: str = ""
    deployment_mode: str = ""
    os_arch: str = ""
    counted: bool = False
    first_seen_at: Time | None = None
    last_seen_at: Time | None = None
    snapshot_at: Time | None = None
    metrics: dict[str, Any] = {}


class RankedVersion(msgspec.Struct, frozen=True):
    version: str
    version_rank: str


@dataclass(frozen=True, slots=True)
class Page:
    """Some instances, newest seen first; the feed cursor they are true at; the query of the next page, if any."""

    instances: list[Instance]
    cursor: int
    next: str | None


class Kpi(msgspec.Struct, frozen=True):
    key: str
    label: str = ""
    kind: str = "business"
    aggregate: str = "sum"
    unit: str | None = None
    value: int | Decimal | None = None
    instances: int = 0
    min: int | Decimal | None = None
    p50: int | Decimal | None = None
    p90: int | Decimal | None = None
    max: int | Decimal | None = None


class Flag(msgspec.Struct, frozen=True):
    key: str
    label: str = ""
    kind: str = "business"
    true: int = 0
    instances: int = 0


class CategoryValue(msgspec.Struct, frozen=True):
    value: str
    instances: int


class Category(msgspec.Struct, frozen=True):
    key: str
    label: str = ""
    kind: str = "business"
    values: list[CategoryValue] = []
    other: int = 0
    instances: int = 0


class Kpis(msgspec.Struct, frozen=True):
    app: str
    name: str = ""
    active_window_s: int = 30 * 86400
    instances: Counts = Counts()
    kpis: list[Kpi] = []
    flags: list[Flag] = []
    categories: list[Category] = []


def as_it_is(value: object) -> object:
    """The border of a program that takes texts as they were sent."""
    return value


def decode(body: bytes | str, shape: type[T] | Any, border: Border = as_it_is) -> T:
    """The JSON `body` as `shape`, every digit kept; AnswerError when it is something else."""
    try:
        value = border(json.loads(body, parse_int=_integer, parse_float=_decimal, parse_constant=_constant))
        converted: T = msgspec.convert(value, shape)
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise AnswerError(f"the server's answer is not what SHM says: {error}") from error
    return converted


def leaves(metrics: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Value]]:
    """The metrics object flattened, nested objects joined by dots."""
    for key, value in metrics.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _integer(digits: str) -> int | Decimal:
    return int(digits) if len(digits) <= MAX_INT_DIGITS else Decimal(digits)


def _decimal(digits: str) -> Decimal | str:
    # An exponent beyond what can be calculated with; its text is still worth showing.
    try:
        number = Decimal(digits)
    except InvalidOperation:
        return digits
    return number if abs(number.adjusted()) <= MAX_EXPONENT else digits


def _constant(word: str) -> Any:
    """NaN and the infinities, which Python would read and JSON does not have."""
    raise ValueError(f"{word} is not JSON")
