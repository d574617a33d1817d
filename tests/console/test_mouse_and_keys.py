"""The mouse and the keys act on what the user sees: nothing moves under the cursor meanwhile. With real events."""

import asyncio
from collections.abc import Iterator

import httpx
import pytest
from textual import events
from textual.geometry import Offset

from shm_tui.widgets.detail_panel import DetailPanel
from shm_tui.widgets.sidebar import Sidebar
from tests.support.console import DrivenConsole, open_console
from tests.support.installs import Install
from tests.support.module_server import module_server
from tests.support.server_process import ServerProcess

LONG_KEYS = {f"metric_number_{number:05}_of_the_service": number for number in range(12)}


@pytest.fixture(scope="module")
def two_apps(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, str]]:
    """A server with 30 installs of Ledger and 2 of Kiosk, and its database."""
    with module_server(postgres, tmp_path_factory.mktemp("two_apps")) as (server, dsn):
        for number in range(30):
            Install(server.url).enroll({"sent": 10 * number, "mail": {"sent": number}})
        for _ in range(2):
            Install(server.url, app_name="Kiosk").enroll(LONG_KEYS)
        yield server, dsn


async def wait_for_rows(console: DrivenConsole, count: int) -> None:
    await console.wait_until(
        lambda: len(console.app.table.store.visible_ids) == count and console.app.drawing.data_shown.is_set(),
        f"{count} rows",
    )


def cursor_index(console: DrivenConsole) -> int | None:
    """The row of the cursor."""
    return console.app.table.store.index_of(console.app.table.cursor_id)


def find_text(console: DrivenConsole, text: str, last: bool = False) -> Offset:
    """The cell on the screen where a text begins."""
    lines = list(enumerate(console.screen.splitlines()))
    y, line = next((y, line) for y, line in (reversed(lines) if last else lines) if text in line)
    return Offset(line.index(text), y)


async def test_a_click_chooses_what_is_under_the_mouse(two_apps: tuple[ServerProcess, str]) -> None:
    async with open_console(two_apps[0], size=(120, 40)) as console:
        await wait_for_rows(console, 30)
        await console.wait_for_text("Kiosk")
        await console.pilot.click(offset=find_text(console, "Kiosk"))
        await console.wait_until(lambda: console.app.session.slug == "kiosk")
        await console.pilot.click(offset=find_text(console, "Ledger"))
        await wait_for_rows(console, 30)
        third = console.rows()[2]
        await console.pilot.click(offset=find_text(console, third))
        assert cursor_index(console) == 2
        await console.pilot.click(offset=find_text(console, "SEEN"))
        assert console.app.session.store.sort_column.id == "seen"


async def test_sidebar_keys_keep_the_focus_in_the_sidebar(two_apps: tuple[ServerProcess, str]) -> None:
    async with open_console(two_apps[0], size=(120, 40)) as console:
        await wait_for_rows(console, 30)
        await console.wait_for_text("Kiosk")
        console.app.query_one(Sidebar).focus()
        for key, slug in (("j", "kiosk"), ("k", "ledger"), ("k", None), ("k", None), ("G", "kiosk"), ("g", None)):
            await console.pilot.press(key)
            assert (console.app.session.slug, console.app.query_one(Sidebar).has_focus) == (slug, True), key
        await console.pilot.press("enter")
        assert console.app.table.has_focus


async def test_keys_in_the_details_leave_the_table_alone(two_apps: tuple[ServerProcess, str]) -> None:
    async with open_console(two_apps[0], "ledger", (120, 24)) as console:
        await wait_for_rows(console, 30)
        await console.pilot.press("down", "down", "enter")
        panel = console.app.query_one(DetailPanel)
        opened = panel.instance_id
        for key in ("G", "g", "pagedown", "l", "end"):
            await console.pilot.press(key)
            assert (cursor_index(console), panel.instance_id) == (2, opened), key
        assert panel.scroll_y == panel.max_scroll_y > 0
        await console.pilot.press("J")
        assert panel.instance_id == console.app.table.store.visible_ids[3]
        await console.pilot.press("K", "K")
        assert panel.instance_id == console.app.table.store.visible_ids[1]
        await console.pilot.press("q")
        assert not panel.display
        assert console.app.is_running


async def test_the_details_stay_on_their_instance(two_apps: tuple[ServerProcess, str]) -> None:
    """They say that it no longer matches, or that it was erased, and never show another one."""
    server, _ = two_apps
    install = Install(server.url, app_name="Details").enroll({"sent": 77})
    other = Install(server.url, app_name="Details").enroll({"sent": 5})
    async with open_console(server, "details") as console:
        await wait_for_rows(console, 2)
        await console.pilot.press("enter")
        await console.wait_for_text(install.instance_id, "active and counted")
        console.app.table.focus()
        await console.pilot.press("down")
        await console.wait_for_text(install.instance_id)
        await console.pilot.press("slash", *"sent<50")
        await console.wait_for_text(install.instance_id, "no longer matches the filter")
        await console.pilot.press("escape")
        url = f"{server.url}/api/v1/admin/instances/{install.instance_id}"
        await asyncio.to_thread(httpx.delete, url, headers=server.headers)
        await console.wait_for_text(install.instance_id, "erased: its last data follow")
        assert "active and counted" not in console.screen
        assert console.app.table.cursor_id == other.instance_id


