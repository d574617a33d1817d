"""The task of a session. An unexpected exception restarts the session and does not end the console."""

import asyncio
from typing import Protocol

from shm_client.cancelling import end_tasks
from shm_tui.widgets.footer import Footer

RESTART_DELAY_S = 1.0  # after an exception in the session


class Session(Protocol):
    """Keeps data up to date while it runs."""

    async def run(self) -> None:
        """Runs until it is cancelled, or has nothing more to do."""


class SessionTask:
    """Runs one session at a time."""

    def __init__(self, footer: Footer) -> None:
        self._footer = footer
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, session: Session) -> None:
        """Runs this session, and ends the previous one."""
        self.cancel()
        task = asyncio.create_task(self._run(session))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def cancel(self) -> None:
        """Ends the session soon."""
        for task in self._tasks:
            task.cancel()

    async def stop(self) -> None:
        """Ends the session, and waits for its end."""
        await end_tasks(self._tasks)

    async def _run(self, session: Session) -> None:
        while True:
            try:
                await session.run()
            except Exception as error:
                self._footer.show_message(f"internal error ({error!r:.80}), restarting")
                await asyncio.sleep(RESTART_DELAY_S)
            else:
                return
