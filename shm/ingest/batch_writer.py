"""The writer of snapshots: by group commit, in which instances take turns, one statement a batch.

Snapshots with keys, values or versions that are not aggregated yet have a queue of their own: their statement takes
longer, and snapshots without any do not wait for its result.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from enum import StrEnum
from functools import partial

import msgspec

from shm.core.errors import BadRequest, Forbidden, PartitionMissing, TooManyRequests
from shm.core.instruments import Instruments
from shm.core.logs import RateLimitedLogger
from shm.core.releases import version_rank
from shm.core.settings import Settings
from shm.core.tasks import run_in_background
from shm.db.database import Database
from shm.ingest.group_commit import BatchLimits, BatchTimes, Failure, GroupCommit
from shm.ingest.key_limits import aggregation_limits
from shm.ingest.payloads import Snapshot
from shm.ingest.registry import SIGNED_BEFORE_ERASURE, Registry, unknown_instance

rate_limited = RateLimitedLogger(logging.getLogger(__name__))

# Queued snapshots of one instance, in backlogs of the maximum size: one instance cannot fill the queue for the others.
MAX_BACKLOGS_PER_INSTANCE = 2

# Leaves in one batch: as many as some hundred ordinary snapshots, or some fifteen of the maximum size, have. The time
# that a batch holds the writers' lock grows with them, and every other snapshot waits for it.
MAX_BATCH_LEAVES = 4_000

# A snapshot of many bytes counts as a leaf for each so many: arrays and long texts take time too, and are no leaves.
BYTES_PER_LEAF = 256

# The same of a batch with new keys, values or versions, whose statement takes several times as long for each leaf.
MAX_NEW_KEYS_BATCH_LEAVES = 500

_encoder = msgspec.json.Encoder()

Store = Callable[[Sequence[Snapshot]], Awaitable[Sequence["StoredRow"]]]


class Verdict(StrEnum):
    """The database's result for one snapshot; the values of the statement."""

    STORED = "stored"
    STAGED = "staged"
    PENDING = "pending"
    UNKNOWN = "unknown"
    REVOKED = "revoked"
    ERASED = "erased"
    NEW_KEYS = "new_keys"  # not stored yet: the statement that adds keys has to store it


class Outcome(StrEnum):
    """The result of an accepted snapshot. Both are committed."""

    STORED = "stored"
    REPEATED = "repeated"  # the same snapshot was stored before


class Receipt(msgspec.Struct, frozen=True):
    """The result of an accepted snapshot.

    `last_sequence`: the sequence of the instance's newest snapshot before, if this one is newer and its sequence is not
    greater. Then two processes that do not know of each other report as one instance. None otherwise.
    """

    outcome: Outcome
    last_sequence: int | None = None


class StoredRow(msgspec.Struct, frozen=True):
    """A row of the statement. `position` counts the batch from 1; `is_new`: the snapshot was not stored before."""

    position: int
    verdict: str
    is_new: bool
    last_sequence: int | None


class _SnapshotRow(msgspec.Struct, omit_defaults=True):
    """A snapshot as the statement reads it. `key_set`, `string_set`: positions in the sets of the batch, from 0."""

    instance_id: str
    public_key: bytes
    snapshot_at: datetime
    app_version: str | None
    version_rank: str | None
    sequence: int | None
    metrics: msgspec.Raw
    leaves: msgspec.Raw | None
    key_set: int
    string_set: int
    app_slug: str | None = None
    received_at: datetime | None = None


