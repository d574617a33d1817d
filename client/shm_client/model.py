"""The types of the admin API's responses.

`decode` is the only way to make them from JSON: it validates, and keeps every digit of a number. Members that a newer
server adds are ignored.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Annotated, Any, Protocol, TypeVar

import msgspec

from .errors import InvalidResponseError
from .plain_json import MAX_INT_DIGITS, is_plain

MAX_EXPONENT = 1000  # the server accepts the range of a double, 324; sums of such values are hardly longer

# A leaf of the metrics object. Lists are stored and shown, never aggregated.
Value = int | Decimal | bool | str | list[Any] | None

Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]  # a naive datetime cannot be compared with the current time

T = TypeVar("T")


class Sanitizer(Protocol):
    """Applied to a JSON value before it is decoded. A terminal program removes control characters from strings here."""

    @property
    def keeps_plain_text(self) -> bool:
        """Whether it need not see texts that are plain (`plain_json`): it would change nothing in them."""

    def __call__(self, value: object) -> object:
        """The value with every string in it sanitized."""


# Applied to keys and values in a request: the text that the server has, of one that the sanitizer changed.
Restorer = Callable[[str], str]


class Counts(msgspec.Struct, frozen=True):
    """Instances of an application by status; `counted` and `excluded` divide the active ones. See docs/figures.md."""

    total: int = 0
    active: int = 0
    pending: int = 0
    revoked: int = 0
    counted: int = 0
    excluded: int = 0
    unproven: int = 0
    unreported: int = 0


class DiskForecast(msgspec.Struct, frozen=True):
    """When the database will be full, at the growth of the last week."""

    database_bytes: int = 0
    limit_bytes: int | None = None
    growth_bytes_per_day: int | None = None
    full_at: Timestamp | None = None


class Stats(msgspec.Struct, frozen=True):
    """`GET stats`: counts and metrics over all applications."""

    total_instances: int = 0
    active_instances: int = 0
    daily_active: int = 0
    weekly_active: int = 0
    monthly_active: int = 0
    counted_instances: int = 0
    excluded_instances: int = 0
    pending_instances: int = 0
    revoked_instances: int = 0
    unproven_instances: int = 0
    unreported_instances: int = 0
    new_this_week: int = 0
    per_app_counts: dict[str, int] = {}
    global_metrics: dict[str, int | Decimal | None] = {}
    active_window_s: int = 30 * 86400
    activation: str = "tofu"
    disk: DiskForecast = DiskForecast()


class Application(msgspec.Struct, frozen=True):
    """One application of `GET applications`."""

    slug: str
    name: str
    instances: Counts = Counts()
    updated_at: Timestamp | None = None
    stars: int = 0
    stars_updated_at: Timestamp | None = None
    github_url: str = ""
    logo_url: str = ""


class MetricOverride(msgspec.Struct, frozen=True, omit_defaults=True):
    """The vendor's values for a metric. None: from the words of its key."""

    kind: str | None = None
    aggregate: str | None = None
    label: str | None = None
    unit: str | None = None
    description: str | None = None
    hidden: bool = False


class ApplicationSettings(Application, frozen=True):
    """`GET applications/{slug}`: an application with the vendor's settings.

    `unknown_keys` are keys of overrides and public metrics that no install sends.
    """

    overrides: dict[str, MetricOverride] = {}
    public_metrics: list[str] = []
    unknown_keys: list[str] = []


class BulkChange(msgspec.Struct, frozen=True):
    """A change of many instances. `id` is None for a preview. `processed` of the `instances` are done."""

    id: str | None
    action: str
    instances: int
    processed: int = 0
    failed: int = 0
    error: str | None = None
    created_at: Timestamp | None = None
    finished_at: Timestamp | None = None


class Instance(msgspec.Struct, frozen=True, gc=False):  # a table holds thousands, which are in no cycle
    """One install, as `GET instances` and the feed send it. `metrics` is the object of its current snapshot."""

    instance_id: str
    status: str
    app_name: str = ""
    app_slug: str = ""
    app_version: str = ""
    version_rank: str = ""  # strings in the order of the versions; spellings of one release share one rank
    environment: str = ""
    deployment_mode: str = ""
    os_arch: str = ""
    counted: bool = False
    first_seen_at: Timestamp | None = None
    last_seen_at: Timestamp | None = None
    snapshot_at: Timestamp | None = None
    metrics: dict[str, Any] = {}


class InstanceCount(msgspec.Struct, frozen=True):
    """`GET instances/count`."""

    instances: int


