"""Group commit: each item gets its own result, whatever happens to the others in its batch."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from shm.core.errors import BadRequest, DatabaseUnavailable, Overloaded, UnstorableData
from shm.core.tasks import run_in_background
from shm.ingest.group_commit import BatchLimits, BatchTimes, GroupCommit


class Batches:
    """Records the batches that are written, and squares their items."""

    def __init__(self) -> None:
        self.written: list[list[int]] = []
        self.times: list[BatchTimes] = []
        self.unstorable: set[int] = set()
        self.failure: Exception | None = None

    async def write(self, items: Sequence[int]) -> list[int | BadRequest]:
        await asyncio.sleep(0)
        self.written.append(list(items))
        if self.failure is not None:
            raise self.failure
        if self.unstorable & set(items):
            raise UnstorableData("a value")
        return [item * item for item in items]


@asynccontextmanager
async def running(batches: Batches, limits: BatchLimits[int]) -> AsyncIterator[GroupCommit[int, int]]:
    """A queue whose writer starts at the first await after the context is entered."""
    commit: GroupCommit[int, int] = GroupCommit("items", batches.write, limits, asyncio.Lock(), batches.times.append)
    async with run_in_background(commit.run()):
        yield commit


async def test_items_are_written_together_and_get_their_results() -> None:
    batches = Batches()
    async with running(batches, BatchLimits(100, 10)) as commit:
        results = [commit.submit(str(number), number) for number in range(10)]
        assert await asyncio.gather(*results) == [number * number for number in range(10)]
    assert batches.written == [list(range(10))]
    assert [times.size for times in batches.times] == [10]


async def test_a_long_queue_is_halved_up_to_the_largest_batch() -> None:
    batches = Batches()
    async with running(batches, BatchLimits(100, 30)) as commit:
        await asyncio.gather(*(commit.submit(str(number), number) for number in range(80)))
    assert [len(batch) for batch in batches.written] == [30, 25, 13, 12]


async def test_a_batch_of_distinct_keys_takes_one_item_of_each() -> None:
    batches = Batches()
    async with running(batches, BatchLimits(100, 10, is_distinct=True)) as commit:
        keys = ["a", "a", "b", "a", "c"]
        await asyncio.gather(*(commit.submit(key, number) for number, key in enumerate(keys)))
    assert batches.written == [[0, 2, 4], [1], [3]]


async def test_a_batch_ends_with_the_item_that_reaches_its_weight() -> None:
    batches = Batches()
    async with running(batches, BatchLimits(100, 10, weigh=lambda item: item, max_weight=5)) as commit:
        await asyncio.gather(*(commit.submit(str(item), item) for item in (2, 9, 1, 1)))
    assert batches.written == [[2, 9], [1, 1]]


async def test_an_unstorable_item_fails_alone() -> None:
    batches = Batches()
    batches.unstorable = {3, 8}
    async with running(batches, BatchLimits(100, 10)) as commit:
        results = await asyncio.gather(
            *(commit.submit(str(number), number) for number in range(10)), return_exceptions=True
        )
    assert [number for number, result in enumerate(results) if isinstance(result, BadRequest)] == [3, 8]
    assert [result for result in results if isinstance(result, int)] == [0, 1, 4, 16, 25, 36, 49, 81]


async def test_items_that_wait_behind_a_failed_batch_fail_with_it() -> None:
    batches = Batches()
    batches.failure = DatabaseUnavailable("gone")
    async with running(batches, BatchLimits(100, 1)) as commit:
        results = [commit.submit(str(number), number) for number in range(5)]
        failures = await asyncio.gather(*results, return_exceptions=True)
        assert [type(failure) for failure in failures] == [DatabaseUnavailable] * 5
        assert batches.written == [[0]]
        batches.failure = None
        assert await commit.submit("a", 7) == 49


async def test_any_other_failure_reaches_its_batch_only() -> None:
    batches = Batches()
    batches.failure = RuntimeError("a defect")
    async with running(batches, BatchLimits(100, 1)) as commit:
        failed = commit.submit("a", 1)
        with pytest.raises(RuntimeError):
            await failed
        batches.failure = None
        assert await commit.submit("a", 2) == 4


async def test_a_full_queue_refuses() -> None:
    batches = Batches()
    async with running(batches, BatchLimits(2, 10)) as commit:
        results = [commit.submit("a", number) for number in (1, 2)]
        with pytest.raises(Overloaded):
            commit.submit("b", 3)
        assert await asyncio.gather(*results) == [1, 4]


async def test_an_item_whose_request_was_cancelled_harms_no_other() -> None:
    batches = Batches()
    async with running(batches, BatchLimits(100, 10)) as commit:
        cancelled, other = commit.submit("a", 1), commit.submit("b", 2)
        cancelled.cancel()
        assert await other == 4


async def test_queues_with_a_common_turn_alternate() -> None:
    batches, write_lock = Batches(), asyncio.Lock()
    queues: list[GroupCommit[int, int]] = [
        GroupCommit("items", batches.write, BatchLimits(100, 1), write_lock) for _ in range(2)
    ]
    async with run_in_background(*(queue.run() for queue in queues)):
        first = [queues[0].submit("a", number) for number in range(3)]
        second = [queues[1].submit("a", number) for number in range(10, 13)]
        await asyncio.gather(*first, *second)
    assert batches.written == [[0], [10], [1], [11], [2], [12]]
