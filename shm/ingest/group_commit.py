"""Group commit: requests wait in a bounded queue, and one statement writes many of them in one transaction.

Results follow the COMMIT. The next batch accumulates during the commit of the current one. The batch size follows the
load, without a timer. Queues with a common `write_lock` write alternately: all of them need the writers' lock in
PostgreSQL, which only one statement at a time can hold.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from shm.core.errors import BadRequest, DatabaseUnavailable, Overloaded, PartitionMissing, UnstorableData
from shm.core.logs import RateLimitedLogger
from shm.ingest.fair_queue import FairQueue

rate_limited = RateLimitedLogger(logging.getLogger(__name__))

# With at least this many requests in the queue, a batch takes half of them: PostgreSQL writes one half while Python
# parses and verifies further requests. In a shorter queue, a second commit costs more than it saves.
MIN_HALVED_QUEUE = 16

T = TypeVar("T")
R = TypeVar("R")

Failure = BadRequest | PartitionMissing  # of one item

Write = Callable[[Sequence[T]], Awaitable[Sequence[R | Failure]]]


@dataclass(frozen=True, slots=True)
class BatchLimits(Generic[T]):
    """Limits of a queue and of a batch.

    `weigh`: what an item adds to `max_weight`, beyond which a batch takes no more. `is_distinct`: a batch takes one
    item of each key; the others wait for the next one.
    """

    max_queue: int
    max_batch: int
    weigh: Callable[[T], int] = lambda item: 1
    max_weight: float = math.inf
    is_distinct: bool = False


@dataclass(frozen=True, slots=True)
class BatchTimes:
    """The size of a written batch and its times in seconds."""

    size: int
    wait_s: float  # of its first item, until the write began
    commit_s: float


class _Entry(msgspec.Struct, Generic[T, R], frozen=True):
    item: T
    result: "asyncio.Future[R]"
    queued_at: float  # time.monotonic(), in seconds


class GroupCommit(Generic[T, R]):
    """Writes submitted items with `write`, which returns a result for each in their order."""

    def __init__(
        self,
        item_name: str,
        write: "Write[T, R]",
        limits: BatchLimits[T],
        write_lock: asyncio.Lock,
        observe: Callable[[BatchTimes], None] = lambda times: None,
    ) -> None:
        self._item_name = item_name  # for messages: "snapshots"
        self._write = write
        self._limits = limits
        self._write_lock = write_lock
        self._observe = observe
        self._queue: FairQueue[_Entry[T, R]] = FairQueue(limits.max_queue)

    def __len__(self) -> int:
        return len(self._queue)

    def submit(self, key: str, item: T) -> "asyncio.Future[R]":
        """Queues an item; items with the same key are written in their order. Raises Overloaded."""
        entry: _Entry[T, R] = _Entry(item, asyncio.get_running_loop().create_future(), time.monotonic())
        try:
            self._queue.put(key, entry)
        except asyncio.QueueFull:
            raise Overloaded(
                "queue_full", "Requests arrive faster than they can be written; try again shortly."
            ) from None
        return entry.result

    async def run(self) -> None:
        """The writer task. Runs until cancelled; cancel it only after all results are set."""
        while True:
            await self._queue.wait()
            async with self._write_lock:
                await self._write_next()

    async def _write_next(self) -> None:
        batch = self._take_batch()
        started_at = time.monotonic()
        await self._write_batch(batch)
        wait_s = started_at - min(entry.queued_at for entry in batch)
        self._observe(BatchTimes(len(batch), wait_s, time.monotonic() - started_at))

    def _take_batch(self) -> list[_Entry[T, R]]:
        queued = self._queue.key_count if self._limits.is_distinct else len(self._queue)
        max_count = queued if queued <= MIN_HALVED_QUEUE else (queued + 1) // 2
        max_weight = self._limits.max_weight
        taken: list[_Entry[T, R]] = []
        while len(taken) < min(max_count, self._limits.max_batch) and max_weight > 0:
            taken.append(self._queue.take())
            max_weight -= self._limits.weigh(taken[-1].item)
        return taken

    async def _write_batch(self, batch: Sequence[_Entry[T, R]]) -> None:
        try:
            results = await write_isolated(self._item_name, self._write, [entry.item for entry in batch])
        except DatabaseUnavailable as error:  # requests queued during the failed wait fail with the batch
            _fail([*batch, *(self._queue.take() for _ in range(len(self._queue)))], error)
        except Exception as error:  # any other error must reach the callers too, which would otherwise wait forever
            _fail(batch, error)
            rate_limited.exception(f"a batch of {self._item_name} could not be written")
        else:
            for entry, result in zip(batch, results, strict=True):
                if isinstance(result, BadRequest | PartitionMissing):
                    _fail([entry], result)
                elif not entry.result.done():
                    entry.result.set_result(result)


async def write_isolated(item_name: str, write: "Write[T, R]", items: Sequence[T]) -> Sequence[R | Failure]:
    """Calls `write`. If PostgreSQL cannot store a value, halves the items until the refused one is the only one.

    So no other fails. Returns a result or a refusal for each item, in their order.
    """
    try:
        return await write(items)
    except UnstorableData as error:
        if len(items) == 1:
            rate_limited.warning(f"PostgreSQL refused one of the {item_name} that had passed validation", str(error))
            return [BadRequest("unstorable", "A value of this request cannot be stored.")]
    half = len(items) // 2
    return [
        *await write_isolated(item_name, write, items[:half]),
        *await write_isolated(item_name, write, items[half:]),
    ]


def _fail(batch: "Sequence[_Entry[T, R]]", error: Exception) -> None:
    for entry in batch:
        if not entry.result.done():
            entry.result.set_exception(error)