class Event(msgspec.Struct, frozen=True):
    """One event of `GET events`; docs/api.md lists the kinds. Members that a kind does not have are None.

    `app` is an application's slug. `instances` counts the period from `since` to `at`.
    """

    id: str
    at: Timestamp
    kind: str
    app: str | None = None
    version: str | None = None
    since: Timestamp | None = None
    instances: int | None = None


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events, newest first; the query of the next page, if any."""

    events: list[Event]
    next: str | None


class RankedVersion(msgspec.Struct, frozen=True):
    """`GET version-rank`."""

    version: str
    version_rank: str


@dataclass(frozen=True, slots=True)
class Page:
    """Instances, the feed cursor at which they were read, and the queries of the adjoining pages, if there are any.

    `rows_before`: the number of matching instances before the page, if it was requested around an instance.
    """

    instances: list[Instance]
    cursor: int
    next: str | None
    previous: str | None = None
    rows_before: int | None = None


class MetricKey(msgspec.Struct, frozen=True):
    """The description of a metric key; docs/api.md lists the formats. Only numbers have `aggregate` and `unit`."""

    key: str
    label: str
    kind: str = "business"
    aggregate: str | None = None
    unit: str | None = None
    format: str = "json"
    hidden: bool = False
    aggregated: bool = True


class Kpi(msgspec.Struct, frozen=True):
    """The aggregate of a number over the `instances` that sent it, with its distribution over them."""

    key: str
    label: str = ""
    kind: str = "business"
    aggregate: str = "sum"
    unit: str | None = None
    format: str = "number"
    value: int | Decimal | None = None
    instances: int = 0
    min: int | Decimal | None = None
    p50: int | Decimal | None = None
    p90: int | Decimal | None = None
    max: int | Decimal | None = None


class Flag(msgspec.Struct, frozen=True):
    """A boolean: how many of the `instances` that sent it sent true."""

    key: str
    label: str = ""
    kind: str = "business"
    true: int = 0
    instances: int = 0


class CategoryValue(msgspec.Struct, frozen=True):
    """One value of a category, and how many instances have it."""

    value: str
    instances: int


class Category(msgspec.Struct, frozen=True):
    """A string: its most frequent `values`, and the number of instances with an `other` one."""

    key: str
    label: str = ""
    kind: str = "business"
    values: list[CategoryValue] = []
    other: int = 0
    instances: int = 0


class AggregatedKeys(msgspec.Struct, frozen=True):
    """How many keys are aggregated, and when a key or value beyond the limits last arrived."""

    count: int = 0
    limit: int = 0
    refused_at: Timestamp | None = None


class Kpis(msgspec.Struct, frozen=True):
    """`GET applications/{slug}/kpis`: the counts and all aggregated metrics of one application, or over a filter.

    `reporting`: how many instances the metrics are over.
    """

    app: str
    name: str = ""
    active_window_s: int = 30 * 86400
    instances: Counts = Counts()
    reporting: int = 0
    kpis: list[Kpi] = []
    flags: list[Flag] = []
    categories: list[Category] = []
    keys: AggregatedKeys = AggregatedKeys()


class PastKpis(msgspec.Struct, frozen=True):
    """`GET applications/{slug}/kpis?at=`: numbers and flags as of `as_of`. Percentiles are mostly unknown."""

    app: str
    as_of: Timestamp
    name: str = ""
    reporting: int = 0
    kpis: list[Kpi] = []
    flags: list[Flag] = []


class _Unchanged:
    keeps_plain_text = True

    def __call__(self, value: object) -> object:
        return value


keep_unchanged = _Unchanged()  # the sanitizer of a program that uses strings as the installs sent them


def decode(body: bytes | str, expected_type: type[T] | Any, sanitize: Sanitizer = keep_unchanged) -> T:
    """The JSON `body` as an `expected_type`, with every digit of its numbers.

    Raises InvalidResponseError if the body is not JSON or not of that type.
    """
    plain: T | None = decode_plain(body, expected_type, sanitize)
    if plain is not None:
        return plain
    try:
        value = sanitize(json.loads(body, parse_int=_parse_int, parse_float=_parse_float, parse_constant=_reject))
        decoded: T = msgspec.convert(value, expected_type)
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise InvalidResponseError(f"the server sent an invalid response: {error}") from error
    return decoded


def decode_plain(body: bytes | str, expected_type: type[T] | Any, sanitize: Sanitizer) -> T | None:
    """The same for a plain body of that type, ten times as fast; None for any other body."""
    if sanitize.keeps_plain_text and body.isascii():
        text = body if isinstance(body, bytes) else body.encode()
        if is_plain(text):
            with suppress(ValueError, RecursionError, msgspec.MsgspecError):
                decoded: T = _decoder(expected_type).decode(text)  # type: ignore[arg-type] # types are hashable
                return decoded
    return None


@cache
def _decoder(expected_type: Any) -> "msgspec.json.Decoder[Any]":
    return msgspec.json.Decoder(expected_type, float_hook=_parse_float)


def flatten_metrics(metrics: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Value]]:
    """The leaves of the metrics object, the keys of nested objects joined by dots."""
    for key, value in metrics.items():
        if isinstance(value, dict):
            yield from flatten_metrics(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _parse_int(digits: str) -> int | Decimal:
    return int(digits) if len(digits) <= MAX_INT_DIGITS else Decimal(digits)


def _parse_float(digits: str) -> Decimal | str:
    # A number whose exponent is too large for arithmetic stays text, which can still be shown.
    try:
        number = Decimal(digits)
    except InvalidOperation:
        return digits
    return number if abs(number.adjusted()) <= MAX_EXPONENT else digits


def _reject(constant: str) -> Any:
    """Rejects NaN and the infinities, which Python's parser accepts and JSON does not have."""
    raise ValueError(f"{constant} is not JSON")
