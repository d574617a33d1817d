"""The console shows the server's descriptions of metrics, also after they have changed."""

import asyncio
from typing import Any

from shm_client import Client
from shm_tui.model.description_cache import DescriptionCache
from tests.support import plain_http
from tests.support.console import open_console
from tests.support.installs import Install
from tests.support.server_process import ServerProcess

TIMEOUT_S = 60


def set_overrides(server: ServerProcess, overrides: dict[str, Any]) -> None:
    """Sets the overrides of the application."""
    path = f"{server.url}/api/v1/admin/applications/ledger"
    plain_http.put(path, json={"overrides": overrides}, headers=server.headers).raise_for_status()


async def test_keys_that_arrive_later_are_described(server: ServerProcess) -> None:
    Install(server.url).enroll({"mem_mb": 5})
    async with Client(server.url, server.admin_token) as client, asyncio.timeout(TIMEOUT_S):
        updated = asyncio.Event()
        descriptions = DescriptionCache(client, "ledger", updated.set)
        assert descriptions["mem_mb"].label == "mem_mb"
        task = asyncio.create_task(descriptions.run())
        await updated.wait()
        assert descriptions["mem_mb"].label == "Mem mb"
        with_comma = "a,b"
        descriptions.request(["tags_of_it", with_comma, *(f"key{number:03}{'x' * 100}" for number in range(250))])
        while descriptions["tags_of_it"].label != "Tags of it":
            updated.clear()
            await updated.wait()
        assert descriptions[with_comma].label == "A,b"
        task.cancel()
        await asyncio.wait([task])


async def test_an_override_reaches_the_columns_of_a_running_console(server: ServerProcess) -> None:
    overrides_ = {"sent": {"label": "Letters"}, "secret": {"hidden": True}}
    Install(server.url).enroll({"sent": 3, "secret": 7, "tag_list": [1, 2]})
    async with open_console(server, "ledger") as console:
        await console.wait_for_text("SECRET", "SENT", "TAG", "LIST")
        await asyncio.to_thread(set_overrides, server, overrides_)
        await console.wait_for_text("LETTERS")
        await console.wait_until_gone("SECRET")


async def test_a_filter_by_a_label_works_from_the_start(server: ServerProcess) -> None:
    """The labels arrive after the filter of the place has been applied."""
    for number in (3, 5):
        Install(server.url).enroll({"sent": number})
    await asyncio.to_thread(set_overrides, server, {"sent": {"label": "Letters"}})
    async with open_console(server, place="ledger/instances /letters>=4") as console:
        await console.wait_for_text("LETTERS", "● live")
        await console.wait_until(lambda: len(console.rows()) == 1, "the row that matches")
