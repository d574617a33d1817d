"""A live session: one that is restarted after an exception shows the current instances, a paused one what it had."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest

from shm_client import Client
from shm_tui.command import make_client
from shm_tui.model import pacing, tile_session
from shm_tui.model.live_session import LiveSession
from shm_tui.model.tile_session import TileRequest, TileSession
from tests.support.fault_proxy import run_fault_proxy
from tests.support.installs import Install
from tests.support.server_process import ServerProcess
from tests.support.signed_actions import act

TIMEOUT_S = 60


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


async def test_a_paused_session_holds_rows_ages_and_counts(server: ServerProcess) -> None:
    Install(server.url).enroll({"sent": 1})
    changed = asyncio.Event()

    async def wait_for(*texts: Callable[[], object]) -> None:
        while not all(condition() for condition in texts):
            changed.clear()
            await changed.wait()
            session.store.flush(session.clock())

    def shown() -> tuple[object, ...]:
        session.store.flush(session.clock())
        return session.clock(), session.kpis, session.total(), session.overview.stats, list(session.store.visible_ids)

    async with Client(server.url, server.admin_token) as client, asyncio.timeout(TIMEOUT_S):
        session = LiveSession(client, "ledger", changed.set)
        task = asyncio.create_task(session.run())
        await wait_for(lambda: session.overview.stats, lambda: session.kpis, lambda: session.store.visible_ids)
        session.set_paused(True)
        held, held_at = shown(), session.clock().now
        await asyncio.to_thread(Install(server.url).enroll, {"sent": 2})
        await wait_for(lambda: session.store.pending_count, lambda: session._paused_kpis)
        assert shown() == held
        session.set_paused(False)
        await wait_for(lambda: session.total() == 2, lambda: len(session.store.visible_ids) == 2)
        assert session.clock().now > held_at
        task.cancel()
        await asyncio.wait([task])


async def test_tiles_return_soon_and_on_demand_and_hold_while_paused(
    server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    Install(server.url).enroll({"sent": 1})
    changed = asyncio.Event()
    async with run_fault_proxy(server.port) as proxy, make_client(proxy.url, server.admin_token) as client:
        for request in (TileRequest("ledger"), TileRequest("ledger", conditions=("status=active",))):
            for retry_s in (0.01, 3600.0):  # the second one waits for `reload`
                monkeypatch.setattr(pacing, "RETRY_S", retry_s)
                monkeypatch.setattr(pacing, "PAUSE_FACTOR", 1e9)
                monkeypatch.setattr(tile_session, "TYPING_PAUSE_S", 0.0)
                proxy.refuses_connections = True
                proxy.cut_connections()
                session = TileSession(client, lambda: ["sent"], changed.set)
                session.request(request)
                async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
                    running = tasks.create_task(session.run())
                    while not session.data.error:
                        changed.clear()
                        await changed.wait()
                    proxy.refuses_connections = False
                    if retry_s > 1:
                        session.reload()
                    while session.data.filtered is None and session.data.series is None:
                        changed.clear()
                        await changed.wait()
                    running.cancel()
                held = session.data
                session.set_paused(True)
                session.reload()
                await session._step(request)
                assert session.data is held
                session.set_paused(False)
                await session._step(request)
                assert session.data is not held