class BatchWriter:
    """Writes snapshots to the database; no other code does."""

    def __init__(
        self,
        database: Database,
        registry: Registry,
        settings: Settings,
        instruments: Instruments,
        write_lock: asyncio.Lock,
    ) -> None:
        self._database = database
        self._registry = registry
        self._instruments = instruments
        self._limits = aggregation_limits(settings)
        self._commit: GroupCommit[Snapshot, StoredRow] = GroupCommit(
            "snapshots", self._write, _limits(settings, MAX_BATCH_LEAVES), write_lock, self._observe
        )
        self._new_keys_commit: GroupCommit[Snapshot, StoredRow] = GroupCommit(
            "snapshots",
            self._write_new_keys,
            _limits(settings, MAX_NEW_KEYS_BATCH_LEAVES),
            write_lock,
            self._observe_times,
        )
        self._max_per_instance = MAX_BACKLOGS_PER_INSTANCE * settings.max_backlog
        self._pending: dict[tuple[str, datetime], asyncio.Future[StoredRow]] = {}
        self._queued_by_instance: dict[str, int] = {}

    @property
    def depth(self) -> int:
        """The number of queued snapshots."""
        return len(self._commit) + len(self._new_keys_commit)

    async def store(self, snapshot: Snapshot) -> Receipt:
        """Returns after the snapshot is committed, by this call or an earlier one.

        Raises Forbidden, BadRequest, TooManyRequests or Overloaded.
        """
        row = await self._enqueue(snapshot)
        if row.verdict != Verdict.STORED:
            (row,) = await self._resolve_verdicts([snapshot], [row])
        return _to_receipt(row)

    async def store_all(self, snapshots: Sequence[Snapshot]) -> list[Receipt | BadRequest]:
        """Stores a backlog of one instance. Returns, in its order, a receipt or the refusal of an unstorable value.

        Raises as `store` for errors that concern all snapshots.
        """
        results = await self._enqueue_all(snapshots)
        storable = [index for index, result in enumerate(results) if isinstance(result, StoredRow)]
        rows = await self._resolve_verdicts(
            [snapshots[index] for index in storable], [result for result in results if isinstance(result, StoredRow)]
        )
        receipts = dict(zip(storable, map(_to_receipt, rows), strict=True))
        return [result if isinstance(result, BadRequest) else receipts[index] for index, result in enumerate(results)]

    async def _resolve_verdicts(self, snapshots: Sequence[Snapshot], rows: Sequence[StoredRow]) -> Sequence[StoredRow]:
        """Confirms the key of a pending or staged instance once, and raises Forbidden for an unknown or revoked one.

        All snapshots are of one instance.
        """
        verdicts = {row.verdict for row in rows}
        if not verdicts - {Verdict.STORED}:
            return rows
        instance_id, public_key = snapshots[0].instance_id, snapshots[0].public_key
        signed_at = max(snapshot.snapshot_at for snapshot in snapshots)
        if Verdict.PENDING in verdicts:  # the first signed request of the instance
            if await self._registry.confirm_key(instance_id, public_key, signed_at) == Verdict.PENDING:
                raise Forbidden("not_approved", "This instance is not approved yet; its snapshots are not stored.")
            rows = [_raise_refusal(result) for result in await self._enqueue_all(snapshots)]
            verdicts = {row.verdict for row in rows}
        elif Verdict.STAGED in verdicts:  # the first one since the instance registered again or was approved
            await self._registry.confirm_key(instance_id, public_key, signed_at)
        if verdicts - {Verdict.STORED, Verdict.STAGED}:
            self._registry.evict_key(instance_id)
            raise unknown_instance()
        return rows

    async def _enqueue_all(self, snapshots: Sequence[Snapshot]) -> list[StoredRow | BadRequest]:
        results = await asyncio.gather(*(self._enqueue(snapshot) for snapshot in snapshots), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, BadRequest):
                raise result
        return results  # type: ignore[return-value]  # mypy does not see that other exceptions are raised above

    async def _enqueue(self, snapshot: Snapshot) -> StoredRow:
        """Queues a snapshot and waits for its verdict. A duplicate of a queued snapshot takes no second queue entry."""
        key = snapshot.instance_id, snapshot.snapshot_at
        while (pending := self._pending.get(key)) is not None:
            row = await asyncio.shield(pending)
            if row.verdict != Verdict.NEW_KEYS:  # else it is in the other queue now
                return _raise_erased(msgspec.structs.replace(row, is_new=False, last_sequence=None))
        queued = self._queued_by_instance.get(snapshot.instance_id, 0)
        if queued >= self._max_per_instance:
            raise TooManyRequests("rate_limited", "Too many snapshots of this instance are queued.", 1)
        result = self._pending[key] = self._commit.submit(snapshot.instance_id, snapshot)
        self._queued_by_instance[snapshot.instance_id] = queued + 1
        try:
            row = await result
            if row.verdict == Verdict.NEW_KEYS:
                result = self._pending[key] = self._new_keys_commit.submit(snapshot.instance_id, snapshot)
                row = await result
            return _raise_erased(row)
        finally:
            del self._pending[key]
            self._queued_by_instance[snapshot.instance_id] -= 1
            if not self._queued_by_instance[snapshot.instance_id]:
                del self._queued_by_instance[snapshot.instance_id]

    async def run(self) -> None:
        """The writer tasks. Runs until cancelled; cancel it only after all calls of `store` have returned."""
        async with run_in_background(self._commit.run(), self._new_keys_commit.run()):
            await asyncio.Event().wait()

    async def _write(self, batch: Sequence[Snapshot]) -> Sequence[StoredRow | Failure]:
        return await _write_weeks(partial(self._store, "intake.store_batch", {}), batch)

    async def _write_new_keys(self, batch: Sequence[Snapshot]) -> Sequence[StoredRow | Failure]:
        return await _write_weeks(partial(self._store, "intake.store_new_keys", self._limits), batch)

    async def _store(self, statement: str, limits: dict[str, int], batch: Sequence[Snapshot]) -> Sequence[StoredRow]:
        rows = await self._database.fetch(StoredRow, statement, **encode_batch(batch), is_import=False, **limits)
        return sorted(rows, key=lambda row: row.position)

    def _observe(self, times: BatchTimes) -> None:
        self._instruments.batch_size.observe(times.size)
        self._observe_times(times)

    def _observe_times(self, times: BatchTimes) -> None:
        """Without the size: snapshots with new keys are in the size of the batch that did not store them yet."""
        self._instruments.batch_wait.observe(times.wait_s)
        self._instruments.batch_commit.observe(times.commit_s)


