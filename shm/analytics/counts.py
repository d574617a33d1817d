"""Counts of instances by status and activity, from the tallies. Their cost does not depend on the fleet size."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

import msgspec

from shm.db.statement_runner import Reader

STATUSES = ("active", "lost", "pending", "revoked", "unproven")  # for monitoring; each instance has one of them
DAY, WEEK, MONTH = timedelta(days=1), timedelta(days=7), timedelta(days=30)


class InstanceCounts(msgspec.Struct):
    """Instances of an application. `counted` and `excluded` are the two parts of `active`.

    `pending` ones have proved their key and wait for approval. `unproven` ones have registered without any signed
    request yet; anybody can make them up, so they are in no other count. `unreported` ones are active and have no
    snapshot from within the active window: they only register and activate, for example because all their snapshots are
    refused.
    """

    total: int = 0
    active: int = 0
    pending: int = 0
    revoked: int = 0
    counted: int = 0
    excluded: int = 0
    unproven: int = 0
    unreported: int = 0

    def by_status(self) -> dict[str, int]:
        """The instances by status, each in one. Lost ones have been silent for longer than the active window."""
        lost = self.total - self.active - self.pending - self.revoked
        numbers = (self.active, lost, self.pending, self.revoked, self.unproven)
        return dict(zip(STATUSES, numbers, strict=True))


@dataclass(frozen=True, slots=True)
class Tally:
    """The number of instances of an application with one status and one number of elapsed activity windows.

    The status `reporting` stands for all instances with a current snapshot, which other tallies count too.

    `elapsed_windows`: how many of `activity_windows`, from the shortest on, are shorter than the time since the
    instances were last seen.
    """

    app_slug: str
    status: str
    elapsed_windows: int
    instances: Decimal
    counted: Decimal
    activity_windows: list[timedelta]
    active_window: timedelta

    def seen_within(self, age: timedelta) -> bool:
        """Whether the instances are active and were last seen within `age`, which is one of the activity windows."""
        return self.status == "active" and self.elapsed_windows <= sum(window < age for window in self.activity_windows)

    @property
    def is_active(self) -> bool:
        """Whether the instances are neither revoked nor pending, and were last seen within the active window."""
        return self.seen_within(self.active_window)


async def read_tallies(reader: Reader, app: str | None = None) -> list[Tally]:
    """The tallies of one application, or of all."""
    return await reader.fetch(Tally, "kpis.count_by_status", app=app)


def sum_tallies(tallies: Iterable[Tally]) -> InstanceCounts:
    """The counts over all of these tallies."""
    counts, reporting = InstanceCounts(), 0
    for tally in tallies:
        number = int(tally.instances)
        if tally.status == "reporting":
            reporting += number
            continue
        if tally.status == "unproven":
            counts.unproven += number
            continue
        counts.total += number
        counts.pending += number if tally.status == "pending" else 0
        counts.revoked += number if tally.status == "revoked" else 0
        if tally.is_active:
            counts.active += number
            counts.counted += int(tally.counted)
    counts.excluded = counts.active - counts.counted
    counts.unreported = max(0, counts.active - reporting)
    return counts


def count_reporting(tallies: Iterable[Tally], *, counted_only: bool) -> int:
    """The number of instances whose current snapshots the KPIs are over."""
    reporting = (tally for tally in tallies if tally.status == "reporting")
    return sum(int(tally.counted if counted_only else tally.instances) for tally in reporting)


def count_seen_within(tallies: Iterable[Tally], age: timedelta) -> int:
    """The number of active instances that were last seen within `age`: a day, a week or 30 days."""
    return sum(int(tally.instances) for tally in tallies if tally.seen_within(age))


def sum_by_application(tallies: Iterable[Tally]) -> dict[str, InstanceCounts]:
    """The counts of each application, by its slug."""
    groups: defaultdict[str, list[Tally]] = defaultdict(list)
    for tally in tallies:
        groups[tally.app_slug].append(tally)
    return {slug: sum_tallies(group) for slug, group in groups.items()}
