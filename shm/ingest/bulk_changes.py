"""Changes of many instances by a filter: approve, revoke, delete, move to another application.

A request stores the change; a background job carries it out in steps, each instance by a statement of its own, so the
intake never waits. A change that was interrupted continues after the last recorded instance. An instance that fails is
skipped, and tried again in a later pass over the filter, which selects only what is not done.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from shm.core import page_tokens
from shm.core.errors import Conflict
from shm.core.json_types import Timestamp
from shm.core.logs import RateLimitedLogger, describe_error
from shm.core.settings import Settings
from shm.db.conditions import Condition, Conditions
from shm.db.database import Database
from shm.ingest.erasure import Eraser
from shm.ingest.failures import describe_failure, is_outage
from shm.ingest.key_limits import aggregation_limits
from shm.ingest.registry import Registry

logger = logging.getLogger(__name__)
rate_limited = RateLimitedLogger(logger)

Action = Literal["approve", "revoke", "delete", "move"]
Phase = Literal["instances", "snapshots", "series"]  # of a merge; any other change has the first one only
ParseConditions = Callable[[list[str]], Awaitable[Conditions]]  # of the parameter `where` of lists

UNAFFECTED: dict[Action, list[str]] = {  # statuses of instances that a change leaves as they are
    "approve": ["active", "revoked"],
    "revoke": ["revoked"],
    "delete": [],
    "move": [],
}
PAGE_SIZE = 100  # instances whose IDs a step reads at most
STEP_DURATION_S = 0.3  # of a step, in which other background jobs wait
MAX_UNFINISHED = 100  # changes that wait: far more than admins make by hand
DAYS_PAGE_SIZE = 1_000  # rows of the series that a statement deletes
EVENTS_PAGE_SIZE = 1_000  # events that a statement deletes
SNAPSHOTS_PAGE_SIZE = 500  # snapshots that a statement moves to another application
SNAPSHOTS_MAX_LEAVES = 1_000  # of a statement: each has rows of the series in both applications
SERIES_PAGE_SIZE = 10  # series that a statement moves: each has a row for every day

MAX_PASSES = 5  # over the instances that failed, which an admin then has to look at
MAX_FAILURES = 20  # of a pass, which then ends: each may take as long as a statement may
PAUSES = [
    timedelta(seconds=10 * 4**number) for number in range(MAX_PASSES)
]  # before the next pass; together 14 minutes
FAILURE_PAUSE = timedelta(seconds=5)  # after an instance that failed, in which other changes continue
NO_PAUSE = timedelta()


class Selection(msgspec.Struct, frozen=True):
    """The instances of a change, as it is stored: the parameters of the part `instance_filter`, conditions, and IDs.

    Conditions are kept as texts, so their ages are relative to each step: an instance that was silent and reports again
    before its turn is left alone.
    """

    slug: str | None = None
    pattern: str | None = None
    status: str | None = None
    version_rank: str | None = None
    environment: str | None = None
    where: list[str] = []
    instance_ids: list[str] = []


class BulkChange(msgspec.Struct):
    """A change of many instances. `id` is null for a preview, which changes nothing.

    `instances`: how many it applied to when it was requested. `processed`: how many are done. Instances that registered
    later are left alone. `failed`: how many could not be changed; they are tried again for some minutes, and the change
    ends without them. `error`: the last failure, with the first digits of the instance's ID.
    """

    id: str | None
    action: Action
    instances: int
    processed: int
    failed: int
    error: str | None
    created_at: Timestamp | None
    finished_at: Timestamp | None


@dataclass(frozen=True, slots=True)
class _Unfinished:
    id: str
    action: Action
    filter: msgspec.Raw
    into_slug: str | None
    removes_application: bool
    phase: Phase
    after_id: str | None
    failed: int
    passes: int
    error: str | None
    created_at: datetime

    @property
    def selection(self) -> Selection:
        """The instances."""
        return _selection.decode(self.filter)

    @property
    def slug(self) -> str | None:
        """The application of the filter."""
        return self.selection.slug


_selection = msgspec.json.Decoder(Selection)


class BulkChanges:
    """The changes of many instances in one database."""

    def __init__(
        self,
        database: Database,
        registry: Registry,
        eraser: Eraser,
        settings: Settings,
        parse_conditions: ParseConditions,
    ) -> None:
        self._database = database
        self._parse_conditions = parse_conditions
        self._registry = registry
        self._eraser = eraser
        self._key_limits = aggregation_limits(settings)

    async def preview(self, action: Action, selection: Selection) -> BulkChange:
        """The change as it would be now, without making it. Raises BadRequest for an invalid condition."""
        parameters = await self._to_parameters(selection)
        count = await self._database.fetch_value(
            int, "bulk.count_instances", unaffected=UNAFFECTED[action], **parameters
        )
        return BulkChange(None, action, count or 0, 0, 0, None, None, None)

    async def check(self, selection: Selection) -> None:
        """Raises BadRequest for an invalid condition."""
        await self._to_parameters(selection)

    async def request(self, action: Action, selection: Selection, *, removes_application: bool = False) -> BulkChange:
        """Stores a change, which the background carries out. Raises Conflict if too many wait, and as `preview`."""
        preview = await self.preview(action, selection)
        return await self._insert(
            "bulk.insert",
            action=action,
            filter=msgspec.json.encode(selection).decode(),
            removes_application=removes_application,
            instances=preview.instances,
        )

    async def request_merge(self, selection: Selection, slug: str, into_slug: str) -> BulkChange:
        """Stores a merge of two applications, which the background carries out. Raises Conflict if too many wait.

        From now on installs that register with the name of the first one belong to the other one.
        """
        preview = await self.preview("move", selection)
        return await self._insert(
            "bulk.insert_merge",
            filter=msgspec.json.encode(selection).decode(),
            slug=slug,
            into_slug=into_slug,
            instances=preview.instances,
        )

    async def _to_parameters(self, selection: Selection) -> dict[str, object]:
        """The parameters of the statements."""
        conditions = (await self._parse_conditions(selection.where)).all_of if selection.where else ()
        if selection.instance_ids:
            conditions = [*conditions, Condition("condition_instances", {"ids": selection.instance_ids})]
        columns = ("slug", "pattern", "status", "version_rank", "environment")
        return {name: getattr(selection, name) for name in columns} | {"conditions": Conditions(conditions)}

    async def _insert(self, statement: str, **parameters: object) -> BulkChange:
        change = await self._database.fetch_one(BulkChange, statement, max_unfinished=MAX_UNFINISHED, **parameters)
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
        """Continues a change. Returns whether there may be more to do."""
        change = await self._database.fetch_one(_Unfinished, "bulk.select_next")
        if change is None:
            return False
        deadline = time.monotonic() + STEP_DURATION_S
        ids = [] if change.phase == "series" else await self._select_instances(change)
        processed = 0
        for instance_id in ids:
            try:
                is_done = await self._apply(change, instance_id, deadline)
            except Exception as error:
                if is_outage(error):
                    raise
                await self._skip(change, instance_id, error, processed)
                return True
            if not is_done:
                break
            change = replace(change, after_id=instance_id)
            processed += change.phase == "instances"
            if time.monotonic() > deadline:
                break
        if ids:
            await self._record(change, processed)
        elif change.failed:
            await self._end_pass(change)
        else:
            await self._complete_phase(change, deadline)
        return True

    async def _select_instances(self, change: _Unfinished) -> list[str]:
        """The IDs of the next instances of a pass."""
        page = {"after_id": change.after_id, "limit": PAGE_SIZE}
        if change.phase == "snapshots":
            return await self._database.fetch_values(str, "bulk.select_moved_instances", **page)
        return await self._database.fetch_values(
            str,
            "bulk.select_instances",
            unaffected=UNAFFECTED[change.action],
            created_at=None if change.action == "move" else change.created_at,
            **page,
            **await self._to_parameters(change.selection),
        )

    async def _apply(self, change: _Unfinished, instance_id: str, deadline: float) -> bool:
        """Changes an instance. Returns whether it is done; a long history is continued in the next step."""
        applications = {"app_slug": change.slug, "into_slug": change.into_slug}
        match change.action:
            case "approve":
                await self._registry.set_status(instance_id, "active")
            case "revoke":
                await self._registry.set_status(instance_id, "revoked")
            case "delete":
                return await self._eraser.continue_deletion(instance_id, deadline)
            case "move" if change.phase == "snapshots":
                page = {"limit": SNAPSHOTS_PAGE_SIZE, "max_leaves": SNAPSHOTS_MAX_LEAVES}
                after = None
                while moved := await self._database.fetch_values(
                    datetime, "bulk.move_snapshots", instance_id=instance_id, after=after, **applications, **page
                ):
                    after = max(moved)
                    if time.monotonic() > deadline:
                        return False
            case "move":
                await self._database.execute(
                    "bulk.move_instance", instance_id=instance_id, **applications, **self._key_limits
                )
        return True

    async def _skip(self, change: _Unfinished, instance_id: str, error: Exception, processed: int) -> None:
        """Records an instance that failed, and continues with the next one, after other changes."""
        failure = describe_failure(instance_id, error)
        rate_limited.warning(f"could not {change.action} an instance", failure)
        failed = replace(change, after_id=instance_id, failed=change.failed + 1, error=failure)
        if failed.failed < MAX_FAILURES:
            await self._record(failed, processed, FAILURE_PAUSE)
        else:
            await self._end_pass(failed, processed)

    async def _end_pass(self, change: _Unfinished, processed: int = 0) -> None:
        """Begins another pass over the instances that failed, after a pause, or ends the change without them."""
        if change.passes + 1 >= MAX_PASSES:
            logger.warning("a change of many instances (%s) has ended with failures: %s", change.id, change.error)
            await self._record(change, processed, is_finished=True)
            return
        again = replace(change, after_id=None, failed=0, passes=change.passes + 1)
        await self._record(again, processed, PAUSES[change.passes])

    async def _complete_phase(self, change: _Unfinished, deadline: float) -> None:
        """Begins the next phase of a merge, or ends the change with what follows its instances."""
        if change.action == "move" and change.phase != "series":
            phase: Phase = "snapshots" if change.phase == "instances" else "series"
            await self._record(replace(change, phase=phase, after_id=None, passes=0, error=None))
            return
        try:
            is_finished = await self._finish(change, deadline)
        except Exception as error:
            if is_outage(error):
                raise
            rate_limited.warning("could not end a change of many instances", describe_error(error))
            await self._end_pass(replace(change, error=describe_error(error)))
            return
        await self._record(replace(change, error=None) if is_finished else change, is_finished=is_finished)

    async def _finish(self, change: _Unfinished, deadline: float) -> bool:
        """Does what follows the last instance. Returns False while there is more to do."""
        if change.action == "move":
            applications = {"app_slug": change.slug, "into_slug": change.into_slug}
            while await self._database.execute("bulk.move_series", **applications, limit=SERIES_PAGE_SIZE):
                if time.monotonic() > deadline:
                    return False
            return True
        if not change.removes_application:
            return True
        # not if instances registered meanwhile
        await self._database.execute("applications.delete_empty", slug=change.slug)
        days = await self._database.execute("applications.delete_frozen_days", slug=change.slug, limit=DAYS_PAGE_SIZE)
        events = await self._database.execute("events.delete_of_application", slug=change.slug, limit=EVENTS_PAGE_SIZE)
        return days < DAYS_PAGE_SIZE and events < EVENTS_PAGE_SIZE

    async def _record(
        self, change: _Unfinished, processed: int = 0, pause: timedelta = NO_PAUSE, *, is_finished: bool = False
    ) -> None:
        """Records how far a change is: `processed` more instances are done."""
        await self._database.execute(
            "bulk.advance",
            id=change.id,
            phase=change.phase,
            after_id=change.after_id,
            processed=processed,
            failed=change.failed,
            passes=change.passes,
            error=change.error,
            pause=pause,
            is_finished=is_finished,
        )


def encode_page_token(change: BulkChange) -> str:
    """The page token after this change."""
    return page_tokens.encode_page_token(change.created_at, change.id or "")
