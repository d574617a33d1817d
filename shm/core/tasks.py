"""Background tasks with an owner: they end with a context, and their failure is the context's failure."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

# The interval at which a cancellation is repeated: aiopg, and wait_for before Python 3.12, lose a cancellation that
# arrives while a connection is being made.
CANCEL_RETRY_S = 2.0


@asynccontextmanager
async def run_in_background(*jobs: Coroutine[object, object, None]) -> AsyncIterator[None]:
    """Runs `jobs` while the context is open. The first failure of a job cancels the context and is raised from it.

    Unlike asyncio.TaskGroup, it raises the context's own exceptions unchanged and not in a group.
    """
    owner = asyncio.current_task()
    failures: list[BaseException] = []

    def record_failure(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (failure := task.exception()) is not None and owner is not None:
            failures.append(failure)
            owner.cancel()

    tasks = [asyncio.create_task(job) for job in jobs]
    for task in tasks:
        task.add_done_callback(record_failure)
    try:
        yield
    except asyncio.CancelledError:
        if failures and owner is not None:
            owner.uncancel()
            raise failures[0] from None
        raise
    finally:
        await _end(set(tasks))


async def _end(tasks: set[asyncio.Task[None]]) -> None:
    """Cancels tasks and returns once they have ended, even if the caller is cancelled meanwhile, as often as it is."""
    cancellation: asyncio.CancelledError | None = None
    while tasks:
        for task in tasks:
            task.cancel()
        try:
            await asyncio.wait(tasks, timeout=CANCEL_RETRY_S)
        except asyncio.CancelledError as error:
            cancellation = error
        tasks = {task for task in tasks if not task.done()}
    if cancellation is not None:
        raise cancellation
