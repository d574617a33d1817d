"""Reads the feed's changes after a cursor from the database: newest states in the order of their last change.

SQL advances the cursor: each statement that changes what the feed sends does it in its CTE `feed_advanced`. That of a
batch of snapshots is in `sql/parts/intake.sql`; the top of `sql/queries/feed.sql` tells where the others are.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from shm.analytics import applications
from shm.analytics.applications import HiddenKeys
from shm.analytics.instance_fields import Instance
from shm.analytics.instances import instance_from_row
from shm.db.database import Database

PAGE_SIZE = 500  # changes read at a time
# Cursors before a subscriber's whose KPIs are sent again: they follow their change half a second later.
KPIS_RESEND_SPAN = 1_000
MAX_CURSOR = 2**63 - 1  # no cursor comes after it


class ChangeKind(StrEnum):
    """The kind of a change."""

    INSTANCE = "instance"  # the instance is new, or its state changed
    REMOVED = "removed"  # the instance was deleted
    LEFT = "left"  # the instance moved to another application and is no longer in this one
    APPLICATION = "application"  # the application's KPIs changed without a change of an instance


@dataclass(frozen=True, slots=True)
class Change:
    """One change. No two have the same cursor."""

    kind: ChangeKind
    cursor: int
    app_slug: str
    instance_id: str | None
    instance: Instance | None


@dataclass(frozen=True, slots=True)
class ChangePage:
    """A page of changes.

    The page covers changes up to `cursor`, which is at most the feed's `head`. Removals up to `horizon` are deleted
    and can no longer be sent.
    """

    cursor: int
    head: int
    horizon: int
    changes: list[Change]
    limit: int  # the number of changes requested

    @property
    def is_last(self) -> bool:
        """Whether this is the last page."""
        return len(self.changes) < self.limit


@dataclass(frozen=True, slots=True)
class FeedHead:
    """The newest cursor, and the cursor up to which removals are deleted."""

    cursor: int
    horizon: int


async def read_head(database: Database) -> FeedHead:
    """The feed's current head."""
    row = await database.fetch_one(FeedHead, "feed.select_head")
    assert row is not None  # noqa: S101 - the table always has its one row
    return row


async def read_changes(
    database: Database, since: int, *, app: str | None = None, until: int = MAX_CURSOR, limit: int = PAGE_SIZE
) -> ChangePage:
    """The next changes after `since` and up to `until`, of one application or of all."""
    rows = await database.fetch(dict, "feed.select_changes", since=since, until=until, app=app, limit=limit)
    changed_rows = [row for row in rows if row["kind"] is not None]
    hidden_keys = await applications.select_hidden_keys(database) if changed_rows else {}
    changes = [_change(row, hidden_keys) for row in changed_rows]
    head = rows[0]["head"]
    cursor = min(head, until) if len(changes) < limit else changes[-1].cursor
    return ChangePage(cursor, head, rows[0]["horizon"], changes, limit)


async def recently_changed_apps(database: Database, cursor: int, app: str | None) -> set[str]:
    """The applications, or the one of `app`, that changed shortly before a cursor."""
    return set(
        await database.fetch_values(
            str, "feed.select_recently_changed_apps", since=cursor, span=KPIS_RESEND_SPAN, app=app
        )
    )


def _change(row: dict[str, Any], hidden_keys: HiddenKeys) -> Change:
    kind = ChangeKind(row["kind"])
    instance = instance_from_row(row, hidden_keys) if kind is ChangeKind.INSTANCE else None
    return Change(kind, row["cursor"], row["app_slug"], row["instance_id"], instance)
