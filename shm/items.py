"""An instance as the list and the feed show it, and how pages of them are read."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec

from shm import marks
from shm.database import Database
from shm.shapes import Metrics, Moment

Status = Literal["pending", "active", "revoked"]


class Item(msgspec.Struct):
    """An instance: the original's fields first. `metrics` is the current snapshot's object as it was sent."""

    instance_id: str
    app_name: str
    app_slug: str
    app_version: str
    environment: str
    status: Status
    last_seen_at: Moment | None
    deployment_mode: str
    metrics: Metrics
    os_arch: str
    first_seen_at: Moment | None
    snapshot_at: Moment | None
    counted: bool


@dataclass(frozen=True, slots=True)
class Changed:
    """An item, the cursor of its newest change, and the application that it left for another one, if it ever did."""

    cursor: int
    item: Item
    left_slug: str | None


@dataclass(frozen=True, slots=True)
class Removed:
    """An instance that is gone, and the applications that it belonged to."""

    cursor: int
    instance_id: str
    app_slug: str
    left_slug: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """Items and the feed's cursor that they are true at."""

    cursor: int
    changed: list[Changed]


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed, in order, up to the feed's cursor; removals up to `horizon` are not told any more."""

    cursor: int
    horizon: int
    changed: list[Changed | Removed]


class Filter(msgspec.Struct, frozen=True):
    """Which instances are wanted."""

    app: Annotated[str, msgspec.Meta(description="An application's slug or name.")] | None = None
    q: Annotated[str, msgspec.Meta(description="A part of ID, version, environment or mode.")] | None = None
    status: Status | None = None
    version: str | None = None
    environment: str | None = None


class Items:
    """Reads instances from one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, wanted: Filter, after: str | None, most: int) -> Page:
        """The next `most` instances after a mark of `mark_of`, newest seen first."""
        seen, instance_id = marks.read(after) if after is not None else (None, None)
        rows = await self._database.fetch(
            dict,
            "instances.page",
            app=wanted.app,
            pattern=None if wanted.q is None else _contains(wanted.q),
            status=wanted.status,
            version=wanted.version,
            environment=wanted.environment,
            after_seen=seen,
            after_id=instance_id,
            most=most,
        )
        return self._page(rows)

    async def one(self, instance_id: str) -> Page:
        """The instance of that ID, or none, as a page."""
        rows = await self._database.fetch(dict, "instances.one", instance_id=instance_id)
        return self._page(rows) if rows else Page(0, [])

    async def changes(self, since: int, app: str | None, most: int) -> Changes:
        """The next `most` instances that changed after the cursor `since`, in the order of their newest change."""
        rows = await self._database.fetch(dict, "feed.changes", since=since, app=app, most=most)
        head, horizon = rows[0]["head"], rows[0]["horizon"]
        return Changes(head, horizon, [self._change(row) for row in rows if row["instance_id"] is not None])

    def _change(self, row: dict[str, Any]) -> Changed | Removed:
        row.pop("horizon")
        if row.pop("removed"):
            return Removed(row["cursor"], row["instance_id"], row["app_slug"], row["left_slug"])
        return self._changed(row)

    def _page(self, rows: list[dict[str, Any]]) -> Page:
        return Page(rows[0]["head"], [self._changed(row) for row in rows if row["instance_id"] is not None])

    def _changed(self, row: dict[str, Any]) -> Changed:
        row.pop("head")
        cursor, left_slug = row.pop("cursor"), row.pop("left_slug")
        return Changed(cursor, Item(**row), left_slug)


def mark_of(item: Item) -> str:
    """Where a page ended: what `after` of the next one is."""
    return marks.mark(item.last_seen_at, item.instance_id)


def _contains(part: str) -> str:
    """An ILIKE pattern for whatever contains `part`."""
    escaped = part.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"
