"""What keeps the console's rows true: also after a fault of its own, with which it began anew."""

import asyncio
from contextlib import suppress

from shm_client import Client
from shm_tui.model.live_session import LiveSession
from tests.support.installs import Install
from tests.support.server_process import ServerProcess
from tests.support.signed_actions import act

LIMIT_S = 30


class Fault(Exception):
    """Of a screen that could not be drawn."""


async def test_after_a_fault_what_vanished_meanwhile_is_not_held_any_more(server: ServerProcess) -> None:
    installs = [Install(server.url).enroll({"n": number}) for number in range(5)]
    faults = [Fault()]

    def changed() -> None:
        watch.store.flush(watch.clock())
        if faults and len(watch.store.rows) == len(installs):
            raise faults.pop()

    async with Client(server.url, server.admin_token) as client, asyncio.timeout(LIMIT_S):
        watch = LiveSession(client, "ledger", changed)
        with suppress(ExceptionGroup):
            await watch.run()
        assert not faults
        await asyncio.to_thread(act, installs.pop(), "erase")
        running = asyncio.create_task(watch.run())
        while watch.store.rows.keys() != {install.instance_id for install in installs}:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        running.cancel()
        await asyncio.wait([running])
