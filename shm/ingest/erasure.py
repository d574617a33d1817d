"""Deletion of instances with all their data: at an install's request, at an admin's, and by age.

Snapshots are deleted in pages, which hold the rollup's lock for some tens of milliseconds and never the writers' lock.
The intake therefore does not wait for a long history. The instance itself follows in a last statement. A deletion that
was interrupted is resumed in the background. The database counts what was deleted, so a receipt is complete whichever
processes took part.
"""

import asyncio
import logging
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

import msgspec

from shm.core import page_tokens
from shm.core.errors import QueryTooSlow
from shm.core.json_types import Timestamp
from shm.core.logs import RateLimitedLogger
from shm.core.settings import Settings
from shm.db.database import Database
from shm.ingest.failures import describe_failure, is_outage
from shm.ingest.key_cache import PublicKeyCache
from shm.ingest.registry import unknown_instance

PAGE_SIZE = 500  # snapshots, versions or absences of a statement
MAX_LEAVES = 2_000  # of a statement: each has rows of the series for the hours and days that it changed
INTERRUPTED_PAGE_SIZE = 10  # deletions and revocations that one step of the background job resumes
HEARTBEAT_INTERVAL_S = 15.0  # of a deletion that takes long; after a minute without, the background job continues it
STEP_DURATION_S = 0.3  # of a step of the background job, in which other jobs wait
HASHES_PAGE_SIZE = 1_000  # expired hashes of a statement
EXTRA_HASH_RETENTION = timedelta(hours=1)  # beyond the need by PostgreSQL's clock, in case that is set back
PURGE_PAGE_SIZE = 1_000  # instances of a statement, so that batches of snapshots never wait long

logger = logging.getLogger(__name__)
rate_limited = RateLimitedLogger(logger)


@dataclass(frozen=True, slots=True)
class ErasureReceipt:
    """Counts and times of an instance's deleted snapshots. The body of the answer to `POST /v1/erase`."""

    instance_id: str
    app_name: str
    erased_at: Timestamp
    snapshots: int
    oldest_snapshot_at: Timestamp | None
    newest_snapshot_at: Timestamp | None


@dataclass(frozen=True, slots=True)
class _Interrupted:
    instance_id: str
    is_revocation: bool


class FailedRemoval(msgspec.Struct):
    """A deletion or revocation that could not be completed. It is tried again at `retry_at`."""

    instance_id: str
    action: Literal["delete", "revoke"]
    attempts: int
    error: str
    failed_at: Timestamp
    retry_at: Timestamp


