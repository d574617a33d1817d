"""The console on a real server: its contents, its keys, and a server that stops."""

import ast
import asyncio
import secrets
from collections.abc import Callable, Iterator

import pytest
from textual.widgets import OptionList

from shm_tui.model.empty_message import setup_lines
from shm_tui.widgets.detail_panel import DetailPanel
from shm_tui.widgets.tiles import Tiles
from tests.support.console import DrivenConsole, open_console
from tests.support.databases import admin_cursor
from tests.support.installs import Install
from tests.support.module_server import module_server
from tests.support.parameters import long_after
from tests.support.server_process import ServerProcess


@pytest.fixture(scope="module")
def shared_app_server(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server for tests that each use an application of their own."""
    with module_server(postgres, tmp_path_factory.mktemp("shared")) as (server, _):
        yield server


@pytest.fixture
def app() -> str:
    """An application that no other test has: its name and its slug."""
    return f"ledger{secrets.token_hex(4)}"  # with a hyphen it would look like a slug with a hash


def report_fleet(server: ServerProcess, count: int = 5, app: str = "Ledger", **metrics: object) -> list[Install]:
    """Installs of an application whose `sent` is ten times their number."""
    return [Install(server.url, app_name=app).enroll({"sent": 10 * number, **metrics}) for number in range(count)]


def are_rows_dimmed(console: DrivenConsole) -> bool:
    """Whether the versions of active instances are drawn in the dim colour."""
    dim = console.app.table.get_component_rich_style("table--dim").color
    screen = [segment for strip in console.strips() for segment in strip if segment.text.strip() == "1.4.2"]
    return bool(screen) and all(segment.style is not None and segment.style.color == dim for segment in screen)


def is_tile_dimmed(console: DrivenConsole) -> bool:
    """Whether the values of tiles are drawn in the colour of their labels."""
    tiles = console.app.query_one(Tiles)
    value, label = (tiles.get_component_rich_style(f"tiles--{name}") for name in ("value", "label"))
    return value.color == label.color


async def test_tiles_and_columns_are_built_from_the_reported_keys(server: ServerProcess) -> None:
    Install(server.url).enroll({"pizzas_eaten": 10, "beta": True, "db": "postgres", "mail": {"sent": 3}})
    async with open_console(server, size=(200, 50)) as console:
        await console.wait_for_text("PIZZAS EATEN", "100 %", "postgres 100 %", "MAIL SENT")
        await console.wait_until(lambda: {"10", "3", "yes", "postgres"} <= {*console.rows()[0].split()}, "the cells")
        assert len(console.rows()) == 1


async def test_the_headline_says_that_keys_are_not_aggregated(serve: Callable[..., ServerProcess]) -> None:
    server = serve(SHM_MAX_KEYS="1")
    Install(server.url).enroll({"orders": 3, "refunds": 1})
    async with open_console(server, "ledger", size=(160, 40)) as console:
        await console.wait_for_text("ORDERS", "some keys are not aggregated")


@pytest.mark.parametrize("limit", ["SHM_MAX_NEW_INSTALLS", "SHM_MAX_NEW_APPLICATIONS"])
async def test_the_overview_says_that_installs_wait_for_approval(
    serve: Callable[..., ServerProcess], limit: str
) -> None:
    """Also while other new installs need no approval."""
    server = serve(SHM_RATELIMIT_ENABLED="true", **{limit: "1"})
    for app in ("Ledger", "Kiosk"):
        install = Install(server.url, app_name=app)
        install.register()
        install.activate()
    async with open_console(server, size=(200, 50)) as console:
        await console.wait_until(lambda: console.app.session.is_listed, "the list of an application")
        console.app.show_application(None)
        await console.wait_for_text("PENDING", "wait for approval")


async def test_a_new_key_becomes_a_tile_and_a_column(server: ServerProcess) -> None:
    (install,) = report_fleet(server, 1)
    async with open_console(server) as console:
        await console.wait_for_text("SENT")
        await asyncio.to_thread(install.snapshot, {"sent": 1, "sandwiches": 7})
        await console.wait_until(lambda: console.screen.count("SANDWICHES") == 2, "a tile and a column")


async def test_a_snapshot_changes_its_cell_and_the_tile(server: ServerProcess) -> None:
    installs = report_fleet(server, 3)
    async with open_console(server, "ledger") as console:
        await console.wait_for_text("SENT", "30")
        await asyncio.to_thread(installs[0].snapshot, {"sent": 4000})
        await console.wait_until(lambda: "4.03k" in console.screen and "4.00k" in console.screen, "4,030 and 4,000")


async def test_the_cursor_stays_on_its_instance_when_rows_move(shared_app_server: ServerProcess, app: str) -> None:
    installs = report_fleet(shared_app_server, 4, app)
    async with open_console(shared_app_server, app) as console:
        await console.wait_until(lambda: len(console.app.table.store.visible_ids) == 4)
        await console.pilot.press("down")
        instance_id_before = console.app.table.cursor_id
        assert instance_id_before == installs[2].instance_id
        await asyncio.to_thread(installs[0].snapshot, {"sent": 999})
        await console.wait_until(lambda: console.app.table.store.visible_ids[0] == installs[0].instance_id)
        assert console.app.table.cursor_id == instance_id_before


@pytest.mark.long
async def test_arrows_move_the_cursor_in_a_table_longer_than_the_screen(
    shared_app_server: ServerProcess, app: str
) -> None:
    report_fleet(shared_app_server, 30, app)
    async with open_console(shared_app_server, app, (80, 24)) as console:
        table = console.app.table
        await console.wait_until(lambda: len(table.store.visible_ids) == 30 and console.app.drawing.data_shown.is_set())
        for keys, index in ((["down"] * 3, 3), (["up"], 2), (["end"], 29), (["pageup"], 12), (["G", "g"], 0)):
            await console.pilot.press(*keys)
            assert table.store.index_of(table.cursor_id) == index, keys
            assert table.store.visible_ids[index][:8] in " ".join(console.rows()), "the view follows the cursor"


async def test_the_filter_applies_while_typing_and_escape_clears_it(shared_app_server: ServerProcess, app: str) -> None:
    report_fleet(shared_app_server, 5, app)
    async with open_console(shared_app_server, app) as console:
        await console.wait_until(lambda: len(console.rows()) == 5)
        await console.pilot.press("slash", *"sent>20")
        await console.wait_until(lambda: len(console.rows()) == 2)
        await console.pilot.press("enter", "slash", *"0000")
        await console.wait_for_text("No instance matches")
        await console.pilot.press("escape", "escape")  # closes the prompt, then shows all rows
        await console.wait_until(lambda: len(console.rows()) == 5)


async def test_versions_are_sorted_and_compared_as_the_server_does(shared_app_server: ServerProcess, app: str) -> None:
    for version in ("2.0", "v1.10", "1.10.0-rc1", "main", "1.9", "1.9-ls12"):
        Install(shared_app_server.url, app_name=app, app_version=version).enroll({"sent": 1})
    listed = [item["app_version"] for item in shared_app_server.get(f"instances?app={app}&sort=app_version").json()]
    latest = shared_app_server.get(f"applications/{app}/versions").json()["latest"]
    async with open_console(shared_app_server, app) as console:
        store = console.app.session.store
        await console.wait_until(lambda: len(console.rows()) == 6)
        for _ in console.app.table.columns:
            if store.sort_column.id != "version":
                await console.pilot.press("shift+right")
        shown = [store.rows[key].instance.app_version for key in store.visible_ids]
        assert shown == listed == ["main", "1.9", "1.9-ls12", "1.10.0-rc1", "v1.10", "2.0"]
        assert shown[-1] == latest
        await console.enter("version>=1.10", "slash")
        await console.wait_until(lambda: len(console.rows()) == 2 and not console.app.filter.is_open)
        assert [store.rows[key].instance.app_version for key in store.visible_ids] == ["v1.10", "2.0"]


async def test_an_invalid_filter_shows_the_reason(shared_app_server: ServerProcess, app: str) -> None:
    report_fleet(shared_app_server, 1, app)
    async with open_console(shared_app_server, app) as console:
        await console.wait_until(lambda: console.rows())
        await console.pilot.press("slash", *"status:nonsense")
        await console.wait_for_text("status: is one of")


async def test_an_invalid_filter_is_never_kept(shared_app_server: ServerProcess, app: str) -> None:
    report_fleet(shared_app_server, 5, app)
    async with open_console(shared_app_server, app) as console:
        await console.wait_until(lambda: len(console.rows()) == 5)
        await console.enter("status:zzz", "slash")
        await console.wait_for_text("status: is one of")
        assert console.app.filter.is_open
        await console.wait_until(lambda: len(console.rows()) == 5)
        await console.pilot.press("tab")
        await console.wait_until(lambda: not console.app.filter.is_open)
        assert len(console.rows()) == 5


@pytest.mark.long
async def test_all_of_many_applications_are_listed(server: ServerProcess) -> None:
    for number in range(55):
        Install(server.url, app_name=f"App {number:02}").enroll()
    for _ in range(2):
        Install(server.url, app_name="Zebra").enroll({"sent": 1})
    async with open_console(server) as console:
        await console.wait_for_text("Zebra  ", "SENT")
        await console.wait_until(lambda: len(console.app.overview.applications or ()) == 56, "all applications")


async def test_an_unknown_application_differs_from_an_empty_server(shared_app_server: ServerProcess) -> None:
    report_fleet(shared_app_server, 1)
    async with open_console(shared_app_server, "nobody") as console:
        await console.wait_for_text("There is no application “nobody”")


@pytest.mark.long
async def test_the_values_of_long_keys_stay_aligned(shared_app_server: ServerProcess, app: str) -> None:
    report_fleet(shared_app_server, 1, app, **{"a_key_" + "x" * 100 + "_end": 4711})
    async with open_console(shared_app_server, app) as console:
        await console.wait_until(lambda: console.rows())
        await console.pilot.press("enter")
        await console.wait_until(lambda: any("…" in line and "4,711" in line for line in console.screen.splitlines()))


async def test_brackets_in_the_filter_are_not_markup(shared_app_server: ServerProcess, app: str) -> None:
    report_fleet(shared_app_server, 1, app)
    async with open_console(shared_app_server, app) as console:
        await console.wait_until(lambda: console.rows())
        await console.pilot.press("slash", "left_square_bracket", "slash", "left_square_bracket")
        await console.wait_for_text("No instance matches  /[/[")


async def test_a_reload_shows_changes_that_the_feed_did_not_send(server: ServerProcess, database: str) -> None:
    report_fleet(server, 2)
    async with open_console(server, "ledger") as console:
        await console.wait_until(lambda: len(console.rows()) == 2)
        with admin_cursor(database) as cursor:
            cursor.execute("DELETE FROM instances WHERE metrics = '{\"sent\": 0}'")
        await console.pilot.press("r")
        await console.wait_until(lambda: len(console.rows()) == 1)


async def test_rows_are_sorted_by_the_chosen_column_and_reversed(shared_app_server: ServerProcess, app: str) -> None:
    installs = report_fleet(shared_app_server, 4, app)
    ids = [install.instance_id[:8] for install in installs]

    def order(console: DrivenConsole) -> list[str]:
        return [row.split()[1] for row in console.rows()]

    async with open_console(shared_app_server, app, (80, 24)) as console:
        await console.wait_until(lambda: len(console.rows()) == 4)
        assert order(console) == ids[::-1]
        await console.pilot.press("s")
        await console.wait_until(lambda: order(console) == ids)
        await console.pilot.press("shift+left", "shift+left")
        await console.wait_until(lambda: order(console) == sorted(ids), "by instance")


async def test_the_column_to_sort_by_is_chosen_by_its_name(shared_app_server: ServerProcess, app: str) -> None:
    """Also one beside the screen, and the same one again reverses the order."""
    installs = report_fleet(shared_app_server, 3, app, **{f"a{number}": 1 for number in range(20)}, revenue=1)
    ids = [install.instance_id[:8] for install in installs]
    async with open_console(shared_app_server, app, (80, 24)) as console:
        await console.wait_until(lambda: len(console.rows()) == 3 and console.app.drawing.data_shown.is_set())
        for order, sort in ((ids[::-1], "-sent"), (ids, "sent")):
            await console.pilot.press("o", *"sent")
            await console.wait_until(lambda: console.app.screen.query_one(OptionList).option_count == 1)
            await console.pilot.press("enter")
            await console.wait_until(lambda: console.app.place.sort == sort, sort)  # noqa: B023
            await console.wait_until(lambda: [row.split()[1] for row in console.rows()] == order, "the order")  # noqa: B023


async def test_enter_opens_the_details_and_escape_closes_them(shared_app_server: ServerProcess, app: str) -> None:
    (install,) = report_fleet(shared_app_server, 1, app, revenue=99120.50, nested={"deep": [1, None]})
    async with open_console(shared_app_server, app) as console:
        await console.wait_until(lambda: console.rows())
        await console.pilot.press("enter")
        await console.wait_for_text(install.instance_id, "99,120.5", "nested.deep")
        await asyncio.to_thread(install.snapshot, {"sent": 123456})
        await console.wait_for_text("123,456")
        await console.pilot.press("escape")
        await console.wait_until(lambda: not console.app.query_one(DetailPanel).display)


async def test_keys_switch_between_applications(server: ServerProcess) -> None:
    report_fleet(server, 2)
    Install(server.url, app_name="Kiosk").enroll({"plays": 1})
    async with open_console(server, size=(80, 24)) as console:
        await console.wait_for_text("SHM  Ledger", "SENT")  # and not yet the list of all, which has both too
        former = console.app.session.store
        await console.pilot.press("right_square_bracket")
        await console.wait_for_text("SHM  Kiosk", "PLAYS")
        assert not former.rows, "their memory is free at once"
        await console.pilot.press("right_square_bracket")
        await console.wait_for_text("SHM  All", "THIS WEEK")
        await console.wait_until(lambda: len(console.rows()) == 3)


async def test_pausing_stops_the_rows_and_counts_pending_changes(shared_app_server: ServerProcess, app: str) -> None:
    (install,) = report_fleet(shared_app_server, 1, app)
    async with open_console(shared_app_server, app) as console:
        await console.wait_until(lambda: console.rows())
        await console.pilot.press("p")
        await asyncio.to_thread(install.snapshot, {"sent": 777})
        await console.wait_for_text("paused, +1 held")
        assert "777" not in console.rows()[0]
        await console.pilot.press("p")
        await console.wait_until(lambda: "777" in console.rows()[0])


async def test_each_state_has_its_own_glyph(shared_app_server: ServerProcess, app: str) -> None:
    report_fleet(shared_app_server, 1, app)
    Install(shared_app_server.url, app_name=app, environment="dev").enroll({"sent": 1})
    Install(shared_app_server.url, app_name=app).register()
    async with open_console(shared_app_server, app) as console:
        await console.wait_until(lambda: len(console.rows()) == 3)
        assert {row[0] for row in console.rows()} == {"●", "◐", "…"}


async def test_an_empty_server_shows_how_to_send_the_first_snapshot(server: ServerProcess) -> None:
    """At 80 columns no line wraps; the key that copies copies all lines."""
    lines = setup_lines(server.url)
    ast.parse(lines)
    async with open_console(server, size=(80, 24)) as console:
        await console.wait_for_text("No instance has reported yet", *lines.splitlines())
        await console.pilot.press("y")
        await console.wait_for_text(f"Copied the lines, {len(lines)} characters")
        await asyncio.to_thread(Install(server.url).enroll, {"sent": 5})
        await console.wait_for_text("Ledger", "SENT")
        await console.wait_until_gone("No instance has reported yet")


async def test_a_wrong_token_shows_an_error_and_not_an_empty_table(server: ServerProcess) -> None:
    (server.data_dir / "admin.token").write_text("shm_wrong-token-wrong-token\n")
    async with open_console(server) as console:
        await console.wait_for_text("does not accept the token")
        assert "No instance has reported" not in console.screen


@pytest.mark.parametrize("size", long_after(1, [(80, 24), (120, 36)]))
async def test_rows_stay_while_disconnected_and_continue_without_a_gap(
    server: ServerProcess, size: tuple[int, int]
) -> None:
    installs = report_fleet(server, 3)
    async with open_console(server, "ledger", size) as console:
        await console.wait_for_text("● live")
        await console.wait_until(lambda: len(console.rows()) == 3)
        await asyncio.to_thread(server.kill)
        await console.wait_for_text("◌ disconnected", "retry in")
        await console.wait_until(lambda: are_rows_dimmed(console), "dimmed rows")
        assert is_tile_dimmed(console)
        assert len(console.rows()) == 3
        await asyncio.to_thread(server.start)
        await asyncio.to_thread(installs[1].snapshot, {"sent": 5560})
        await asyncio.to_thread(Install(server.url).enroll, {"sent": 1})
        await console.wait_for_text("● live")
        await console.wait_until(lambda: len(console.rows()) == 4 and "5.56k" in console.rows()[0])
        await console.wait_until(lambda: not are_rows_dimmed(console), "bright rows")
        assert not is_tile_dimmed(console)


HOSTILE = [
    "\x1b[31mRED\x1b]52;c;aGk=\x07",
    "[/x][@click=app.quit]bold[/]",
    "日本語アプリ",
    "\u202egnp.exe\u200b",
    "new\nline\ttab\r",
    "\x9b31m\x85",
]


@pytest.mark.parametrize("hostile", long_after(1, ["".join(HOSTILE), "x" * 250, *HOSTILE]))
async def test_a_hostile_string_is_sanitized(shared_app_server: ServerProcess, hostile: str) -> None:
    metrics = {hostile[:60]: 5, "text": hostile, "nested": {hostile[:50]: [hostile]}}
    install = Install(
        shared_app_server.url, app_name=hostile, app_version=hostile, environment=hostile, os_arch=hostile
    )
    install.enroll(metrics)
    async with open_console(shared_app_server, size=(200, 50)) as console:
        slug = shared_app_server.get(f"instances/{install.instance_id}").json()["app_slug"]
        console.app.show_application(slug)
        await console.wait_until(lambda: console.rows() and console.app.session.slug == slug)
        await console.pilot.press("enter")
        await console.wait_for_text(install.instance_id)
        screen = console.screen
        assert all(character == "\n" or character.isprintable() for character in screen)
        assert "\u202e" not in screen
        assert "\u200b" not in screen
        table = [line for line in screen.splitlines() if install.instance_id[:8] in line]
        assert table


async def test_help_shows_every_key_and_state(shared_app_server: ServerProcess) -> None:
    async with open_console(shared_app_server, size=(120, 100)) as console:
        await console.pilot.press("question_mark")
        await console.wait_for_text("NAVIGATION", "STATES", "revoked for good", "THE FILTER")
        await console.pilot.press("escape")
        await console.wait_until_gone("STATES")
