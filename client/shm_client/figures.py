"""The types of the admin API's charts and breakdowns, and of an instance's history. docs/figures.md defines them."""

from datetime import date
from decimal import Decimal
from typing import Any, Literal

import msgspec

from .model import Timestamp

Period = Literal["24h", "7d", "30d", "3m", "1y", "all"]
Number = int | Decimal


class Adoption(msgspec.Struct, frozen=True):
    """The adoption of a version: `moved` existing instances moved to it, half of them within `median_days`."""

    version: str
    first_at: Timestamp
    installs: int = 0
    moved: int = 0
    median_days: Number | None = None


class OutdatedVersion(msgspec.Struct, frozen=True):
    """Instances of a release before the latest one."""

    version: str
    instances: int
    releases_behind: int


class Versions(msgspec.Struct, frozen=True):
    """`GET applications/{slug}/versions`. Lists are as long as `timestamps`; None where there is no value."""

    app: str
    period: str
    running_since: Timestamp
    timestamps: list[Timestamp]
    versions: dict[str, list[int | None]]
    other: list[int | None]
    total: list[int | None]
    as_of: Timestamp
    latest: str | None = None
    on_latest: int = 0
    behind: list[OutdatedVersion] = []
    taken_up: list[Adoption] = []


class Day(msgspec.Struct, frozen=True):
    """A day in UTC. `active` is as of its end, for the current day as of now."""

    day: date
    new: int = 0
    active: int = 0
    lost: int = 0
    returned: int = 0
    revoked: int = 0


class Cohort(msgspec.Struct, frozen=True):
    """Instances first seen in the week from the Monday `week`; how many were active after each complete week."""

    week: date
    size: int
    active: list[int]


class Lifecycle(msgspec.Struct, frozen=True):
    """`GET applications/{slug}/lifecycle`."""

    app: str
    period: str
    as_of: Timestamp
    days: list[Day]
    cohorts: list[Cohort]


class Group(msgspec.Struct, frozen=True):
    """Instances with one value. `metric`: another metric's aggregate over the `answered` ones, with its spread."""

    value: str | None
    instances: int
    metric: Number | None = None
    answered: int = 0
    min: Number | None = None
    p50: Number | None = None
    p90: Number | None = None
    max: Number | None = None


class Breakdown(msgspec.Struct, frozen=True):
    """`GET applications/{slug}/breakdown`: the most frequent values first; `rest`: all others."""

    app: str
    by: str
    as_of: Timestamp
    values: list[Group]
    rest: Group | None = None
    metric: str | None = None
    aggregate: str | None = None
    unknown_keys: list[str] = []


class Bucket(msgspec.Struct, frozen=True):
    """The number of instances whose value is at least `lower` and less than `upper`."""

    lower: Number
    upper: Number
    instances: int


class Histogram(msgspec.Struct, frozen=True):
    """`GET applications/{slug}/histogram`: instances by the size of their value. `scale`: linear or log."""

    app: str
    metric: str
    as_of: Timestamp
    instances: int
    scale: str
    buckets: list[Bucket]
    min: Number | None = None
    max: Number | None = None
    percentiles: dict[str, Number] | None = None
    unknown_keys: list[str] = []


class FlagSeries(msgspec.Struct, frozen=True):
    """A boolean over time: the number of true values, and of instances that reported it."""

    true: list[int | None]
    instances: list[int | None]


class MetricSeries(msgspec.Struct, frozen=True):
    """`GET metrics/{app}`. Lists are as long as `timestamps`; None where there is no data. The last value is now's."""

    app: str
    period: str
    running_since: Timestamp
    timestamps: list[Timestamp]
    metrics: dict[str, list[Number | None]]
    instances: dict[str, list[int | None]]
    flags: dict[str, FlagSeries]
    unknown_keys: list[str] = []


class StoredSnapshot(msgspec.Struct, frozen=True):
    """A snapshot of one instance, as it was sent."""

    snapshot_at: Timestamp
    received_at: Timestamp
    app_version: str = ""
    metrics: dict[str, Any] = {}


class AuditEntry(msgspec.Struct, frozen=True):
    """A change by an admin. `target`: a slug, a token's ID, or the first 8 digits of an instance's ID.

    `token_id` is None for a command on the database.
    """

    at: Timestamp
    action: str
    target: str
    id: str = ""
    token_id: str | None = None


class Token(msgspec.Struct, frozen=True):
    """A token of the API, without its secret. `last_used_on` is a day in UTC."""

    id: str
    name: str
    role: str
    created_at: Timestamp
    expires_at: Timestamp | None = None
    last_used_on: date | None = None