class Eraser:
    """Deletes instances of one database."""

    def __init__(self, database: Database, keys: PublicKeyCache, settings: Settings) -> None:
        self._database = database
        self._keys = keys
        self._pending_age = settings.pending_age
        self._snapshot_age = settings.max_snapshot_age
        self._clock_skew = settings.max_clock_skew
        self._page_size = PAGE_SIZE
        self._finishing: dict[str, asyncio.Task[None]] = {}  # by instance
        # Pages wait for the rollup's lock. More than one at a time would only occupy the connections of other requests.
        self._page_slot = asyncio.Semaphore(1)

    async def erase(self, instance_id: str, public_key: bytes, signed_at: datetime) -> ErasureReceipt:
        """Deletes all data of an instance at its own request. Raises Forbidden for one that is unknown or revoked."""
        begun = await self._begin(instance_id, public_key, signed_at)
        if begun:
            await self._finish(instance_id)
        receipt = await self._database.fetch_one(
            ErasureReceipt,
            "erasure.select_receipt",
            instance_id=instance_id,
            public_key=public_key,
            is_begun=begun,  # otherwise another server may have been first
        )
        if receipt is None:
            raise unknown_instance()
        return receipt

    async def delete(self, instance_id: str) -> bool:
        """Deletes all data of an instance at an admin's request. Returns False if it does not exist."""
        if not await self._begin(instance_id, None, None):
            return False
        await self._finish(instance_id)
        return True

    async def continue_deletion(self, instance_id: str, deadline: float) -> bool:
        """Deletes an instance at an admin's request, page by page up to `deadline`. Returns whether it is complete."""
        if not await self._begin(instance_id, None, None):
            return True
        return await self._continue(instance_id, deadline)

    async def resume_interrupted(self) -> bool:
        """Continues deletions and revocations whose process has ended. Returns whether there may be more.

        One that fails is recorded, and tried again later: the others do not wait for it.
        """
        interrupted = await self._database.fetch(
            _Interrupted, "erasure.select_interrupted", limit=INTERRUPTED_PAGE_SIZE
        )
        deadline = time.monotonic() + STEP_DURATION_S
        for each in interrupted:
            try:
                if each.is_revocation:
                    await self._database.execute("instances.end_series", instance_id=each.instance_id)
                elif not await self._continue(each.instance_id, deadline):
                    return True
            except Exception as error:
                if is_outage(error):
                    raise
                failure = describe_failure(each.instance_id, error)
                action = "revocation" if each.is_revocation else "deletion"
                rate_limited.warning(f"a {action} of an instance failed and is tried again later", failure)
                await self._database.execute("erasure.record_failure", instance_id=each.instance_id, error=failure)
        await self._database.execute("erasure.delete_failures")
        return len(interrupted) == INTERRUPTED_PAGE_SIZE

    async def list_failures(self, after: str | None, limit: int) -> list[FailedRemoval]:
        """Deletions and revocations that failed, by ID after an ID, the page token. Raises BadRequest."""
        try:
            after_id = None if after is None else str(UUID(after))
        except ValueError:
            raise page_tokens.invalid_page_token() from None
        return await self._database.fetch(FailedRemoval, "erasure.select_failures", after=after_id, limit=limit)

    async def purge_unproven(self) -> bool:
        """Deletes the oldest instances without a signed request. Returns whether there may be more."""
        return await self._delete_page("delete_unproven", self._pending_age, PURGE_PAGE_SIZE)

    async def delete_old_identities(self) -> bool:
        """Deletes hashes of erased instances that protect nothing any more. Returns whether there may be more."""
        return await self._delete_page(
            "delete_old_identities", self._snapshot_age + EXTRA_HASH_RETENTION, HASHES_PAGE_SIZE
        )

    async def delete_old_actions(self) -> bool:
        """Deletes hashes of actions that are too old to be repeated. Returns whether there may be more."""
        return await self._delete_page("delete_old_actions", self._clock_skew + EXTRA_HASH_RETENTION, HASHES_PAGE_SIZE)

    async def delete_old_receipts(self) -> bool:
        """Deletes receipts of erasures that nobody waits for any more. Returns whether there may be more."""
        return await self._delete_page("delete_old_receipts", self._clock_skew, HASHES_PAGE_SIZE)

    async def _delete_page(self, statement: str, age: timedelta, limit: int) -> bool:
        return await self._database.execute(f"erasure.{statement}", age=age, limit=limit) == limit

    async def _begin(self, instance_id: str, public_key: bytes | None, signed_at: datetime | None) -> bool:
        """Begins the deletion of an instance, or takes over one. Returns False if there is nothing to delete."""
        begun = await self._database.execute(
            "erasure.begin", instance_id=instance_id, public_key=public_key, signed_at=signed_at
        )
        self._keys.evict(instance_id)
        return begun > 0

    async def _finish(self, instance_id: str) -> None:
        """Deletes an instance whose deletion has begun; all requests of this process share one task."""
        finishing = self._finishing.get(instance_id)
        if finishing is None:
            finishing = asyncio.create_task(self._delete_all(instance_id))
            self._finishing[instance_id] = finishing
            finishing.add_done_callback(lambda _: self._finishing.pop(instance_id))
        await asyncio.shield(finishing)

    async def _delete_all(self, instance_id: str) -> None:
        heartbeat_at = time.monotonic()
        while not await self._continue(instance_id, time.monotonic()):
            if time.monotonic() - heartbeat_at >= HEARTBEAT_INTERVAL_S:
                await self._database.execute("erasure.record_heartbeat", instance_id=instance_id)
                heartbeat_at = time.monotonic()

    async def _continue(self, instance_id: str, deadline: float) -> bool:
        """Deletes pages of an instance whose deletion has begun, at least one, up to `deadline`.

        Returns whether the instance is deleted.
        """
        while True:
            if not await self._delete_snapshots(instance_id) and (
                await self._delete_instance(instance_id) or not await self._is_begun(instance_id)
            ):
                return True
            if time.monotonic() > deadline:
                return False

    async def _delete_snapshots(self, instance_id: str) -> bool:
        """Deletes a page of an instance's data. Returns False if there is nothing left but the instance.

        Raises QueryTooSlow. The next page is then smaller, so that the deletion makes progress.
        """
        async with self._page_slot:
            started_at = time.monotonic()
            size = self._page_size
            try:
                rows = await self._database.fetch_value(
                    int,
                    "erasure.delete_page",
                    instance_id=instance_id,
                    limit=size,
                    max_leaves=MAX_LEAVES * size // PAGE_SIZE,
                )
            except QueryTooSlow:
                self._page_size = max(1, size // 4)
                raise
            self._page_size = min(PAGE_SIZE, size * 2)
        if not rows:
            return False
        await asyncio.sleep(time.monotonic() - started_at)  # half of a core of PostgreSQL at most
        return True

    async def _delete_instance(self, instance_id: str) -> bool:
        return await self._database.execute("erasure.delete_instance", instance_id=instance_id) > 0

    async def _is_begun(self, instance_id: str) -> bool:
        return await self._database.fetch_value(bool, "erasure.is_begun", instance_id=instance_id) is True
