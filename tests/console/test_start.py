"""The start of the console: what it requests before its widgets are mounted, and keys that come before the answers."""

import asyncio
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import shm_tui
from shm_tui.app import ConsoleApp
from shm_tui.command import make_client
from shm_tui.model import first_application
from shm_tui.model.draw_pacing import DRAW_INTERVAL_S
from tests.support.console import open_console
from tests.support.fault_proxy import run_fault_proxy
from tests.support.installs import Install
from tests.support.module_server import module_server
from tests.support.parameters import long_rows_after
from tests.support.server_process import ServerProcess

TIMEOUT_S = 60


@pytest.fixture(scope="module")
def fleet(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with three installs of Ledger and one of Kiosk."""
    with module_server(postgres, tmp_path_factory.mktemp("start")) as (server, _):
        for app in ("Kiosk", "Ledger", "Ledger", "Ledger"):
            Install(server.url, app_name=app).enroll({"sent": 5})
        yield server


class LateConsole(ConsoleApp):
    """Its widgets are shown only when the rows of an application have arrived."""

    CSS_PATH = str(Path(shm_tui.__file__).parent / "app.tcss")  # Textual looks for it beside the subclass

    async def on_mount(self) -> None:  # type: ignore[override] # Textual calls both, the base's after this one
        """Waits for the rows."""
        deadline = time.monotonic() + TIMEOUT_S
        while not self.session.is_listed:
            assert time.monotonic() < deadline, "no rows before the widgets"
            await asyncio.sleep(0.01)


async def test_rows_arrive_while_the_widgets_are_mounted(
    fleet: ServerProcess, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are those of the largest application, and no others are requested."""
    monkeypatch.setattr(first_application, "MAX_CHOICE_S", TIMEOUT_S)  # a busy machine takes longer than users wait
    async with make_client(fleet.url, fleet.admin_token) as client:
        app = LateConsole(client)
        with caplog.at_level(logging.INFO, "httpx"):
            async with app.run_test(size=(120, 36)):
                await asyncio.wait_for(app.drawing.data_shown.wait(), TIMEOUT_S)
                assert (app.place.app, len(app.session.store.rows)) == ("ledger", 3)
    requests = [message for message in caplog.messages if "/admin/instances?" in message]
    assert requests
    assert all("app=ledger" in request for request in requests)


@pytest.mark.parametrize(
    ("key", "shown"), long_rows_after(1, [("slash", ("Ledger", "Kiosk", "● live")), ("F", ("APPLICATION", "● live"))])
)
async def test_an_early_key_does_not_block_the_start(fleet: ServerProcess, key: str, shown: tuple[str, ...]) -> None:
    """It comes before the applications are known, so that all of them are shown."""
    async with run_fault_proxy(fleet.port) as proxy:
        proxy.may_respond.clear()
        async with open_console(fleet, url=proxy.url) as console:
            await console.pilot.press(key)
            assert console.app.overview.applications is None
            proxy.may_respond.set()
            await console.wait_for_text(*shown)
            await console.wait_until(lambda: len(console.app.session.store.rows) == 4, "the rows of both")
            assert console.app.place.app is None


async def test_a_server_that_does_not_name_its_applications_is_asked_for_rows(fleet: ServerProcess) -> None:
    """It may answer slowly: its answer is still awaited, and then the largest application is shown."""
    async with run_fault_proxy(fleet.port) as proxy:
        proxy.may_respond.clear()
        async with open_console(fleet, url=proxy.url) as console:
            await console.wait_until(lambda: console.app.session._feed._task is not None, "the request for rows")
            assert (console.app.overview.applications, console.app.place.app) == (None, None)
            proxy.may_respond.set()
            await console.wait_until(lambda: len(console.rows()) == 3, "the rows of the largest application")
            assert console.app.place.app == "ledger"


async def test_a_burst_of_changes_is_drawn_a_few_times(fleet: ServerProcess) -> None:
    """The first one at once, the others together."""
    async with open_console(fleet, "ledger") as console:
        await console.wait_for_text("● live", "SENT")
        app = console.app
        await console.wait_until(lambda: app.drawing.data_shown.is_set() and not app.drawing.has_changes)
        drawn: list[None] = []
        app.dashboard.draw_changes = lambda *_: drawn.append(None)  # type: ignore[method-assign]
        started_at = time.monotonic()
        for _ in range(200):
            app.drawing.mark_changed()
            await asyncio.sleep(0.001)
        await console.wait_until(lambda: not app.drawing.has_changes, "the last drawing")
        assert 1 <= len(drawn) <= 2 + (time.monotonic() - started_at) / DRAW_INTERVAL_S
