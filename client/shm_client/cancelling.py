"""The end of tasks, also of those in which a library swallows a cancellation."""

import asyncio
from collections.abc import Collection
from typing import Any

CANCEL_RETRY_S = 2.0  # a task that has not ended by then is cancelled again


async def end_tasks(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancels tasks until all of them have ended, those included that are added to the collection meanwhile."""
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=CANCEL_RETRY_S)
