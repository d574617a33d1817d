"""A filter that the server evaluates is exact over the whole fleet, however few rows the console holds."""

import asyncio
import secrets

import httpx

from shm_tui.model.filter import parse_filter
from tests.support.console import DrivenConsole, open_console
from tests.support.installs import Install
from tests.support.server_process import ServerProcess

MAX_ROWS = 5


def set_status(server: ServerProcess, install: Install, action: str) -> None:
    """Approves or revokes an install."""
    url = f"{server.url}/api/v1/admin/instances/{install.instance_id}/{action}"
    httpx.post(url, headers=server.headers).raise_for_status()


async def wait_for_matches(console: DrivenConsole, *installs: Install) -> None:
    """Waits until exactly these installs match."""
    expected = {install.instance_id for install in installs}
    await console.wait_until(lambda: set(console.app.table.store.visible_ids) == expected, f"{len(expected)} matches")


async def test_the_filter_finds_instances_beyond_the_newest(server: ServerProcess) -> None:
    pending = [Install(server.url) for _ in range(3)]  # never seen, so the oldest of all
    for install in pending:
        install.register()
    revoked, old = (Install(server.url, app_version=version).enroll({"sent": 1}) for version in ("1.0", "0.9"))
    set_status(server, revoked, "revoke")
    for _ in range(12):
        Install(server.url).enroll({"sent": 1})
    async with open_console(server, "ledger", max_rows=MAX_ROWS) as console:
        await console.wait_for_text("showing the newest 5 of 17")
        await console.pilot.press("slash", *"status:pending")
        await wait_for_matches(console, *pending)
        await console.wait_for_text("3 of 17")
        await asyncio.to_thread(pending[0].activate)
        await wait_for_matches(console, *pending[1:])
        await console.wait_for_text("2 of 17")
        for text, install in (("status:revoked", revoked), ("version=0.9 sent:1", old)):
            await console.pilot.press("ctrl+u", *text)
            await wait_for_matches(console, install)
            await console.wait_for_text("1 of 17")
        await console.pilot.press("ctrl+u", *"sent>0")
        await console.wait_for_text("of the newest 5")


async def test_the_server_counts_what_a_filter_selects(shared_server: ServerProcess) -> None:
    app = f"count{secrets.token_hex(4)}"
    installs = [Install(shared_server.url, app_name=app, app_version=f"1.{number}") for number in range(4)]
    for install in installs:
        install.enroll({})
    Install(shared_server.url, app_name=app).register()
    counts = {
        query: shared_server.get(f"instances/count?app={app}&{query}").json()
        for query in ("status=pending", "version=v1.2.0", "environment=production", "q=1.3")
    }
    assert counts == {
        "status=pending": {"instances": 1},
        "version=v1.2.0": {"instances": 1},
        "environment=production": {"instances": 5},
        "q=1.3": {"instances": 1},
    }
    assert shared_server.get(f"instances/count?app={app}").json() == {"instances": 5}


def test_a_filter_is_whole_if_the_server_evaluates_every_term() -> None:
    ranks = {"1.0": "x"}
    for text, parameters, is_whole in (
        ("status:pending", {"status": "pending"}, True),
        ("state=rev", {"status": "revoked"}, True),
        ("status:pending version=1.0", {"status": "pending", "version": "1.0"}, True),
        ("status:pending ledger", {"status": "pending"}, False),
        ("status:pending status:revoked", {"status": "pending"}, False),
        ("status:silent", {}, False),
        ("-status:pending", {}, False),
        ("status!=pending", {}, False),
        ('"status"=pending', {}, False),
        ("version:1.0", {}, False),
    ):
        server_filter = parse_filter(text, (), ranks).server_filter
        assert (dict(server_filter.parameters), server_filter.is_whole) == (parameters, is_whole), text
