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
from shm.errors import BadRequest, Forbidden, Overloaded, ShmError, UnstorableData
from shm.registry import Registry, unknown_instance
from shm.settings import Settings

logger = logging.getLogger(__name__)

_encoder = msgspec.json.Encoder()


class Verdict(StrEnum):
    """What the database made of a snapshot."""

    STORED = "stored"
    STAGED = "staged"
    PENDING = "pending"
    UNKNOWN = "unknown"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class _Judged:
    position: int
    verdict: str


@dataclass(frozen=True, slots=True)
class _Waiting:
    snapshot: Snapshot
    verdict: "asyncio.Future[Verdict]"


class Intake:
    """The only way of a snapshot into the database."""

    def __init__(self, database: Database, registry: Registry, settings: Settings) -> None:
        self._database = database
        self._registry = registry
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(settings.queue)
        self._batch = settings.batch

    async def store(self, snapshot: Snapshot) -> None:
        """Returns once the snapshot is committed, or was before. Raises Forbidden, BadRequest or Overloaded."""
        verdict = await self._enqueue(snapshot)
        if verdict is Verdict.PENDING:  # its first signed request
            if await self._registry.prove(snapshot.instance_id, snapshot.public_key) == Verdict.PENDING:
                raise Forbidden("not_approved", "This instance waits for approval; its snapshots are not kept yet.")
            verdict = await self._enqueue(snapshot)
        elif verdict is Verdict.STAGED:  # its first since it registered anew
            await self._registry.prove(snapshot.instance_id, snapshot.public_key)
        if verdict not in (Verdict.STORED, Verdict.STAGED):
            self._registry.forget(snapshot.instance_id)
            raise unknown_instance()

    async def _enqueue(self, snapshot: Snapshot) -> Verdict:
        waiting = _Waiting(snapshot, asyncio.get_running_loop().create_future())
        try:
            self._queue.put_nowait(waiting)
        except asyncio.QueueFull:
            raise Overloaded("queue_full", "More snapshots come in than can be written; try again shortly.") from None
        return await waiting.verdict

    async def run(self) -> None:
        """The writer. Runs until cancelled; cancel it only when nobody waits in `store` any more."""
        while True:
            batch = [await self._queue.get()]
            while len(batch) < self._batch and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            await self._write(batch)

    async def _write(self, batch: Sequence[_Waiting]) -> None:
        try:
            judged = await self._database.fetch(_Judged, "intake.store", batch=_encode(batch))
        except UnstorableData as error:
            await self._write_apart(batch, error)
        except ShmError as error:
            _fail(batch, error)
        except Exception as error:  # whatever it is, nobody may wait for ever
            _fail(batch, error)
            logger.exception("a batch of %d snapshots could not be written", len(batch))
        else:
            for row in judged:
                waiting = batch[row.position].verdict
                if not waiting.done():
                    waiting.set_result(Verdict(row.verdict))

    async def _write_apart(self, batch: Sequence[_Waiting], error: UnstorableData) -> None:
        """A member that PostgreSQL refuses must not take its neighbours with it: halves, until it stands alone."""
        if len(batch) == 1:
            logger.warning("a snapshot passed the envelope but not the database (%s)", error)
            _fail(batch, BadRequest("unstorable", "A value of this snapshot cannot be stored."))
            return
        half = len(batch) // 2
        await self._write(batch[:half])
        await self._write(batch[half:])


def _fail(batch: Sequence[_Waiting], error: Exception) -> None:
    for waiting in batch:
        if not waiting.verdict.done():
            waiting.verdict.set_exception(error)


def _encode(batch: Sequence[_Waiting]) -> str:
    members = [
        {
            "position": position,
            "instance_id": waiting.snapshot.instance_id,
            "public_key": waiting.snapshot.public_key.hex(),
            "snapshot_at": waiting.snapshot.snapshot_at,
            "app_version": waiting.snapshot.app_version,
            "sequence": waiting.snapshot.sequence,
            "metrics": waiting.snapshot.metrics,
            "leaves": waiting.snapshot.leaves,
        }
        for position, waiting in enumerate(batch)
    ]
    return _encoder.encode(members).decode()
