"""The figures that follow from the raw rows at a given time: the definitions of docs/figures.md in plain Python."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import assert_never

from packaging.version import InvalidVersion, Version

from shm.core.aggregates import Aggregate
from tests.support.oracle.raw import Instance, Raw, Snapshot

UNCOUNTED = {"dev", "development", "test", "testing", "ci", "local"}
WINDOW = timedelta(days=30)
ACTIVITY_WINDOWS = {
    "daily_active": timedelta(days=1),
    "weekly_active": timedelta(days=7),
    "monthly_active": timedelta(days=30),
}

SYSTEM_WORDS = {"cpu", "mem", "memory", "uptime", "goroutines", "heap", "rss"}
AGGREGATE_WORDS: dict[Aggregate, set[str]] = {
    "median": {"median"},
    "max": {"max", "maximum", "peak", "highest"},
    "min": {"min", "minimum", "lowest"},
    "avg": {"pct", "percent", "percentage", "ratio", "avg", "average", "mean", "rate", "percentile"}
    | {"p50", "p75", "p90", "p95", "p98", "p99", "p999"},
}

MAX_VALUES = 20  # of a category in a response


@dataclass
class MetricValues:
    """The values of some snapshots by key."""

    numbers: dict[str, list[Decimal]] = field(default_factory=dict)
    flags: dict[str, list[bool]] = field(default_factory=dict)
    categories: dict[str, Counter[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, snapshots: Iterable[Snapshot]) -> "MetricValues":
        """The values of these snapshots, one of each instance."""
        figures = cls()
        for snapshot in snapshots:
            for key, value in snapshot.leaves.items():
                if isinstance(value, bool):
                    figures.flags.setdefault(key, []).append(value)
                elif isinstance(value, Decimal):
                    figures.numbers.setdefault(key, []).append(value)
                else:
                    figures.categories.setdefault(key, Counter())[value] += 1
        return figures

    def aggregated(self, key: str, aggregate: Aggregate) -> Fraction:
        """The exact aggregate of a numeric metric."""
        values = [Fraction(value) for value in self.numbers[key]]
        match aggregate:
            case "sum":
                return sum(values, Fraction())
            case "avg":
                return sum(values, Fraction()) / len(values)
            case "min":
                return min(values)
            case "max":
                return max(values)
            case "median":
                return self.percentile(key, Fraction(1, 2))
            case _:
                assert_never(aggregate)

    def percentile(self, key: str, share: Fraction) -> Fraction:
        """A percentile of a numeric metric, interpolated between the two nearest values."""
        values = sorted(Fraction(value) for value in self.numbers[key])
        rank = share * (len(values) - 1)
        low = int(rank)
        high = min(low + 1, len(values) - 1)
        return values[low] + (rank - low) * (values[high] - values[low])


def kind(key: str, raw: Raw, slug: str) -> str:
    """`business` or `system`."""
    system = key.startswith(("sys_", "app_")) or bool(SYSTEM_WORDS & _words(key))
    return raw.applications[slug].overrides.get(key, {}).get("kind") or ("system" if system else "business")


def aggregate(key: str, raw: Raw, slug: str) -> Aggregate:
    """The aggregate of a numeric metric of an application."""
    override: Aggregate | None = raw.applications[slug].overrides.get(key, {}).get("aggregate")
    if override is not None:
        return override
    if key.startswith(("sys_", "app_")) or SYSTEM_WORDS & _words(key):
        return "avg"
    words = _words(re.sub(r"(?i)(?<=[^a-z0-9])min[^a-z0-9]*$", "", key))
    return next((name for name, listed in AGGREGATE_WORDS.items() if listed & words), "sum")


def global_numbers(raw: Raw, now: datetime, window: timedelta) -> dict[str, tuple[Aggregate, list[Decimal]]]:
    """Numeric metrics over all applications that do not hide them, if these have one aggregate: sum or avg."""
    found: dict[str, tuple[set[Aggregate], list[Decimal]]] = {}
    for slug in raw.applications:
        for key, values in MetricValues.of(reporting(raw, now, window, slug)).numbers.items():
            if not is_hidden(key, raw, slug):
                aggregates, all_values = found.setdefault(key, (set(), []))
                aggregates.add(aggregate(key, raw, slug))
                all_values.extend(values)
    return {
        key: (min(aggregates), values)
        for key, (aggregates, values) in found.items()
        if len(aggregates) == 1 and aggregates <= {"sum", "avg"}
    }


def is_hidden(key: str, raw: Raw, slug: str) -> bool:
    """Whether an override hides the metric."""
    return bool(raw.applications[slug].overrides.get(key, {}).get("hidden"))


def current(raw: Raw, instance: Instance) -> Snapshot | None:
    """The snapshot with the newest timestamp, in whatever order they arrived."""
    return max(raw.snapshots[instance.instance_id], key=lambda snapshot: snapshot.snapshot_at, default=None)


def is_active(instance: Instance, now: datetime, within: timedelta) -> bool:
    """Whether the instance has the status `active` and was seen within this time."""
    return instance.status == "active" and instance.last_seen_at is not None and instance.last_seen_at > now - within


def is_counted(raw: Raw, instance: Instance) -> bool:
    """Whether the headline counts the instance if it is active."""
    newest = current(raw, instance)
    ephemeral = newest is not None and newest.leaves.get("sys_ephemeral") is True
    return instance.environment.lower() not in UNCOUNTED and not ephemeral


def reporting(
    raw: Raw, now: datetime, window: timedelta, slug: str | None = None, *, counted_only: bool = False
) -> Iterator[Snapshot]:
    """The current snapshots that KPIs aggregate, of an application or of all."""
    for instance in raw.instances.values():
        newest = current(raw, instance)
        if (
            (slug is None or instance.app_slug == slug)
            and instance.status != "revoked"
            and newest is not None
            and newest.snapshot_at > now - window
            and (is_counted(raw, instance) or not counted_only)
        ):
            yield newest


def reporting_then(raw: Raw, slug: str, then: datetime, window: timedelta) -> Iterator[Snapshot]:
    """The snapshots of an application that were current at a time in the past."""
    for instance_id, snapshots in raw.snapshots.items():
        revoked_at = raw.instances[instance_id].revoked_at
        known = [snapshot for snapshot in snapshots if then - window < snapshot.snapshot_at <= then]
        if known and known[-1].app_slug == slug and (revoked_at is None or then < revoked_at):
            yield known[-1]


def running(raw: Raw, now: datetime, window: timedelta, slug: str) -> Counter[str]:
    """The versions, as sent, of the instances that KPIs aggregate."""
    reporting_ids = {snapshot.instance_id for snapshot in reporting(raw, now, window, slug)}
    return Counter(raw.instances[instance_id].app_version for instance_id in reporting_ids)


def release(version: str) -> Version | None:
    """The parsed version; None for a name. Supports versions of Python packages only, which the tests' fleets use."""
    try:
        return Version(Version(version).public)
    except InvalidVersion:
        return None