async def test_the_sort_order_changes_by_a_key_only(two_apps: tuple[ServerProcess, str]) -> None:
    server, _ = two_apps
    Install(server.url, app_name="Order").enroll({"zebras": 1})
    async with open_console(server, "order") as console:
        await console.wait_for_text("ZEBRAS")
        await console.wait_until(lambda: console.app.session.store.sort_column.id == "metric:zebras")
        for _ in range(3):  # now `apples` is the first business number of the most instances
            await asyncio.to_thread(Install(server.url, app_name="Order").enroll, {"apples": 1})
        await wait_for_rows(console, 4)
        await console.wait_for_text("APPLES")
        assert console.app.session.store.sort_column.id == "metric:zebras"
        metrics = [column.metric for column in console.app.table.columns if column.metric]
        assert metrics == ["zebras", "apples"]


@pytest.mark.long
async def test_the_wheel_takes_the_cursor_with_it(two_apps: tuple[ServerProcess, str]) -> None:
    async with open_console(two_apps[0], "ledger", (80, 24)) as console:
        await wait_for_rows(console, 30)
        table = console.app.table

        async def turn(kind: type[events.MouseScrollDown] | type[events.MouseScrollUp]) -> None:
            table.post_message(
                kind(table, 5, 5, 0, 3 if kind is events.MouseScrollDown else -3, 0, False, False, False)
            )
            await console.pilot.pause()

        for _ in range(3):
            await turn(events.MouseScrollDown)
        assert (cursor_index(console), table.scroll_offset.y) == (9, 9)
        for _ in range(20):
            await turn(events.MouseScrollDown)
        assert cursor_index(console) == 29
        await turn(events.MouseScrollUp)
        assert cursor_index(console) == 26
        assert table.cursor_id is not None
        assert table.cursor_id[:8] in console.screen


async def test_escape_keeps_an_edited_filter(two_apps: tuple[ServerProcess, str]) -> None:
    async with open_console(two_apps[0], "ledger") as console:
        await wait_for_rows(console, 30)
        await console.pilot.press("slash", *"sent>250", "escape")
        await console.wait_until(lambda: not console.app.filter.is_open)
        assert console.app.filter.text == "sent>250"
        assert len(console.app.table.store.visible_ids) == 4
        await console.pilot.press("escape")
        await wait_for_rows(console, 30)
        await console.pilot.press("slash", "up")
        await console.wait_until(lambda: len(console.app.table.store.visible_ids) == 4, "the filter of the history")
        await console.pilot.press("ctrl+c")  # cancels the input
        await wait_for_rows(console, 30)
        assert console.app.is_running


async def test_a_terminal_that_is_too_small_says_so(two_apps: tuple[ServerProcess, str]) -> None:
    async with open_console(two_apps[0], "ledger") as console:
        await wait_for_rows(console, 30)
        await console.pilot.resize_terminal(39, 24)
        await console.wait_for_text("Needs 40 columns and 10 lines, has 39")
        assert not console.rows()
        await console.pilot.resize_terminal(120, 36)
        await console.wait_until(lambda: len(console.rows()) > 10)
        await console.pilot.press("enter")
        await console.wait_for_text("IDENTITY")


async def test_ctrl_c_asks_before_it_ends_the_console(two_apps: tuple[ServerProcess, str]) -> None:
    async with open_console(two_apps[0], "ledger") as console:
        await wait_for_rows(console, 30)
        await console.pilot.press("ctrl+c")
        await console.wait_for_text("Ctrl+C again ends the console")
        assert console.app.is_running
        await console.pilot.press("ctrl+c")
        await console.wait_until(lambda: not console.app.is_running)


async def test_the_filter_knows_the_names_of_the_heads(two_apps: tuple[ServerProcess, str]) -> None:
    async with open_console(two_apps[0], "ledger") as console:
        await wait_for_rows(console, 30)
        for text in ('"mail sent">27', "mail_sent>27", "Mail.Sent>27"):
            await console.pilot.press("slash")
            await console.pilot.press("ctrl+u", *["space" if letter == " " else letter for letter in text])
            await wait_for_rows(console, 2)
            await console.pilot.press("escape", "escape")
            await wait_for_rows(console, 30)


async def test_heads_of_long_names_differ(two_apps: tuple[ServerProcess, str]) -> None:
    async with open_console(two_apps[0], "kiosk", (200, 50)) as console:
        await wait_for_rows(console, 2)
        await console.wait_for_text("2 OF THE SERVICE", "3 OF THE SERVICE")
