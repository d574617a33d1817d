"""Approve, revoke and erase: after a question that names the instance, and for an admin's token only."""

import asyncio
from random import Random

from shm_client import BulkChange
from shm_tui.app import ConsoleApp
from shm_tui.bulk_decisions import follow_change
from shm_tui.command import make_client
from tests.support import plain_http
from tests.support.byte_proxy import ByteProxy
from tests.support.console import TIMEOUT_S, DrivenConsole, open_console, viewer_token
from tests.support.installs import Install
from tests.support.server_process import ServerProcess


def status_code(server: ServerProcess, install: Install) -> tuple[int, str]:
    """The answer to a request for an instance, and the instance's status."""
    response = plain_http.get(f"{server.url}/api/v1/admin/instances/{install.instance_id}", headers=server.headers)
    return response.status_code, response.json().get("status", "")


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
        await console.enter("audit", "colon")
        await console.wait_for_text("Audit trail", "revoke instance", first.instance_id[:8])


async def test_many_are_decided_on_by_marks_and_by_the_filter(server: ServerProcess) -> None:
    fleet = [
        Install(server.url, environment="ci" if sent < 3 else "production").enroll({"sent": sent}) for sent in range(6)
    ]
    async with open_console(server, "ledger", place="sort=sent") as console:
        await console.wait_until(lambda: len(console.rows()) == 6 and console.app.decisions.is_admin)
        await console.pilot.press("g", "space", "space", "space", "k", "space")  # the third is unmarked again
        await console.wait_for_text("2 marked", f"*◐  {fleet[0].instance_id[:8]}")
        assert console.screen.splitlines()[-1].split("   ") == [
            *(" a approve", "R revoke", "X erase", "Space mark", "u unmark all", "/ filter", "? help", "q quit")
        ]
        await console.pilot.press("slash", "escape")
        await console.wait_for_text("u unmark all")
        await console.pilot.press("R")
        await console.wait_for_text("Revoke 2 instances?", fleet[0].instance_id[:8], fleet[1].instance_id[:8])
        await console.pilot.press("n")
        await console.wait_until_gone("Revoke 2 instances?")
        await console.pilot.press("R")
        await console.wait_for_text("Revoke 2 instances?")
        await console.pilot.press("y")
        await console.wait_for_text("Revoked 2 instances")
        await console.wait_until_gone("2 marked")
        await console.wait_until_gone("u unmark all")
        assert [status_code(server, install)[1] for install in fleet] == ["revoked"] * 2 + ["active"] * 4
        await console.enter("env:ci", "slash")
        await console.wait_until(lambda: len(console.rows()) == 3)
        await console.pilot.press("R")
        await console.wait_for_text("Revoke this instance?", "f all 3 of ledger that match /env:ci")
        await console.pilot.press("f")
        await console.wait_for_text("Revoke 1 instance?", "of ledger that match /env:ci", "2 more of them are revoked")
        await console.pilot.press("y")
        await console.wait_for_text("Revoked 1 instance")
        await console.pilot.press("X", "f")
        await console.wait_for_text("Erase 3 instances?", "their whole history")
        await console.pilot.press("y")
        await console.wait_for_text("Erased 3 instances")
    assert [status_code(server, install)[0] for install in fleet] == [404] * 3 + [200] * 3


async def test_keys_typed_while_the_server_counts_are_no_answer(server: ServerProcess) -> None:
    fleet = [Install(server.url, environment="ci").enroll({"sent": sent}) for sent in range(2)]
    async with (
        ByteProxy(server.port, Random(1)).running() as proxy,
        open_console(server, "ledger", place="instances /env:ci", url=f"http://127.0.0.1:{proxy.port}") as console,
    ):
        await console.wait_until(lambda: len(console.rows()) == 2 and console.app.decisions.is_admin)
        proxy.forwarding.clear()
        await console.pilot.press("X", "f", "y", "slash", "n", "enter")
        await console.wait_for_text("Counting…")
        proxy.forwarding.set()
        await console.wait_for_text("Erase 2 instances?")
        assert [status_code(server, install)[0] for install in fleet] == [200, 200]
        await console.pilot.press("n")
        await console.wait_until_gone("Erase 2 instances?")
        proxy.forwarding.clear()
        await console.pilot.press("X", "f", "escape")
        await console.wait_until_gone("Counting…")
        proxy.forwarding.set()
        assert len(console.app.screen_stack) == 1
    assert [status_code(server, install)[0] for install in fleet] == [200, 200]


async def test_the_progress_of_a_change_ends_with_its_server(server: ServerProcess) -> None:
    async with make_client(server.url, viewer_token(server)) as client:
        notices: list[str] = []
        change = BulkChange(id="0", action="delete", instances=5)
        client.connect(server.url, "refused")
        async with asyncio.timeout(TIMEOUT_S):
            await follow_change(client, client.server, change, "Erased", notices.append)
            assert notices[0] == "Erased 0 of 5 instances"
            assert notices[1].startswith("The change goes on, its progress is unknown: ")
            await follow_change(client, "http://127.0.0.1:1", change, "Erased", notices.append)
        assert len(notices) == 3


async def test_a_viewer_sees_no_decision(server: ServerProcess) -> None:
    install = Install(server.url).enroll({"sent": 1})
    async with make_client(server.url, viewer_token(server)) as client:
        assert not await client.is_admin()
        app = ConsoleApp(client, "ledger")
        async with app.run_test(size=(120, 90)) as pilot:
            console = DrivenConsole(app, pilot)
            await console.wait_until(lambda: console.rows())
            await pilot.press("space", "R", "X", "a")
            assert len(app.screen_stack) == 1
            assert not app.session.store.marked
            await pilot.press("question_mark")
            await console.wait_for_text("NAVIGATION")
            assert "DECIDING" not in console.screen
            assert "revoke the instance" not in console.screen
    assert status_code(server, install) == (200, "active")
