"""Group commit: a bounded queue, one writer, one statement for each batch, and an answer only after its COMMIT.

While one batch is being committed the next one gathers, so the batch grows with the load and nobody waits for a timer.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from shm.database import Database
from shm.envelope import Snapshot
from shm.errors import BadRequest, DatabaseUnavailable, Forbidden, Overloaded, Refusal, UnstorableData
from shm.logs import Sparingly
from shm.registry import Registry, unknown_instance
from shm.settings import Settings

sparingly = Sparingly(logging.getLogger(__name__))

# From so many on only half of those that wait are written at once: while PostgreSQL has one half, whoever is in the
# other is read and checked, so that neither stands still for the other. Below it a second commit would cost more.
WORTH_HALVING = 16

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


class Intake:
    """The only way of a snapshot into the database."""

    def __init__(self, database: Database, registry: Registry, settings: Settings) -> None:
        self._database = database
        self._registry = registry
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(settings.queue)
        self._batch = settings.batch

    async def store(self, snapshot: Snapshot) -> Outcome:
        """Returns once the snapshot is committed, or was before. Raises Forbidden, BadRequest or Overloaded."""
        judged = await self._enqueue(snapshot)
        if judged.verdict == Verdict.PENDING:  # its first signed request
            if await self._registry.prove(snapshot.instance_id, snapshot.public_key) == Verdict.PENDING:
                raise Forbidden("not_approved", "This instance waits for approval; its snapshots are not kept yet.")
            judged = await self._enqueue(snapshot)
        elif judged.verdict == Verdict.STAGED:  # its first since it registered anew
            await self._registry.prove(snapshot.instance_id, snapshot.public_key)
        if judged.verdict not in (Verdict.STORED, Verdict.STAGED):
            self._registry.forget(snapshot.instance_id)
            raise unknown_instance()
        return Outcome.STORED if judged.fresh else Outcome.REPEATED

    async def store_all(self, snapshots: Sequence[Snapshot]) -> list[Outcome | Refusal]:
        """As `store`, for what one install sends at once: each outcome in its place, or why a value was refused.

        What concerns all of them is raised.
        """
        found = await asyncio.gather(*(self.store(snapshot) for snapshot in snapshots), return_exceptions=True)
        for outcome in found:
            if isinstance(outcome, BaseException) and not isinstance(outcome, BadRequest):
                raise outcome
        return found  # type: ignore[return-value]  # mypy does not see that the rest has been raised

    def _enqueue(self, snapshot: Snapshot) -> "asyncio.Future[_Judged]":
        waiting = _Waiting(snapshot, asyncio.get_running_loop().create_future())
        try:
            self._queue.put_nowait(waiting)
        except asyncio.QueueFull:
            raise Overloaded("queue_full", "More snapshots come in than can be written; try again shortly.") from None
        return waiting.judged

    async def run(self) -> None:
        """The writer. Runs until cancelled; cancel it only when nobody waits in `store` any more."""
        while True:
            first = await self._queue.get()
            waiting = self._queue.qsize()
            most = waiting if waiting < WORTH_HALVING else waiting // 2
            await self._write([first, *self._taken(min(most, self._batch - 1))])

    def _taken(self, most: int) -> list[_Waiting]:
        """Takes at most `most` out of the queue."""
        return [self._queue.get_nowait() for _ in range(min(most, self._queue.qsize()))]

    async def _write(self, batch: Sequence[_Waiting]) -> None:
        try:
            judged = await self._database.fetch(_Judged, "intake.store", batch=_encode(batch))
        except UnstorableData as error:
            await self._write_apart(batch, error)
        except DatabaseUnavailable as error:  # whoever came in since has waited through it too, and is told with them
            _fail([*batch, *self._taken(self._queue.qsize())], error)
        except Exception as error:  # whatever it is, nobody may wait for ever
            _fail(batch, error)
            sparingly.exception("a batch of snapshots could not be written")
        else:
            for row in judged:
                waiting = batch[row.position - 1].judged
                if not waiting.done():
                    waiting.set_result(row)

    async def _write_apart(self, batch: Sequence[_Waiting], error: UnstorableData) -> None:
        """A member that PostgreSQL refuses must not take its neighbours with it: halves, until it stands alone."""
        if len(batch) == 1:
            sparingly.warning("a snapshot passed the envelope but not the database", str(error))
            _fail(batch, BadRequest("unstorable", "A value of this snapshot cannot be stored."))
            return
        half = len(batch) // 2
        await self._write(batch[:half])
        await self._write(batch[half:])


def _fail(batch: Sequence[_Waiting], error: Exception) -> None:
    for waiting in batch:
        if not waiting.judged.done():
            waiting.judged.set_exception(error)


def _encode(batch: Sequence[_Waiting]) -> str:
    """A JSON array of snapshots, bytes in Base64; a member's position is its place in it."""
    return _encoder.encode([waiting.snapshot for waiting in batch]).decode()
