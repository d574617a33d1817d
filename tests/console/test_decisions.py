"""Approve, revoke and erase: after a question that names the instance, and for an admin's token only."""

import httpx

from shm_tui.app import ConsoleApp
from shm_tui.command import make_client
from tests.support.console import DrivenConsole, open_console
from tests.support.installs import Install
from tests.support.server_process import ServerProcess


def status_code(server: ServerProcess, install: Install) -> tuple[int, str]:
    """The answer to a request for an instance, and the instance's status."""
    response = httpx.get(f"{server.url}/api/v1/admin/instances/{install.instance_id}", headers=server.headers)
    return response.status_code, response.json().get("status", "")


def viewer_token(server: ServerProcess) -> str:
    """A new viewer's token."""
    body = {"name": "viewer", "role": "viewer"}
    response = httpx.post(f"{server.url}/api/v1/admin/tokens", json=body, headers=server.headers)
    return str(response.raise_for_status().json()["token"])


async def test_each_decision_asks_and_hits_the_instance_it_names(server: ServerProcess) -> None:
    first, second = (Install(server.url).enroll({"sent": sent}) for sent in (20, 10))
    waiting = Install(server.url, app_version="9.9")
    waiting.register()
    async with open_console(server, "ledger", (80, 24)) as console:
        await console.wait_until(lambda: len(console.rows()) == 3 and console.app.decisions.is_admin)
        await console.pilot.press("R")
        await console.wait_for_text("Revoke this instance?", first.instance_id, "Ledger: 1.4.2, production, active")
        await console.pilot.press("enter")  # is no yes
        await console.wait_until_gone("Revoke this instance?")
        assert status_code(server, first) == (200, "active")
        await console.pilot.press("R", "y")
        await console.wait_for_text(f"Revoked {first.instance_id[:8]} of Ledger")
        assert status_code(server, first) == (200, "revoked")
        await console.pilot.press("g", "enter", "X")  # the details are of the first row
        opened = console.app.table.cursor_id
        await console.wait_for_text("Erase this instance?", opened or "")
        await console.pilot.press("y")
        await console.wait_for_text("Erased", "erased")
        assert status_code(server, first if opened == first.instance_id else second)[0] == 404
        await console.pilot.press("escape", "slash", *"version:9.9", "enter", "a")
        await console.wait_for_text("Approve this instance?", waiting.instance_id)
        await console.pilot.press("n")
        await console.wait_until_gone("Approve this instance?")
        await console.pilot.press("colon", *"audit", "enter")
        await console.wait_for_text("Audit trail", "revoke instance", first.instance_id[:8])


async def test_a_viewer_sees_no_decision(server: ServerProcess) -> None:
    install = Install(server.url).enroll({"sent": 1})
    async with make_client(server.url, viewer_token(server)) as client:
        assert not await client.is_admin()
        app = ConsoleApp(client, "ledger")
        async with app.run_test(size=(120, 90)) as pilot:
            console = DrivenConsole(app, pilot)
            await console.wait_until(lambda: console.rows())
            await pilot.press("R", "X", "a")
            assert len(app.screen_stack) == 1
            await pilot.press("question_mark")
            await console.wait_for_text("NAVIGATION")
            assert "DECIDING" not in console.screen
            assert "revoke the instance" not in console.screen
    assert status_code(server, install) == (200, "active")
