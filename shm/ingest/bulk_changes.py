"""Changes of many instances by a filter: approve, revoke, delete, move to another application.

A request stores the change; a background job carries it out in steps, each instance by a statement of its own, so the
intake never waits. A change that was interrupted continues after the last recorded instance.
"""

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import msgspec

from shm.core import page_tokens
from shm.core.errors import Conflict
from shm.core.json_types import Timestamp
from shm.core.settings import Settings
from shm.db.database import Database
from shm.ingest.erasure import Eraser
from shm.ingest.key_limits import aggregation_limits
from shm.ingest.registry import Registry

Action = Literal["approve", "revoke", "delete", "move"]
Filter = dict[str, str | None]  # the parameters of the part `instance_filter`

UNAFFECTED: dict[Action, list[str]] = {  # statuses of instances that a change leaves as they are
    "approve": ["active", "revoked"],
    "revoke": ["revoked"],
    "delete": [],
    "move": [],
}
PAGE = 100  # instances whose IDs a step reads at most
STEP_DURATION_S = 0.3  # of a step, in which other background jobs wait
MAX_UNFINISHED = 100  # changes that wait: far more than admins make by hand
DAYS_PAGE = 1_000  # rows of the series that a statement deletes


class BulkChange(msgspec.Struct):
    """A change of many instances. `id` is null for a preview, which changes nothing.

    `instances`: how many it applied to when it was requested. `processed`: how many are done. Instances that registered
    later are left alone.
    """

    id: str | None
    action: Action
    instances: int
    processed: int
    created_at: Timestamp | None
    finished_at: Timestamp | None


@dataclass(frozen=True, slots=True)
class _Unfinished:
    id: str
    action: Action
    filter: msgspec.Raw
    into_slug: str | None
    removes_application: bool
    after_id: str | None
    created_at: datetime


_filter = msgspec.json.Decoder(Filter)


class BulkChanges:
    """The changes of many instances in one database."""

    def __init__(self, database: Database, registry: Registry, eraser: Eraser, settings: Settings) -> None:
        self._database = database
        self._registry = registry
        self._eraser = eraser
        self._key_limits = aggregation_limits(settings)

    async def preview(self, action: Action, instance_filter: Filter) -> BulkChange:
        """The change as it would be now, without making it."""
        count = await self._database.fetch_value(
            int, "bulk.count_instances", unaffected=UNAFFECTED[action], **instance_filter
        )
        return BulkChange(None, action, count or 0, 0, None, None)

    async def request(
        self,
        action: Action,
        instance_filter: Filter,
        *,
        into_slug: str | None = None,
        removes_application: bool = False,
    ) -> BulkChange:
        """Stores a change, which the background carries out. Raises Conflict if too many wait."""
        preview = await self.preview(action, instance_filter)
        change = await self._database.fetch_one(
            BulkChange,
            "bulk.insert",
            action=action,
            filter=msgspec.json.encode(instance_filter).decode(),
            into_slug=into_slug,
            removes_application=removes_application,
            instances=preview.instances,
            max_unfinished=MAX_UNFINISHED,
        )
        if change is None:
            raise Conflict("too_many_changes", f"{MAX_UNFINISHED} changes are not finished yet; wait for them.")
        return change

    async def list_page(self, after: str | None, limit: int) -> list[BulkChange]:
        """The next changes after a page token, newest first. Raises BadRequest."""
        after_created, after_id = page_tokens.decode_page_token(after) if after is not None else (None, None)
        return await self._database.fetch(
            BulkChange, "bulk.select_page", after_created=after_created, after_id=after_id, limit=limit
        )

    async def run_step(self) -> bool:
        """Continues the oldest unfinished change. Returns whether there may be more to do."""
        change = await self._database.fetch_one(_Unfinished, "bulk.select_unfinished")
        if change is None:
            return False
        deadline = time.monotonic() + STEP_DURATION_S
        instance_filter = _filter.decode(change.filter)
        ids = await self._database.fetch_values(
            str,
            "bulk.select_instances",
            unaffected=UNAFFECTED[change.action],
            created_at=change.created_at,
            after_id=change.after_id,
            limit=PAGE,
            **instance_filter,
        )
        done = 0
        for instance_id in ids:
            await self._apply(change, instance_id, instance_filter["slug"])
            done += 1
            if time.monotonic() > deadline:
                break
        is_finished = not ids and await self._finish(change, instance_filter["slug"])
        await self._database.execute(
            "bulk.advance",
            id=change.id,
            after_id=ids[done - 1] if done else None,
            processed=done,
            is_finished=is_finished,
        )
        return True

    async def _apply(self, change: _Unfinished, instance_id: str, slug: str | None) -> None:
        match change.action:
            case "approve":
                await self._registry.set_status(instance_id, "active")
            case "revoke":
                await self._registry.set_status(instance_id, "revoked")
            case "delete":
                await self._eraser.delete(instance_id)
            case "move":
                await self._database.execute(
                    "bulk.move_instance",
                    instance_id=instance_id,
                    app_slug=slug,
                    into_slug=change.into_slug,
                    **self._key_limits,
                )

    async def _finish(self, change: _Unfinished, slug: str | None) -> bool:
        """Deletes the application of the change, if that was requested. Returns False while there is more to delete."""
        if not change.removes_application:
            return True
        await self._database.execute("applications.delete_empty", slug=slug)  # not if instances registered meanwhile
        return await self._database.execute("applications.delete_frozen_days", slug=slug, limit=DAYS_PAGE) < DAYS_PAGE


def encode_page_token(change: BulkChange) -> str:
    """The page token after this change."""
    return page_tokens.encode_page_token(change.created_at, change.id or "")
