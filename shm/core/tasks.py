"""Tasks that run beside something, and end with it; whatever they fail with, that something fails with."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

# Told again to end: aiopg, and wait_for before Python 3.12, lose a cancellation that comes as a connection is made.
CANCEL_RETRY_S = 2.0


@asynccontextmanager
async def run_in_background(*jobs: Coroutine[object, object, None]) -> AsyncIterator[None]:
    """Runs `jobs` as long as the context; one that fails cancels the context and comes out of it.

    As asyncio.TaskGroup, but the context's own exceptions come out as they are and not in a group.
    """
    owner = asyncio.current_task()
    failures: list[BaseException] = []

    def watch(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (failure := task.exception()) is not None and owner is not None:
            failures.append(failure)
            owner.cancel()

    tasks = [asyncio.create_task(job) for job in jobs]
    for task in tasks:
        task.add_done_callback(watch)
    try:
        yield
    except asyncio.CancelledError:
        if failures and owner is not None:
            owner.uncancel()
            raise failures[0] from None
        raise
    finally:
        running = set(tasks)
        while running:
            for task in running:
                task.cancel()
            _, running = await asyncio.wait(running, timeout=CANCEL_RETRY_S)
