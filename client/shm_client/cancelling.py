"""The end of tasks, also where a library swallows a cancellation."""

import asyncio
from collections.abc import Collection
from typing import Any, TypeVar

T = TypeVar("T")

CANCEL_RETRY_S = 2.0  # a task that has not ended by then is cancelled again


async def end_tasks(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancels tasks until all of them have ended, those included that are added to the collection meanwhile."""
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=CANCEL_RETRY_S)


async def result_of(gathered: "asyncio.Future[T]") -> T:
    """The results of `asyncio.gather`. Without this function it loses a cancellation while one of its parts fails.

    A task that has lost its cancellation runs on, and whoever waits for its end waits forever.
    """
    try:
        return await gathered
    except Exception:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError from None
        raise
