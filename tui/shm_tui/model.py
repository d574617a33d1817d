"""What the admin API says, as values: decoded once, cleaned once, trusted from then on.

`decode` is the only door. It keeps every digit of a number, cleans every string, and gives one of the types below.
"""

import json
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, TypeVar

import msgspec

from .clean import clean_json
from .errors import AnswerError

MAX_EXPONENT = 1000  # the server takes what a double holds, 324; sums of it are hardly longer
MAX_INT_DIGITS = 80  # beyond it a Decimal holds the digits as well, and converts without Python's quadratic cost

# A leaf of the metrics object. A list is kept and shown, never calculated with.
Value = int | Decimal | bool | str | list[Any] | None

Time = Annotated[datetime, msgspec.Meta(tz=True)]  # one without a zone could not be compared with now

T = TypeVar("T")


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
    environment: str = ""
    deployment_mode: str = ""
    os_arch: str = ""
    counted: bool = False
    first_seen_at: Time | None = None
    last_seen_at: Time | None = None
    snapshot_at: Time | None = None
    metrics: dict[str, Any] = {}


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


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    cursor: int


class Changed(msgspec.Struct, frozen=True, tag="instance"):
    cursor: int
    instance: Instance


class Removed(msgspec.Struct, frozen=True, tag="removed"):
    cursor: int
    instance_id: str


class KpisMoved(Kpis, frozen=True, tag="kpis"):
    cursor: int = 0


class Resync(msgspec.Struct, frozen=True, tag="resync"):
    reason: str = ""


Event = Hello | Changed | Removed | KpisMoved | Resync
EVENT_TYPES = frozenset({"hello", "instance", "removed", "kpis", "resync"})


def decode(body: bytes | str, shape: type[T] | Any) -> T:
    """The JSON `body` as `shape`, every digit kept and every string cleaned; AnswerError when it is something else."""
    try:
        value = clean_json(json.loads(body, parse_int=_integer, parse_float=_decimal, parse_constant=_constant))
        converted: T = msgspec.convert(value, shape)
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise AnswerError(f"the server's answer is not what SHM says: {error}") from error
    return converted


def decode_event(message: bytes | str) -> Event | None:
    """One message of the feed, or None for a type that a newer server added."""
    peek: dict[str, Any] = decode(message, dict[str, Any])
    kind = peek.get("type")
    return as_event(peek) if isinstance(kind, str) and kind in EVENT_TYPES else None


def as_event(value: dict[str, Any]) -> Event:
    """A decoded message as its event."""
    try:
        event: Event = msgspec.convert(value, Event)
    except msgspec.ValidationError as error:
        raise AnswerError(f"the feed's message is not what SHM says: {error}") from error
    return event


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
