"""The queue of snapshots, in which instances take turns."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm.ingest.fair_queue import FairQueue


def test_a_key_with_many_items_delays_nobody_else() -> None:
    queue: FairQueue[str] = FairQueue(100)
    for number in range(5):
        queue.put("many", f"many {number}")
    queue.put("one", "one")
    assert [queue.take() for _ in range(len(queue))] == ["many 0", "one", *(f"many {number}" for number in range(1, 5))]


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc"))))
def test_all_items_of_a_key_come_once_and_in_their_order(steps: list[tuple[bool, str]]) -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue(1_000)
    put: list[tuple[str, int]] = []
    taken: list[tuple[str, int]] = []
    for is_put, key in steps:
        if is_put:
            put.append((key, len(put)))
            queue.put(key, put[-1])
        elif queue:
            taken.append(queue.take())
    taken += [queue.take() for _ in range(len(queue))]
    for key in "abc":
        assert [item for item in taken if item[0] == key] == [item for item in put if item[0] == key]
    assert len(taken) == len(put)


async def test_a_full_queue_refuses_and_an_empty_one_waits() -> None:
    queue: FairQueue[int] = FairQueue(1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.wait(), 0.01)
    queue.put("a", 1)
    with pytest.raises(asyncio.QueueFull):
        queue.put("b", 2)
    await queue.wait()
    assert queue.take() == 1
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.wait(), 0.01)