async def _write_weeks(store: Store, batch: Sequence[Snapshot]) -> Sequence[StoredRow | Failure]:
    """Stores snapshots. If a partition is missing, only the snapshots of its week fail: a partition is a week."""
    try:
        return await store(batch)
    except PartitionMissing as error:
        rate_limited.warning("snapshots are not stored", str(error))
        failure = error.with_traceback(None)
    weeks: dict[tuple[int, int], list[int]] = {}
    for index, snapshot in enumerate(batch):
        year, week, _ = snapshot.snapshot_at.isocalendar()
        weeks.setdefault((year, week), []).append(index)
    if len(weeks) == 1:
        return [failure] * len(batch)
    results: dict[int, StoredRow | Failure] = {}
    for indexes in weeks.values():
        results |= zip(indexes, await _write_weeks(store, [batch[index] for index in indexes]), strict=True)
    return [results[index] for index in range(len(batch))]


def _limits(settings: Settings, max_leaves: int) -> BatchLimits[Snapshot]:
    return BatchLimits(settings.queue, settings.batch, weigh=_weigh, max_weight=max_leaves)


def _weigh(snapshot: Snapshot) -> int:
    return max(len(snapshot.flattened.keys), len(bytes(snapshot.flattened.metrics)) // BYTES_PER_LEAF)


def _raise_erased(row: StoredRow) -> StoredRow:
    if row.verdict == Verdict.ERASED:
        raise BadRequest("signed_before_erasure", SIGNED_BEFORE_ERASURE)
    return row


def _raise_refusal(result: StoredRow | BadRequest) -> StoredRow:
    if isinstance(result, BadRequest):
        raise result
    return result


def _to_receipt(row: StoredRow) -> Receipt:
    return Receipt(Outcome.STORED if row.is_new else Outcome.REPEATED, row.last_sequence)


def encode_batch(batch: Sequence[Snapshot]) -> dict[str, str]:
    """The batch as parameters of the statement: JSON arrays, with bytes in Base64; the order is the position."""
    key_sets: dict[tuple[str, ...], int] = {}
    string_sets: dict[tuple[tuple[str, str], ...], int] = {}
    members = [
        _SnapshotRow(
            instance_id=snapshot.instance_id,
            public_key=snapshot.public_key,
            snapshot_at=snapshot.snapshot_at,
            app_version=snapshot.app_version,
            version_rank=None if snapshot.app_version is None else version_rank(snapshot.app_version),
            sequence=snapshot.sequence,
            metrics=snapshot.flattened.metrics,
            leaves=snapshot.flattened.leaves,
            key_set=key_sets.setdefault(snapshot.flattened.keys, len(key_sets)),
            string_set=string_sets.setdefault(snapshot.flattened.strings, len(string_sets)),
            app_slug=snapshot.app_slug,
            received_at=snapshot.received_at,
        )
        for snapshot in batch
    ]
    return {
        "batch": _encoder.encode(members).decode(),
        "key_sets": _encoder.encode(list(key_sets)).decode(),
        "string_sets": _encoder.encode([dict(strings) for strings in string_sets]).decode(),
    }
