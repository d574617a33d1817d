"""The settings of an application: an admin edits, merges and deletes; a viewer only reads."""

from typing import Any, get_args

import pytest
from textual.widgets import Input

from shm.core.aggregates import Aggregate
from shm_client import ClientError
from shm_tui.app import ConsoleApp
from shm_tui.application_edits import AGGREGATES
from shm_tui.command import make_client
from shm_tui.model.place import Place
from shm_tui.text.sanitizing import sanitize
from tests.support import plain_http
from tests.support.console import DrivenConsole, open_console, viewer_token
from tests.support.fault_proxy import run_fault_proxy
from tests.support.installs import Install
from tests.support.server_process import ServerProcess


def application(server: ServerProcess, slug: str) -> dict[str, Any]:
    """The application as the API shows it; {} without one."""
    response = plain_http.get(f"{server.url}/api/v1/admin/applications/{slug}", headers=server.headers)
    return dict(response.json()) if response.status_code == 200 else {}


async def move_to(console: DrivenConsole, row_key: str) -> None:
    """Moves the cursor of the view to a row."""
    await console.pilot.press("g")
    while console.app.dashboard.view.row_key != row_key:
        before = console.app.dashboard.view.row_key
        await console.pilot.press("j")
        assert console.app.dashboard.view.row_key != before, f"no row {row_key}\n{console.screen}"


async def edit(console: DrivenConsole, row_key: str, *keys: str) -> None:
    """Opens the form of a row, types these keys, and saves."""
    await move_to(console, row_key)
    await console.pilot.press("enter")
    await console.wait_for_text("⏎ save")
    await console.pilot.press(*keys, "enter")


def test_the_form_of_a_metric_names_every_aggregate() -> None:
    assert AGGREGATES.split() == list(get_args(Aggregate))


async def test_an_admin_edits_settings_and_metrics(server: ServerProcess) -> None:
    Install(server.url).enroll({"sent": 10, "disk_rate": 2})
    Install(server.url, app_name="Kiosk").enroll({"plays": 1})
    async with open_console(server, "ledger") as console:
        await console.wait_until(lambda: console.rows() and console.app.decisions.is_admin)
        await console.pilot.press("A")
        await console.wait_for_text("⏎ edits the row", "by the first signed request", "updated")
        await edit(console, "setting name", *" Pro")
        await console.wait_for_text("Saved Ledger Pro")
        await edit(console, "setting logo_url", *"ftp://x")
        await console.wait_for_text("answered 400")
        await console.pilot.press("escape")
        await console.wait_until_gone("⏎ save")
        keys = [*"Mails", "tab", "tab", *"max", "tab", *"none", "tab", "tab", "tab", "ctrl+u", *"yes"]
        await edit(console, "metric sent", *keys)
        await console.wait_for_text("Mails*", "max*", "public")
        settings = application(server, "ledger")
        assert settings["name"] == "Ledger Pro"
        assert settings["overrides"] == {"sent": {"aggregate": "max", "label": "Mails", "unit": ""}}
        assert settings["public_metrics"] == ["sent"]
        await edit(console, "metric sent", "ctrl+u", "tab", *"odd")
        await console.wait_for_text("answered 400")
        await console.pilot.press("escape")
        await edit(console, "metric disk_rate", *["tab"] * 5, "ctrl+u", *"yes")
        await console.wait_for_text("hidden*")
        assert application(server, "ledger")["overrides"]["disk_rate"] == {"hidden": True}


async def test_an_edit_leaves_texts_that_were_sanitized_as_they_are(server: ServerProcess) -> None:
    """Only what was typed is saved, also under a key that the console sanitizes."""
    key, label = "caf\u200dé mails", "Caf\u200bé  mails "
    Install(server.url).enroll({key: 10})
    path = f"{server.url}/api/v1/admin/applications/ledger"
    stored = {"label": label, "description": "Two\u2028lines"}
    assert plain_http.put(path, json={"overrides": {key: stored}}, headers=server.headers).status_code == 200
    async with open_console(server, "ledger", place="application") as console:
        await console.wait_until(lambda: console.app.decisions.is_admin)
        await console.wait_for_text("mails", "SHOWN")
        row_key = f"metric {sanitize(key)}"
        await edit(console, row_key)  # saves nothing
        await console.wait_until_gone("⏎ save")
        assert application(server, "ledger")["overrides"] == {key: stored}
        await edit(console, row_key, "tab", "tab", *"max", *["tab"] * 4, "ctrl+u", *"yes")
        await console.wait_for_text("max*", "public")
        settings = application(server, "ledger")
        assert settings["overrides"] == {key: stored | {"aggregate": "max"}}
        assert settings["public_metrics"] == [key]
        await edit(console, row_key, "ctrl+u", *["tab"] * 4, "ctrl+u")
        await console.wait_for_text("Saved Ledger")
        assert application(server, "ledger")["overrides"] == {key: {"aggregate": "max"}}


