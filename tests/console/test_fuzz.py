"""Random events: the console shows no error, and afterwards the same screen as a fresh start at the same place."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from rich.style import Style
from textual import events
from textual.widgets import Label, OptionList

from shm_tui.config.file import EMPTY
from shm_tui.config.settings import Settings
from shm_tui.model.place import Place, parse_place, render_place
from shm_tui.model.place_sort import sort_text
from shm_tui.model.row_store import MAX_ROWS
from shm_tui.palette_screen import Palette
from tests.support.console import DrivenConsole, open_console
from tests.support.console_fuzz import START_SIZE, ConsoleFuzz, comparable_screen
from tests.support.fault_proxy import run_fault_proxy
from tests.support.installs import Install
from tests.support.module_server import module_server
from tests.support.parameters import long_after
from tests.support.server_process import ServerProcess

EVENTS = int(os.environ.get("TEST_FUZZ_EVENTS", "1000"))
LONG_RUNS = int(os.environ.get("TEST_FUZZ_RUNS", "50"))
FIRST_SEED = int(os.environ.get("TEST_FUZZ_SEED", "1"))


@pytest.fixture(scope="module")
def fleet(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, list[Install]]]:
    """A server with 30 installs of Ledger, 2 of Kiosk and one with hostile strings."""
    with module_server(postgres, tmp_path_factory.mktemp("fuzz")) as (server, _):
        installs = [
            Install(server.url, app_version=f"1.{number % 4}.0").enroll(
                {"sent": 10 * number, "beta": number % 2 == 0, "db": "pg", "mail": {"sent": number}}
            )
            for number in range(30)
        ]
        for number in range(2):
            Install(server.url, app_name="Kiosk").enroll({"plays": number, f"number_{number}": 5})
        hostile = "\x1b]52;c;aGk=\x07[/x]\u202e日本"
        Install(server.url, hostile, hostile, hostile, hostile, hostile).enroll({f"k{hostile}": 5, "text": hostile})
        yield server, installs


async def test_random_events_end_no_console(
    fleet: tuple[ServerProcess, list[Install]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # exports are files
    server, installs = fleet
    async with run_fault_proxy(server.port) as proxy, open_console(server, size=START_SIZE, url=proxy.url) as console:
        fuzz = ConsoleFuzz(console, Random(1), installs, proxy)
        await console.wait_for_text("● live", "SENT")
        assert await fuzz.run(30)
        await fuzz.settle()


@pytest.mark.long
@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + LONG_RUNS))
async def test_a_thousand_random_events_leave_the_screen_of_a_fresh_start(
    fleet: tuple[ServerProcess, list[Install]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.chdir(tmp_path)
    server, installs = fleet
    max_rows = MAX_ROWS if seed % 2 else 8  # fewer than there are: the rows are a window
    async with run_fault_proxy(server.port) as proxy:
        async with open_console(server, size=START_SIZE, max_rows=max_rows, url=proxy.url) as console:
            fuzz = ConsoleFuzz(console, Random(seed), installs, proxy)
            await console.wait_for_text("● live", "SENT")
            if not await fuzz.run(EVENTS):
                return
            await fuzz.settle()
            store = console.app.session.store
            place = render_place(console.app.place)
            if console.app.place.view == "instances":  # the default order depends on the first rows
                order = sort_text(store.sort_column, store.is_descending)
                place = render_place(replace(console.app.place, sort=order))
            shown = comparable_screen(console)
            columns = console.app.dashboard.column_choices  # which a console keeps in its configuration file
            settings = Settings(replace(EMPTY, columns=columns))
            if store.is_windowed and "\ufffd" in place:
                return  # the server is asked for the text that was sent, which a fresh console has not seen
        async with open_console(
            server, size=START_SIZE, place=place, max_rows=max_rows, url=proxy.url, settings=settings
        ) as fresh:
            await ConsoleFuzz(fresh, Random(seed), installs, proxy).settle()
            assert shown == comparable_screen(fresh), f"seed {seed} at {place}, {columns}, after {fuzz.events[-80:]}"


# What random events have found.


def send_keys(console: DrivenConsole, *keys: str) -> None:
    """Sends keys without a pause, as a terminal does with what was typed ahead."""
    assert console.app._driver is not None
    for key in keys:
        console.app._driver.process_message(events.Key(key, key if len(key) == 1 else None))


async def open_palette(console: DrivenConsole) -> None:
    """Opens the palette of actions."""
    await console.pilot.press("ctrl+p")
    await console.wait_until(lambda: isinstance(console.app.screen, Palette))


@pytest.mark.parametrize("opening", long_after(1, ["ctrl+p", "T", "question_mark", "Y", "ctrl+s"]))
async def test_escape_twice_at_once_closes_one_screen(fleet: tuple[ServerProcess, list[Install]], opening: str) -> None:
    async with open_console(fleet[0], "ledger") as console:
        await console.wait_for_text("● live", "SENT")
        send_keys(console, opening)
        await console.wait_until(lambda: len(console.app.screen_stack) == 2)
        send_keys(console, "escape", "escape", "escape")
        await console.wait_until(lambda: len(console.app.screen_stack) == 1)
        await console.pilot.pause(0.1)
        assert (console.app._exception, len(console.app.screen_stack)) == (None, 1)


@pytest.mark.parametrize("opening", long_after(1, ["colon", "ctrl+p", "T", "question_mark"]))
async def test_ctrl_c_closes_what_is_open(fleet: tuple[ServerProcess, list[Install]], opening: str) -> None:
    """It does not ask for the end of the console there."""
    async with open_console(fleet[0], "ledger") as console:
        await console.wait_for_text("● live", "SENT")
        await console.pilot.press(opening)
        await console.pilot.press("ctrl+c")
        await console.wait_until(lambda: len(console.app.screen_stack) == 1 and not console.app.commands.is_open)
        assert "Ctrl+C again" not in console.screen


async def test_a_palette_that_closes_during_a_slow_search_ends_no_console(
    fleet: tuple[ServerProcess, list[Install]],
) -> None:
    async with open_console(fleet[0], "ledger") as console:
        await console.wait_for_text("● live", "SENT")
        await open_palette(console)
        palette = console.app.screen
        await console.pilot.press("escape")
        await console.wait_until(lambda: not palette.query("*"))
        palette._show_busy = True  # type: ignore[attr-defined] # as a timer of Textual's does
        palette._list_visible = True  # type: ignore[attr-defined]
        await console.pilot.pause(0.1)
        assert console.app._exception is None


async def test_a_palette_opens_while_another_one_closes(fleet: tuple[ServerProcess, list[Install]]) -> None:
    """A closed screen is removed a little later."""
    async with open_console(fleet[0], "ledger") as console:
        await console.wait_for_text("● live", "SENT")
        await open_palette(console)
        first = console.app.screen
        first.dismiss()
        console.app.action_command_palette()
        await console.wait_until(lambda: isinstance(console.app.screen, Palette) and console.app.screen is not first)
        assert console.app._exception is None


async def test_a_press_on_a_widget_that_is_gone_ends_no_console(fleet: tuple[ServerProcess, list[Install]]) -> None:
    """The widget stays on the screen until the next layout."""
    async with open_console(fleet[0], "ledger") as console:
        await console.wait_for_text("● live", "SENT")
        label = Label("a label")
        await console.app.screen.mount(label)
        await console.wait_for_text("a label")
        x, y = label.region.offset
        assert console.app.screen.get_widget_at(x, y)[0] is label
        label._detach()  # as Textual does before the layout without it
        await console.app.on_event(events.MouseDown(None, x, y, 0, 0, 1, False, False, False, x, y))
        await console.pilot.pause()
        label._attach(console.app.screen)
        assert console.app._exception is None


async def test_a_drag_selects_no_text_and_leaves_ctrl_c_alone(fleet: tuple[ServerProcess, list[Install]]) -> None:
    async with open_console(fleet[0], "ledger") as console:
        await console.wait_for_text("● live", "SENT")
        for kind, x, y in ((events.MouseDown, 2, 2), (events.MouseMove, 20, 3), (events.MouseUp, 20, 3)):
            await console.app.on_event(kind(None, x, y, 0, 0, 1, False, False, False, x, y))
        await console.pilot.press("ctrl+c")
        await console.wait_for_text("Ctrl+C again")


async def test_a_click_on_an_entry_that_is_gone_ends_no_console(fleet: tuple[ServerProcess, list[Install]]) -> None:
    """A search replaces the entries after the click and before the list gets it."""
    async with open_console(fleet[0], "ledger") as console:
        await console.wait_for_text("● live", "SENT")
        await open_palette(console)
        entries = console.app.screen.query_one(OptionList)
        await console.wait_until(lambda: entries.option_count)
        clicked = Style(meta={"option": entries.option_count - 1})
        click = events.Click(entries, 4, 0, 0, 0, 1, False, False, False, style=clicked)
        entries.clear_options()
        entries.post_message(click)
        await console.pilot.pause()
        assert console.app._exception is None


async def test_a_click_outside_of_a_smaller_terminal_ends_no_console(
    fleet: tuple[ServerProcess, list[Install]],
) -> None:
    """The terminal becomes smaller after the click and before the palette gets it."""
    async with open_console(fleet[0], "ledger") as console:
        await console.wait_for_text("● live", "SENT")
        await open_palette(console)
        await console.pilot.resize_terminal(60, 20)
        x, y = 110, 30
        console.app.screen.post_message(events.Click(None, x, y, 0, 0, 1, False, False, False, x, y))
        await console.pilot.pause()
        assert (console.app._exception, len(console.app.screen_stack)) == (None, 2)


async def test_a_page_of_a_palette_without_room_ends_no_console(fleet: tuple[ServerProcess, list[Install]]) -> None:
    async with open_console(fleet[0], "ledger") as console:
        await console.wait_for_text("● live", "SENT")
        await console.pilot.resize_terminal(20, 2)
        await console.pilot.press("ctrl+p")
        await console.wait_until(lambda: console.app.screen.query_one(OptionList).option_count)
        await console.pilot.press("pageup", "pagedown")
        assert console.app._exception is None


@pytest.mark.long
async def test_a_view_of_no_height_with_an_error_is_drawn(fleet: tuple[ServerProcess, list[Install]]) -> None:
    async with run_fault_proxy(fleet[0].port) as proxy, open_console(fleet[0], "ledger", url=proxy.url) as console:
        await console.wait_for_text("● live", "SENT")
        await console.pilot.press("E")
        await console.wait_until(lambda: console.app.navigation.view.has_answer)
        proxy.refuses_connections = True
        proxy.cut_connections()
        await console.pilot.press("r")
        view = console.app.navigation.view.session
        await console.wait_until(lambda: view is not None and view.error)
        await console.pilot.resize_terminal(20, 3)
        await console.pilot.press("j", "G")
        await console.pilot.resize_terminal(120, 36)
        await console.wait_for_text("Events", proxy.url)  # the reason, in the last line


async def test_the_filter_of_the_top_line_is_that_of_the_rows(fleet: tuple[ServerProcess, list[Install]]) -> None:
    """Also after a view whose filter is not of the rows, and in another application with the same filter."""
    async with open_console(fleet[0], place="ledger/instances /sent>=280") as console:
        await console.wait_until(lambda: 0 < len(console.rows()) < 10)
        await console.pilot.press("F", "I")
        await console.wait_until(lambda: len(console.app.table.store.visible_ids) == 30)
        console.app.go(parse_place("ledger/instances /1.3.0", Place()))
        await console.wait_until(lambda: 0 < len(console.app.table.store.visible_ids) < 30)
        console.app.go(parse_place("kiosk/instances /1.3.0", Place()))
        await console.wait_for_text("No instance matches")


async def test_the_place_has_the_filter_in_effect_while_a_text_is_invalid(
    fleet: tuple[ServerProcess, list[Install]],
) -> None:
    async with open_console(fleet[0], "ledger") as console:
        await console.wait_for_text("● live", "SENT")
        await console.pilot.press("slash", *"status:pending")
        await console.wait_until(lambda: console.app.place.filter == "status:pending")
        await console.pilot.press("h")
        await console.wait_until(lambda: console.app.filter.text == "")
        assert console.app.place.filter == ""
        assert len(console.app.table.store.visible_ids) == 30


async def test_an_empty_table_names_the_metric_that_is_unknown(fleet: tuple[ServerProcess, list[Install]]) -> None:
    """Also after the prompt has closed; and no metric that was unknown only until the rows arrived."""
    warning = "no instance has sent “sent”"
    async with open_console(fleet[0], place="kiosk/instances") as console:
        await console.wait_for_text("● live", "PLAYS")
        await console.enter("sent:1", "slash")
        await console.wait_for_text("No instance matches", warning)
    for app, is_known in (("kiosk", False), ("ledger", True)):
        async with open_console(fleet[0], place=f"{app}/instances /sent>99999") as console:
            await console.wait_for_text("No instance matches", "● live")
            await console.wait_until(lambda: (warning in console.screen) != is_known)  # noqa: B023


async def test_the_place_has_the_order_of_the_rows(fleet: tuple[ServerProcess, list[Install]]) -> None:
    for order, head in (("version", "VERSION↑"), ("seen", "SEEN↑")):
        async with open_console(fleet[0], place=f"ledger/instances sort={order}") as console:
            await console.wait_for_text("● live", "SENT", head)
            await console.pilot.press("F", "I")
            await console.wait_for_text(head)
            assert f"sort={order}" in render_place(console.app.place)


async def test_all_applications_can_be_the_first_place(fleet: tuple[ServerProcess, list[Install]]) -> None:
    async with open_console(fleet[0], place="*/instances") as console:
        await console.wait_for_text("● live", "All applications", "Kiosk")
        await console.pilot.pause(0.5)
        assert console.app.place.app is None


@pytest.mark.long
async def test_the_theme_under_the_cursor_is_drawn_until_another_is_chosen(
    fleet: tuple[ServerProcess, list[Install]],
) -> None:
    async with open_console(fleet[0], "ledger") as console:
        await console.wait_for_text("● live", "SENT")
        before = console.app.theme
        await console.pilot.press("T")
        await console.wait_for_text("nord")
        await console.pilot.press(*"nord")
        await console.wait_until(lambda: console.app.theme == "nord", "the theme under the cursor")
        await console.pilot.press("escape")
        await console.wait_until(lambda: console.app.theme == before, "the theme before")
        await console.pilot.press("T", *"nord")
        await console.wait_until(lambda: console.app.theme == "nord")
        await console.pilot.press("enter")
        await console.wait_until(lambda: len(console.app.screen_stack) == 1)
        await console.pilot.pause()
        assert console.app.theme == "nord"
