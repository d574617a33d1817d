"""A cancelled task ends, whatever fails at the same moment."""

import asyncio

import pytest

from shm_client.cancelling import result_of


@pytest.mark.parametrize("moment", range(5))
async def test_a_cancellation_is_not_lost_while_a_part_fails(moment: int) -> None:
    failure, failed = asyncio.get_running_loop().create_future(), False

    async def fail() -> None:
        await failure

    async def gather() -> None:
        nonlocal failed
        try:
            await result_of(asyncio.gather(fail(), asyncio.sleep(60)))
        except ValueError:
            failed = True
            raise

    task = asyncio.create_task(gather())
    await asyncio.sleep(0.01)
    failure.set_exception(ValueError())
    for _ in range(moment):
        await asyncio.sleep(0)
    was_failed = failed
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() is not was_failed
