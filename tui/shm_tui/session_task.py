"""The task of the current session. An unexpected exception restarts the session and does not end the console."""

import asyncio

from shm_tui.model.live_session import LiveSession
from shm_tui.widgets.footer import Footer

RESTART_DELAY_S = 1.0  # after an exception in the session


class SessionTask:
    """Runs one session at a time."""

    def __init__(self, footer: Footer) -> None:
        self._footer = footer
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, session: LiveSession) -> None:
        """Runs this session, and ends the previous one."""
        for task in self._tasks:
            task.cancel()
        task = asyncio.create_task(self._run(session))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Ends the session."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, session: LiveSession) -> None:
        while True:
            try:
                await session.run()
            except Exception as error:
                self._footer.show_message(f"internal error ({error!r:.80}), restarting")
                await asyncio.sleep(RESTART_DELAY_S)
