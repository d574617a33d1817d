"""The loading of an open view: what is requested again, and when."""

import asyncio

import pytest

from shm_client import Client
from shm_client.api import API_LEVEL
from shm_client.cancelling import end_tasks
from shm_tui.model.place import Place, ViewName
from shm_tui.model.view_session import ViewSession
from shm_tui.model.views.registry import make_view
from tests.support.scripted_server import reply, run_scripted_server

LEVEL = str(API_LEVEL)
TOKENS, EVENTS = "/api/v1/admin/tokens?limit=500", "/api/v1/admin/events?limit=500"


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_only_what_can_change_is_requested_again(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setattr("shm_tui.model.view_session.RETRY_S", 0.01)
    changed = asyncio.Event()

    def start(view: ViewName) -> tuple[ViewSession, "asyncio.Task[None]"]:
        session = ViewSession(client, make_view(view), Place(view=view), changed.set)
        return session, asyncio.create_task(session.run())

    with run_scripted_server() as server:
        server.script(TOKENS, reply(status, X_API_Level=LEVEL), reply(200, b"[]", X_API_Level=LEVEL))
        server.script(EVENTS, *[reply(503)] * 5, reply(200, b"[]", X_API_Level=LEVEL))
        async with Client(server.url, "token") as client, asyncio.timeout(60):
            refused, first = start("tokens")
            await changed.wait()
            away, second = start("events")
            try:
                await asyncio.to_thread(server.wait_for, EVENTS, 6)  # five times again
                assert server.paths.count(TOKENS) == 1
                assert refused.error
                assert "r asks again" in refused.remedy
                while away.loaded_at is None or refused.loaded_at is None:
                    changed.clear()
                    refused.reload()
                    await changed.wait()
            finally:
                await end_tasks([first, second])
        assert (refused.error, away.error) == ("", "")