async def test_no_key_that_looks_equal_directs_an_edit(server: ServerProcess) -> None:
    shown = "caf\ufffd mails"
    Install(server.url).enroll({"caf\x01 mails": 1, "caf\x02 mails": 2})
    async with make_client(server.url, server.admin_token) as client:
        with pytest.raises(ClientError, match="several metrics look like"):
            await client.edit_metric("ledger", shown, {"label": "Cafés"})
        Install(server.url).enroll({shown: 3})
        with pytest.raises(ClientError, match="several metrics look like"):
            await client.edit_metric("ledger", shown, {"label": "Cafés"})
        with pytest.raises(ClientError, match="has no metric"):
            await client.edit_metric("ledger", "unsent", {"label": "Cafés"})
    assert application(server, "ledger")["overrides"] == {}


async def test_an_admin_merges_and_deletes_after_a_question(server: ServerProcess) -> None:
    """A `y` that is typed before the question is on the screen is no answer, nor a part of a field."""
    for number in range(2):
        Install(server.url, app_name="Old").enroll({"sent": number})
    Install(server.url).enroll({"sent": 5})
    async with (
        run_fault_proxy(server.port) as proxy,
        open_console(server, "old", place="application", url=proxy.url) as console,
    ):
        await console.wait_until(lambda: console.app.decisions.is_admin)
        await console.wait_for_text("Merge into another application")
        await edit(console, "action merge", *"nowhere")
        await console.wait_for_text("does not have it")
        proxy.may_respond.clear()
        await console.enter("ledger", "ctrl+u")
        await console.wait_for_text("Asking the server…")
        await console.pilot.press("y")
        assert [field.value for field in console.app.screen.query(Input)] == ["ledger"]
        proxy.may_respond.set()
        await console.wait_for_text("Merge Old (old) into Ledger (ledger)?", "2 instances and their history")
        assert application(server, "old")
        await console.pilot.press("y")
        await console.wait_for_text("Moved 2 instances")  # for some seconds, in which a busy server may not answer
        await console.wait_for_text("Ledger   3 instances")
        assert application(server, "ledger")["instances"]["total"] == 3
        await console.pilot.press("backspace", "I")
        await console.wait_for_text("Old has no instances", "merged into another one")
        console.app.go(Place("ledger", "application"))
        await console.wait_for_text("Ledger   3 instances")
        await move_to(console, "action delete")
        proxy.may_respond.clear()
        await console.pilot.press("enter")
        await console.wait_for_text("Counting…")
        await console.pilot.press("y")
        proxy.may_respond.set()
        await console.wait_for_text("Delete Ledger (ledger)?", "3 instances with their whole history")
        await console.pilot.press("enter")  # is no yes
        await console.wait_until_gone("Delete Ledger (ledger)?")
        assert application(server, "ledger")
        await console.pilot.press("enter")
        await console.wait_for_text("Delete Ledger (ledger)?")
        await console.pilot.press("y")
        await console.wait_until(lambda: not application(server, "ledger"))
        await console.wait_for_text("Fleet   1 application", "Deleted 3 instances")


async def test_a_viewer_reads_and_edits_nothing(server: ServerProcess) -> None:
    Install(server.url).enroll({"sent": 10})
    async with make_client(server.url, viewer_token(server)) as client:
        app = ConsoleApp(client, place=Place("ledger", "application"))
        async with app.run_test(size=(120, 36)) as pilot:
            console = DrivenConsole(app, pilot)
            await console.wait_for_text("an admin's token can edit it", "sent")
            assert "Merge" not in console.screen
            await pilot.press("enter")
            assert len(app.screen_stack) == 1
