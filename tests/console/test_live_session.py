"""A live session that is restarted after an exception shows the current instances."""

import asyncio
from contextlib import suppress

from shm_client import Client
from shm_tui.model.live_session import LiveSession
from tests.support.installs import Install
from tests.support.server_process import ServerProcess
from tests.support.signed_actions import act

TIMEOUT_S = 30


class DrawingError(Exception):
    """An exception while the screen is drawn."""


async def test_a_restarted_session_drops_instances_erased_meanwhile(server: ServerProcess) -> None:
    installs = [Install(server.url).enroll({"n": number}) for number in range(5)]
    errors = [DrawingError()]

    def on_change() -> None:
        session.store.flush(session.clock())
        if errors and len(session.store.rows) == len(installs):
            raise errors.pop()

    async with Client(server.url, server.admin_token) as client, asyncio.timeout(TIMEOUT_S):
        session = LiveSession(client, "ledger", on_change)
        with suppress(ExceptionGroup):
            await session.run()
        assert not errors
        await asyncio.to_thread(act, installs.pop(), "erase")
        task = asyncio.create_task(session.run())
        while session.store.rows.keys() != {install.instance_id for install in installs}:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait([task])
