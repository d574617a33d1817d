"""What metrics are called in the console is what the server says, also after it changed."""

import asyncio
from typing import Any

from shm_client import Client
from shm_tui.model.description_cache import DescriptionCache
from tests.support import plain_http
from tests.support.console import open_console
from tests.support.installs import Install
from tests.support.server_process import ServerProcess

LIMIT_S = 20


def override(server: ServerProcess, overrides: dict[str, Any]) -> None:
    """The vendor overrides metrics."""
    path = f"{server.url}/api/v1/admin/applications/ledger"
    plain_http.put(path, json={"overrides": overrides}, headers=server.headers).raise_for_status()


async def test_keys_that_arrive_later_are_described(server: ServerProcess) -> None:
    Install(server.url).enroll({"mem_mb": 5})
    async with Client(server.url, server.admin_token) as client, asyncio.timeout(LIMIT_S):
        answered = asyncio.Event()
        descriptions = DescriptionCache(client, "ledger", answered.set)
        assert descriptions["mem_mb"].label == "mem_mb"
        running = asyncio.create_task(descriptions.run())
        await answered.wait()
        assert descriptions["mem_mb"].label == "Mem mb"
        with_comma = "a,b"
        descriptions.request(["tags_of_it", with_comma, *(f"key{number:03}{'x' * 100}" for number in range(250))])
        while descriptions["tags_of_it"].label != "Tags of it":
            answered.clear()
            await answered.wait()
        assert descriptions[with_comma].label == with_comma
        running.cancel()
        await asyncio.wait([running])


async def test_an_override_reaches_the_columns_of_a_running_console(server: ServerProcess) -> None:
    override_ = {"sent": {"label": "Letters"}, "secret": {"hidden": True}}
    Install(server.url).enroll({"sent": 3, "secret": 7, "tag_list": [1, 2]})
    async with open_console(server, "ledger") as console:
        await console.shows("SECRET", "SENT", "TAG LIST")
        await asyncio.to_thread(override, server, override_)
        await console.shows("LETTERS")
        await console.hides("SECRET")