def counts(raw: Raw, now: datetime, window: timedelta, slug: str | None = None) -> dict[str, int]:
    """The counts of instances of an application, or of all."""
    listed = [instance for instance in raw.instances.values() if slug is None or instance.app_slug == slug]
    proven = [instance for instance in listed if not is_unproven(instance)]
    active = [instance for instance in proven if is_active(instance, now, window)]
    counted = sum(is_counted(raw, instance) for instance in active)
    return {
        "total": len(proven),
        "active": len(active),
        "pending": sum(instance.status == "pending" for instance in proven),
        "revoked": sum(instance.status == "revoked" for instance in proven),
        "counted": counted,
        "excluded": len(active) - counted,
        "unproven": len(listed) - len(proven),
        "unreported": max(0, len(active) - sum(1 for _ in reporting(raw, now, window, slug))),
    }


def is_unproven(instance: Instance) -> bool:
    """Whether the instance has registered and sent no signed request yet."""
    return instance.status == "pending" and instance.first_seen_at is None


def new_this_week(raw: Raw, now: datetime) -> int:
    """The number of instances first seen in the current hour or the 168 hours before it."""
    since = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=168)
    return sum(
        instance.first_seen_at is not None and instance.first_seen_at >= since for instance in raw.instances.values()
    )


def changes(raw: Raw, window: timedelta) -> Iterator[datetime]:
    """The times at which time alone changes a figure, in addition to each full hour."""
    for instance in raw.instances.values():
        if instance.last_seen_at is not None:
            yield from (instance.last_seen_at + each for each in {window, *ACTIVITY_WINDOWS.values()})
    for snapshots in raw.snapshots.values():
        yield from (snapshot.snapshot_at + window for snapshot in snapshots)


def _words(key: str) -> set[str]:
    separated = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", key)
    return set(re.split(r"[^a-z0-9]+", separated.lower()))
