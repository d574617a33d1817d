"""Group commit: a bounded queue, one writer, one statement for each batch, and an answer only after its COMMIT.

While one batch is being committed the next one gathers, so the batch grows with the load and nobody waits for a timer.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

import msgspec

from shm.core.errors import BadRequest, DatabaseUnavailable, Forbidden, Overloaded, TooMany, UnstorableData
from shm.core.instruments import Instruments
from shm.core.logs import RateLimitedLogger
from shm.core.settings import Settings
from shm.db.database import Database
from shm.ingest.payloads import Snapshot
from shm.ingest.registry import Registry, unknown_instance

rate_limited = RateLimitedLogger(logging.getLogger(__name__))

# From so many on only half of those that wait are written at once: while PostgreSQL has one half, whoever is in the
# other is read and checked, so that neither stands still for the other. Below it a second commit would cost more.
MIN_HALVED_QUEUE = 16

MAX_BACKLOGS_PER_INSTANCE = (
    2  # of one install may wait at once: its share of the queue, so that none takes the others' places
)

_encoder = msgspec.json.Encoder()


class Verdict(StrEnum):
    """What the database made of a snapshot."""

    STORED = "stored"
    STAGED = "staged"
    PENDING = "pending"
    UNKNOWN = "unknown"
    REVOKED = "revoked"


class Outcome(StrEnum):
    """What an accepted snapshot was: both are committed now."""

    STORED = "stored"
    REPEATED = "repeated"  # it was there already


@dataclass(frozen=True, slots=True)
class _Judged:
    """A row of the statement, by its place in the batch; `fresh` where it was not there before."""

    position: int
    verdict: str
    fresh: bool


@dataclass(frozen=True, slots=True)
class _Waiting:
    snapshot: Snapshot
    judged: "asyncio.Future[_Judged]"
    since: float  # monotonic, in seconds


class BatchWriter:
    """The only way of a snapshot into the database."""

    def __init__(self, database: Database, registry: Registry, settings: Settings, instruments: Instruments) -> None:
        self._database = database
        self._registry = registry
        self._instruments = instruments
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(settings.queue)
        self._batch = settings.batch
        self._most_of_one = MAX_BACKLOGS_PER_INSTANCE * settings.max_backlog
        self._waiting: dict[tuple[str, datetime], asyncio.Future[_Judged]] = {}
        self._shares: dict[str, int] = {}  # places in the queue, by instance

    @property
    def depth(self) -> int:
        """How many snapshots wait for a batch."""
        return self._queue.qsize()

    async def store(self, snapshot: Snapshot) -> Outcome:
        """Returns once the snapshot is committed, or was before.

        Raises Forbidden, BadRequest, TooMany or Overloaded.
        """
        judged = await self._judge(snapshot)
        if judged.verdict != Verdict.STORED:
            (judged,) = await self._settle([snapshot], [judged])
        return _outcome(judged)

    async def store_all(self, snapshots: Sequence[Snapshot]) -> list[Outcome | BadRequest]:
        """As `store`, for what one install sends at once: each outcome in its place, or why a value was refused.

        What concerns all of them is raised.
        """
        judged = await self._judge_all(snapshots)
        readable = [place for place, each in enumerate(judged) if isinstance(each, _Judged)]
        settled = await self._settle(
            [snapshots[place] for place in readable], [each for each in judged if isinstance(each, _Judged)]
        )
        outcomes = dict(zip(readable, map(_outcome, settled), strict=True))
        return [each if isinstance(each, BadRequest) else outcomes[place] for place, each in enumerate(judged)]

    async def _settle(self, snapshots: Sequence[Snapshot], judged: Sequence[_Judged]) -> Sequence[_Judged]:
        """Proves the install where it has to be, once, and refuses one that is not known. All are of one install."""
        verdicts = {each.verdict for each in judged}
        if not verdicts - {Verdict.STORED}:
            return judged
        who = snapshots[0]
        if Verdict.PENDING in verdicts:  # its first signed request
            if await self._registry.confirm_key(who.instance_id, who.public_key) == Verdict.PENDING:
                raise Forbidden("not_approved", "This instance waits for approval; its snapshots are not kept yet.")
            judged = [_judged(each) for each in await self._judge_all(snapshots)]
            verdicts = {each.verdict for each in judged}
        elif Verdict.STAGED in verdicts:  # its first since it registered anew, or was approved
            await self._registry.confirm_key(who.instance_id, who.public_key)
        if verdicts - {Verdict.STORED, Verdict.STAGED}:
            self._registry.evict_key(who.instance_id)
            raise unknown_instance()
        return judged

    async def _judge_all(self, snapshots: Sequence[Snapshot]) -> list[_Judged | BadRequest]:
        found = await asyncio.gather(*(self._judge(snapshot) for snapshot in snapshots), return_exceptions=True)
        for each in found:
            if isinstance(each, BaseException) and not isinstance(each, BadRequest):
                raise each
        return found  # type: ignore[return-value]  # mypy does not see that the rest has been raised

    async def _judge(self, snapshot: Snapshot) -> _Judged:
        """Queues it. One that waits already, because it is sent again and again, takes no second place."""
        key = snapshot.instance_id, snapshot.snapshot_at
        same = self._waiting.get(key)
        if same is not None:
            return replace(await asyncio.shield(same), fresh=False)
        share = self._shares.get(snapshot.instance_id, 0)
        if share >= self._most_of_one:
            raise TooMany("rate_limited", "Too many snapshots of this instance are under way.", 1)
        waiting = _Waiting(snapshot, asyncio.get_running_loop().create_future(), time.monotonic())
        try:
            self._queue.put_nowait(waiting)
        except asyncio.QueueFull:
            raise Overloaded("queue_full", "More snapshots come in than can be written; try again shortly.") from None
        self._waiting[key] = waiting.judged
        self._shares[snapshot.instance_id] = share + 1
        try:
            return await waiting.judged
        finally:
            del self._waiting[key]
            self._shares[snapshot.instance_id] -= 1
            if not self._shares[snapshot.instance_id]:
                del self._shares[snapshot.instance_id]

    async def run(self) -> None:
        """The writer. Runs until cancelled; cancel it only when nobody waits in `store` any more."""
        while True:
            first = await self._queue.get()
            waiting = self._queue.qsize()
            most = waiting if waiting < MIN_HALVED_QUEUE else waiting // 2
            batch = [first, *self._taken(min(most, self._batch - 1))]
            began = time.monotonic()
            self._instruments.batch_size.observe(len(batch))
            self._instruments.batch_wait.observe(began - first.since)
            await self._write(batch)
            self._instruments.batch_commit.observe(time.monotonic() - began)

    def _taken(self, most: int) -> list[_Waiting]:
        """Takes at most `most` out of the queue."""
        return [self._queue.get_nowait() for _ in range(min(most, self._queue.qsize()))]

    async def _write(self, batch: Sequence[_Waiting]) -> None:
        try:
            judged = await self._database.fetch(_Judged, "intake.store_batch", batch=_encode(batch))
        except UnstorableData as error:
            await self._write_apart(batch, error)
        except DatabaseUnavailable as error:  # whoever came in since has waited through it too, and is told with them
            _fail([*batch, *self._taken(self._queue.qsize())], error)
        except Exception as error:  # whatever it is, nobody may wait for ever
            _fail(batch, error)
            rate_limited.exception("a batch of snapshots could not be written")
        else:
            for row in judged:
                waiting = batch[row.position - 1].judged
                if not waiting.done():
                    waiting.set_result(row)

    async def _write_apart(self, batch: Sequence[_Waiting], error: UnstorableData) -> None:
        """A member that PostgreSQL refuses must not take its neighbours with it: halves, until it stands alone."""
        if len(batch) == 1:
            rate_limited.warning("a snapshot passed the envelope but not the database", str(error))
            _fail(batch, BadRequest("unstorable", "A value of this snapshot cannot be stored."))
            return
        half = len(batch) // 2
        await self._write(batch[:half])
        await self._write(batch[half:])


def _judged(each: _Judged | BadRequest) -> _Judged:
    if isinstance(each, BadRequest):
        raise each
    return each


def _outcome(judged: _Judged) -> Outcome:
    return Outcome.STORED if judged.fresh else Outcome.REPEATED


def _fail(batch: Sequence[_Waiting], error: Exception) -> None:
    for waiting in batch:
        if not waiting.judged.done():
            waiting.judged.set_exception(error)


def _encode(batch: Sequence[_Waiting]) -> str:
    """A JSON array of snapshots, bytes in Base64; a member's position is its place in it."""
    return _encoder.encode([waiting.snapshot for waiting in batch]).decode()
