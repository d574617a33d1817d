"""Background tasks end with their context."""

import asyncio

import pytest

from shm.core import tasks
from shm.core.tasks import run_in_background

LOST_CANCELLATIONS = 4


async def lose_cancellations(ended: list[str]) -> None:
    """Ends at the fifth cancellation, as a task does that makes several connections with aiopg."""
    for _ in range(LOST_CANCELLATIONS):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            continue
    try:
        await asyncio.sleep(60)
    finally:
        ended.append("job")


async def test_a_context_waits_for_the_jobs_of_the_contexts_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The outer one repeats its cancellation while the inner one still waits for a job."""
    monkeypatch.setattr(tasks, "CANCEL_RETRY_S", 0.01)
    ended: list[str] = []

    async def run_inner() -> None:
        async with run_in_background(lose_cancellations(ended)):
            await asyncio.sleep(60)

    async with run_in_background(run_inner()):
        await asyncio.sleep(0.01)
    assert ended == ["job"]


async def test_the_failure_of_a_job_is_that_of_its_context() -> None:
    async def fail() -> None:
        raise ValueError("failed")

    with pytest.raises(ValueError, match="failed"):
        async with run_in_background(fail()):
            await asyncio.sleep(60)


async def test_a_cancellation_during_the_end_of_a_context_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "CANCEL_RETRY_S", 0.01)
    ended: list[str] = []
    is_ending = asyncio.Event()

    async def run() -> None:
        async with run_in_background(lose_cancellations(ended)):
            await asyncio.sleep(0)
            is_ending.set()

    running = asyncio.create_task(run())
    await is_ending.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended == ["job"]
