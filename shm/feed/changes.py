"""What changed after a cursor of the feed: newest states out of the database, in the order of their newest change."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from shm.analytics.instances import Instance, instance_from_row
from shm.db.database import Database

PAGE = 500  # changes read at a time
UNSENT_KPIS_SPAN = 1_000  # changes before a cursor whose KPIs may be unsent: KPIs follow half a second later
MAX_CURSOR = 2**63 - 1  # no cursor comes after it


class ChangeKind(StrEnum):
    """What a change is."""

    INSTANCE = "instance"  # it is new, or reads otherwise
    REMOVED = "removed"  # it is gone
    LEFT = "left"  # it went to another application: in this one it is gone
    APPLICATION = "application"  # something that its KPIs show, and no instance


@dataclass(frozen=True, slots=True)
class Change:
    """One change. No two have the same cursor."""

    kind: ChangeKind
    cursor: int
    app_slug: str
    instance_id: str | None
    item: Instance | None


@dataclass(frozen=True, slots=True)
class Changes:
    """A page of them. One has now looked up to `cursor`, no further than the feed's `head`; what was removed up to
    `horizon` is not told any more.
    """

    cursor: int
    head: int
    horizon: int
    found: list[Change]
    most: int  # that were asked for

    @property
    def is_last(self) -> bool:
        """Whether there is nothing behind this page."""
        return len(self.found) < self.most


@dataclass(frozen=True, slots=True)
class Head:
    """The newest cursor, and the one up to which removals are forgotten."""

    cursor: int
    horizon: int


async def head(database: Database) -> Head:
    """Where the feed stands."""
    row = await database.fetch_one(Head, "feed.select_head")
    assert row is not None  # noqa: S101 - the table always has its one row
    return row


async def after(
    database: Database, since: int, *, app: str | None = None, until: int = MAX_CURSOR, most: int = PAGE
) -> Changes:
    """The next changes after `since`, of one application or of all, no further than `until`."""
    rows = await database.fetch(dict, "feed.select_changes", since=since, until=until, app=app, limit=most)
    found = [_change(row) for row in rows if row["kind"] is not None]
    head = rows[0]["head"]
    looked = min(head, until) if len(found) < most else found[-1].cursor
    return Changes(looked, head, rows[0]["horizon"], found, most)


async def recently_changed_apps(database: Database, cursor: int, app: str | None) -> set[str]:
    """The applications of which something changed shortly before a cursor, of those that are asked for."""
    return set(
        await database.fetch_values(
            str, "feed.select_recently_changed_apps", since=cursor, span=UNSENT_KPIS_SPAN, app=app
        )
    )


def _change(row: dict[str, Any]) -> Change:
    kind = ChangeKind(row["kind"])
    told = instance_from_row(row) if kind is ChangeKind.INSTANCE else None
    return Change(kind, row["cursor"], row["app_slug"], row["instance_id"], told)
