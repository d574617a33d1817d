"""The states of the connection that a console tells apart, and what it says about each."""

from shm_client.api import API_LEVEL
from tests.support import plain_http
from tests.support.console import open_console
from tests.support.fault_proxy import run_fault_proxy
from tests.support.installs import Install
from tests.support.server_process import ServerProcess


async def test_a_server_that_is_too_old_or_too_new_is_named_as_such(server: ServerProcess) -> None:
    """The console says which side to upgrade, and is live as soon as the levels are equal. The rows remain."""
    Install(server.url).enroll({"sent": 1})
    assert plain_http.get(f"{server.url}/").json()["api_level"] == API_LEVEL
    level = f"X-Api-Level: {API_LEVEL}".encode()
    async with run_fault_proxy(server.port) as proxy:
        proxy.replacements[level] = f"X-Api-Level: {API_LEVEL + 1}".encode()
        async with open_console(server, "ledger", url=proxy.url) as console:
            await console.wait_for_text("server too new", f"upgrade SHM on this machine, from API level {API_LEVEL} to")
            proxy.replacements.clear()
            await console.pilot.press("r")
            await console.wait_for_text("● live", "SENT")
            proxy.replacements[level] = f"X-Api-Level: {API_LEVEL - 1}".encode()
            proxy.cut_connections()
            await console.pilot.press("r")
            await console.wait_for_text(
                "server too old", f"upgrade SHM on the server, from API level {API_LEVEL - 1}", "SENT"
            )


async def test_a_prompt_says_why_its_text_is_invalid_during_a_notice(server: ServerProcess) -> None:
    Install(server.url).enroll({"sent": 1})
    async with open_console(server, "ledger", (80, 24)) as console:
        await console.wait_for_text("● live")
        console.app.dashboard.footer.show_notice("Moved 1 of 2 instances", 600)
        await console.wait_for_text("Moved 1 of 2 instances")
        await console.enter("nonsense", "colon")
        await console.wait_for_text("“nonsense” is no view and no application")
        await console.pilot.press("escape")
        await console.wait_for_text("Moved 1 of 2 instances")
