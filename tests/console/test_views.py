"""The views on a real server: their figures, their keys, and their states."""

import asyncio
from collections.abc import Iterator
from itertools import pairwise

import pytest
from rich.segment import Segment
from textual.strip import Strip
from textual.widgets import OptionList

from shm_tui.model.place import VIEW_NAMES, Place, ViewName
from shm_tui.widgets.tiles import Tiles
from shm_tui.widgets.view_pane import ViewPane, _changed_region
from tests.support.console import DrivenConsole, open_console, viewer_token
from tests.support.installs import Install
from tests.support.module_server import module_server
from tests.support.server_process import ServerProcess

OF_APPLICATION = [view for view in VIEW_NAMES if view not in ("instances", "instance")]
TIMED_VIEWS = ("fleet", "versions", "lifecycle", "metric")  # that have a range
SIZES = [(80, 24), *(pytest.param(size, marks=pytest.mark.long) for size in ((120, 40), (200, 50)))]


@pytest.fixture(scope="module")
def fleet(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, list[Install]]]:
    """A server with three applications: 4 installs of Ledger, 1 of Kiosk and 1 with hostile strings."""
    with module_server(postgres, tmp_path_factory.mktemp("views")) as (server, _):
        versions = ("1.4.2", "1.4.2", "1.4.1", "1.5.0")
        installs = [
            Install(server.url, app_version=version, os_arch=("linux/amd64", "windows/amd64")[number // 3]).enroll(
                {"sent": 10 * (number + 1), "beta": number > 0, "db": "pg", "mail": {"bounced": number}}
            )
            for number, version in enumerate(versions)
        ]
        Install(server.url, app_name="Kiosk", app_version="3.1").enroll({"plays": 7})
        hostile = "\x1b]52;c;aGk=\x07[/x]\u202e日本"
        Install(server.url, hostile + "evil", hostile, hostile, hostile, hostile).enroll(
            {f"k{hostile}": 5, "text": hostile}
        )
        yield server, installs


async def wait_for_view(console: DrivenConsole) -> ViewPane:
    """Waits until the open view has data."""

    def is_loaded() -> bool:
        session = console.app.navigation.view.session
        return console.app.drawing.data_shown.is_set() and session is not None and session.loaded_at is not None

    await console.wait_until(is_loaded, "the view's data")
    await console.pilot.pause(0.3)  # one drawing
    return console.app.dashboard.view


@pytest.mark.parametrize("view", OF_APPLICATION)
async def test_the_footer_of_a_view_has_the_keys_that_work_there(
    fleet: tuple[ServerProcess, list[Install]], view: ViewName
) -> None:
    """And a title that has no room beside the row's number ends with an ellipsis."""
    server, _ = fleet
    has_time, has_range = view in ("versions", "lifecycle", "metric"), view in TIMED_VIEWS
    async with open_console(
        server, size=(80, 24), place=f"ledger/{view}{'/sent' if view == 'metric' else ''}"
    ) as console:
        await wait_for_view(console)
        footer = console.screen.splitlines()[-1]
        assert ("← → time" in footer, "1-6 range" in footer) == (has_time, has_range), footer
        assert footer.endswith("? help   q quit" if view == "fleet" else "? help   q close")
        title = console.screen.splitlines()[1]
        assert " row 1 of" not in title or title[: title.index(" row 1 of")].endswith(("…", " "))


@pytest.mark.parametrize("size", SIZES)
async def test_each_view_shows_the_figures_of_the_api(
    fleet: tuple[ServerProcess, list[Install]], size: tuple[int, int]
) -> None:
    server, installs = fleet
    async with open_console(server, "ledger", size) as console:
        await console.wait_for_text("SENT", "● live")
        await console.pilot.press("V")
        await console.wait_for_text("1.5.0 is the latest: 25 % run it", "3 instances behind", "2   50 %", "100 % │")
        await console.pilot.press("L")
        await console.wait_for_text("4 new", "0 lost", "4 active")
        await console.pilot.press("B")
        await console.wait_for_text("by version", "1.4.2", "50 %")
        await console.pilot.press("l")
        await console.wait_for_text("by os_arch", "linux/amd64", "75 %")
        await console.pilot.press("shift+right", "shift+right")
        await console.wait_for_text("sum of Sent", "METRIC", "60")
        await console.enter("metric/sent", "colon")
        await console.wait_for_text("100 now", "of 4 instances", "p50", "max 40", "1.4.2")
        await console.pilot.press("d", "m")
        await console.wait_for_text("OS_ARCH", "windows/amd64", "over it: Mail bounced", "Mail bounced 6")
        await console.pilot.press("F")
        await console.wait_for_text("3 applications", "Kiosk", "+4", "TREND")
        await console.pilot.press("E")
        await console.wait_for_text("Events")
        await console.enter(f"instance/{installs[0].instance_id[:8]}", "colon")
        await console.wait_for_text(installs[0].instance_id, "1 snapshot", "mail.bounced", "FLEET P50")
        await console.pilot.press("G")
        await console.wait_for_text("DECISIONS", "JSON", '"sent": 10')
        await console.pilot.press("colon", *"tok", "tab", "enter")
        await console.wait_for_text("Tokens", "1 token", "admin", "never")
        await console.enter("audit", "colon")
        await console.wait_for_text("Audit trail")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("app", ["evil", pytest.param("ledger", marks=pytest.mark.long)])
async def test_no_line_of_a_view_is_hostile_or_too_long(
    fleet: tuple[ServerProcess, list[Install]], size: tuple[int, int], app: str
) -> None:
    server, _ = fleet
    slugs = [each["slug"] for each in server.get("applications").json()]
    slug = app if app in slugs else next(each for each in slugs if each not in ("ledger", "kiosk", "silent"))
    async with open_console(server, slug, size) as console:
        await console.wait_for_text("● live")
        for view in OF_APPLICATION:
            console.app.go(Place(slug, view))
            await wait_for_view(console)
            screen = console.screen
            assert all(character == "\n" or character.isprintable() for character in screen), view
            assert not {"\u202e", "\x1b"} & set(screen), view
            assert all(strip.cell_length == size[0] for strip in console.strips()), view
            assert "internal error" not in screen, view


async def test_tiles_follow_the_filter_and_the_past_is_marked(fleet: tuple[ServerProcess, list[Install]]) -> None:
    server, _ = fleet
    async with open_console(server, "ledger") as console:
        await console.wait_for_text("SENT", "● live")
        await console.enter("version:1.4", "slash")
        await console.wait_for_text("tiles: of the 3 that match")
        assert [tile.value for tile in console.app.dashboard.query_one(Tiles).tiles if tile.key == "sent"] == ["60"]
        await console.enter("at -1d", "colon")
        await console.wait_for_text("AS OF 20", "ROWS OF NOW", "0 instances with a snapshot", "tiles: of all", "3 of 4")
        assert len(console.rows()) == 3
        await console.pilot.press("escape")
        await console.wait_until_gone("tiles: of all")
        assert len(console.rows()) == 4
        await console.pilot.press("2")
        await console.wait_for_text("7d has no past")
        await console.enter("metric/db", "colon")
        await console.wait_for_text("Values of strings in the past are not known.")
        await console.pilot.press("L")
        await console.wait_for_text("LIFECYCLE OF NOW, NOT OF")
        await console.pilot.press("backspace", "backspace", "backspace")
        await console.wait_until_gone("OF NOW")
        assert console.app.place.at is None
        await console.wait_for_text("4 active of 4 instances")


async def test_panes_are_beside_each_other_where_there_is_room(fleet: tuple[ServerProcess, list[Install]]) -> None:
    server, installs = fleet
    async with open_console(server, "ledger", (200, 50)) as console:
        dashboard = console.app.dashboard
        await console.wait_for_text("BOUNCED↓", "Mail bounced   6 now", "Over 4 now")
        await console.pilot.press("enter")
        await console.wait_for_text(installs[3].instance_id, "windows/amd64")
        panes = [dashboard.sidebar, dashboard.table, dashboard.chart, dashboard.details]
        assert all(left.region.right <= right.region.x for left, right in pairwise(panes))
        assert dashboard.details.region.right == 200
        await console.pilot.press("shift+right")
        await console.wait_for_text("Sent   100 now")  # the chart follows the sorted column
        await console.pilot.resize_terminal(120, 40)
        await console.wait_until(lambda: not dashboard.chart.display, "the end of the chart")
        await console.wait_for_text(installs[3].instance_id)
        assert dashboard.table.region.right <= dashboard.details.region.x
        await console.pilot.resize_terminal(80, 24)
        await console.wait_until(lambda: dashboard.details.region.width == 80, "details that fill the screen")


async def test_enter_on_a_row_lists_its_instances_and_backspace_returns(
    fleet: tuple[ServerProcess, list[Install]],
) -> None:
    server, _ = fleet
    async with open_console(server, place="ledger/versions 7d") as console:
        pane = await wait_for_view(console)
        assert pane.has_focus
        await console.pilot.press("j")
        assert console.app.dashboard.view.target == Place("ledger", "instances", filter="version=1.4.2", range="7d")
        await console.pilot.press("enter")
        await console.wait_until(lambda: len(console.rows()) == 2, "the instances of 1.4.2")
        assert console.app.table.has_focus
        await console.pilot.press("backspace")
        await wait_for_view(console)
        assert console.app.place == Place("ledger", "versions", range="7d")
        await console.pilot.press("B", "2")
        await console.wait_for_text("by version", "VALUE")
        await console.pilot.press("l")
        await console.wait_for_text("linux/amd64")
        await console.pilot.press("enter")
        await console.wait_until(lambda: console.app.place.filter == "os=linux/amd64" and len(console.rows()) == 3)
        await console.pilot.press("escape", "escape")  # clears the filter, then goes up to the fleet
        await console.wait_for_text("Fleet", "3 applications")
        await console.pilot.press("q")
        await console.wait_until(lambda: not console.app.is_running)


async def test_a_place_keeps_its_filter_and_its_order(fleet: tuple[ServerProcess, list[Install]]) -> None:
    server, _ = fleet
    async with open_console(server, place="ledger sort=sent /sent>10") as console:
        await console.wait_until(lambda: len(console.rows()) == 3 and "20" in console.rows()[0])
        await console.pilot.press("s", "V")
        await wait_for_view(console)
        await console.pilot.press("backspace")
        await console.wait_until(lambda: len(console.rows()) == 3 and "40" in console.rows()[0])
        assert console.app.place == Place("ledger", filter="sent>10", sort="-sent")


async def test_a_wrong_place_stays_in_the_prompt_with_the_reason(fleet: tuple[ServerProcess, list[Install]]) -> None:
    server, _ = fleet
    async with open_console(server, "ledger") as console:
        await console.wait_until(lambda: len(console.rows()) == 4 and console.app.overview.applications)
        await console.enter("kisok", "colon")
        await console.wait_for_text("“kisok” is no view and no application", "tokens audit")
        assert console.app.commands.is_open
        await console.pilot.press("ctrl+u", *"kio", "tab", "enter")
        await console.wait_for_text("PLAYS")
        await console.wait_until(lambda: console.app.dashboard.footer.size.height == 1)
        await console.enter("pause", "colon")
        await console.wait_for_text("paused")
        await console.enter("quit", "colon", "escape", "colon")
        await console.wait_until(lambda: not console.app.is_running)


async def test_the_time_that_is_read_stays_while_data_arrive(fleet: tuple[ServerProcess, list[Install]]) -> None:
    server, _ = fleet
    async with open_console(server, place="ledger/lifecycle 30d") as console:
        pane = await wait_for_view(console)
        await console.pilot.press("h", "h")
        before = next(
            line for line in console.screen.splitlines() if "active" in line and "returned" in line and "20" in line
        )
        loaded_at = console.app.navigation.view.session and console.app.navigation.view.session.loaded_at
        await console.pilot.press("r")
        await console.wait_until(
            lambda: console.app.navigation.view.session and console.app.navigation.view.session.loaded_at != loaded_at
        )
        assert before in console.screen
        await console.pilot.press("l", "l", "l")
        assert pane._selected_time is None


async def test_the_fleet_is_searched_by_name(fleet: tuple[ServerProcess, list[Install]]) -> None:
    server, _ = fleet
    async with open_console(server, place="fleet") as console:
        await console.wait_for_text("3 applications", "Kiosk", "Ledger")
        await console.enter("kio", "slash")
        await console.wait_for_text("1 of 3 applications")
        await console.enter("nobody", "slash", "ctrl+u")
        await console.wait_for_text("No application matches  /nobody")
        await console.pilot.press("escape")
        await console.wait_for_text("Ledger")
        await console.pilot.press("slash", *"kio", "enter", "enter")
        await console.wait_for_text("PLAYS")


async def test_why_a_view_has_no_data_is_not_cut(server: ServerProcess) -> None:
    async with open_console(server, place="tokens", size=(60, 24), token=viewer_token(server)) as console:
        await console.wait_for_text("the token's role is too small", "is required.", "r asks again.")


async def test_a_view_keeps_its_data_while_the_server_is_away(server: ServerProcess) -> None:
    Install(server.url).enroll({"sent": 1})
    async with open_console(server, place="ledger/versions", size=(120, 40)) as console:
        await wait_for_view(console)
        await console.wait_for_text("1.4.2 is the latest")
        await asyncio.to_thread(server.kill)
        await console.pilot.press("r")
        await console.wait_for_text("data of", "1.4.2 is the latest", "◌ disconnected")
        await console.pilot.press("L")
        await console.wait_for_text("No data has arrived yet. Retrying.")
        await asyncio.to_thread(server.start)
        await console.wait_for_text("1 active", "● live")


async def test_a_click_on_a_tile_shows_its_chart(fleet: tuple[ServerProcess, list[Install]]) -> None:
    server, _ = fleet
    for size, tile in (((80, 24), "SENT 100"), ((120, 40), "75 %")):
        async with open_console(server, "ledger", size) as console:
            await console.wait_for_text(tile, "● live")
            lines = list(enumerate(console.screen.splitlines()))
            y, x = next((y, line.index(tile)) for y, line in lines if tile in line)
            await console.pilot.click(offset=(x + 1, y))
            await wait_for_view(console)
            assert console.app.place.subject == ("ledger", "metric", ("sent" if size[0] == 80 else "beta",), None)


async def test_the_palette_opens_applications_of_any_name(fleet: tuple[ServerProcess, list[Install]]) -> None:
    server, _ = fleet
    async with open_console(server, "ledger", (120, 60)) as console:
        await console.wait_until(lambda: console.app.drawing.data_shown.is_set() and console.app.overview.applications)
        await console.pilot.press("ctrl+p", *"evil")
        await console.wait_for_text("日本evil", "application, 1 active")
        found = console.app.screen.query_one(OptionList)
        await console.wait_until(lambda: found.highlighted == 0 and "evil" in str(found.options[0].prompt), "the best")
        await console.pilot.press("enter")
        await console.wait_until(lambda: console.app.place.app not in ("ledger", "kiosk", None), "the application")


async def test_keys_in_the_fleet_are_of_the_application_under_the_cursor(
    fleet: tuple[ServerProcess, list[Install]],
) -> None:
    server, _ = fleet
    async with open_console(server, "ledger") as console:
        await console.wait_for_text("● live")
        await console.enter("kio", "F", "slash")
        await console.wait_for_text("1 of 3 applications")
        await console.pilot.press("V")
        await wait_for_view(console)
        assert console.app.place.subject == ("kiosk", "versions", (), None)


async def test_a_decision_hits_only_what_the_screen_shows(fleet: tuple[ServerProcess, list[Install]]) -> None:
    """The list behind a view has a cursor too."""
    server, installs = fleet
    async with open_console(server, "ledger") as console:
        await console.wait_until(lambda: len(console.rows()) == 4 and console.app.is_admin)
        await console.pilot.press("V")
        await wait_for_view(console)
        await console.pilot.press("R", "X", "a", "y")
        assert len(console.app.screen_stack) == 1
        console.app.go(Place("ledger", "instance", (installs[2].instance_id,)))
        await wait_for_view(console)
        await console.pilot.press("R")
        await console.wait_for_text("Revoke this instance?", f"{installs[2].instance_id}")
        await console.pilot.press("n")


async def test_an_application_without_figures_is_no_failure(fleet: tuple[ServerProcess, list[Install]]) -> None:
    server, _ = fleet
    Install(server.url, app_name="Silent", app_version="").enroll({})
    async with open_console(server, place="silent/metric") as console:
        await console.wait_for_text("This application has no metric yet.")
        await console.pilot.press("V")
        await console.wait_for_text("Versions")
        console.app.go(Place("nobody", "lifecycle"))
        await console.wait_for_text("No application has this slug", "Backspace goes")


def test_only_the_cells_that_differ_are_written() -> None:
    before, after = (Strip([Segment("Ledger  "), Segment(count), Segment("  linux")]) for count in ("1,105", "1,107"))
    assert _changed_region(3, before, after) == (12, 3, 1, 1)
