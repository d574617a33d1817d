"""A table of a fleet that is larger than the store: order, number and last row are those of the whole fleet."""

import asyncio
from collections.abc import Iterator

import pytest

from shm_tui.model.column_heads import HEAD_LINES
from shm_tui.model.columns import INSTANCE, SEEN, STATE, metric_column
from shm_tui.model.place_sort import column_sorting
from tests.support import plain_http
from tests.support.bulk_fleet import insert_fleet
from tests.support.console import DrivenConsole, open_console
from tests.support.databases import execute, fresh_database
from tests.support.fault_proxy import run_fault_proxy
from tests.support.installs import Install
from tests.support.module_server import running_server
from tests.support.server_process import ServerProcess

FLEET = 3_000
MAX_ROWS = 300
REFRESH = b"limit=200&app=ledger HTTP"  # the end of the request for the first page again
TALLY = """
    INSERT INTO applications (slug, name) VALUES ('ledger', 'Ledger');
    INSERT INTO tallies (app_slug, metric_type, key, value, total, instances, counted_total, counted_instances)
    VALUES ('ledger', 'status', 'active', '0', 0, %s, 0, %s)
"""


@pytest.fixture(scope="module")
def server(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with a fleet whose metric `n` is 1 to FLEET, the last seen ones first. Each test leaves it like that."""
    with fresh_database(postgres) as dsn:
        insert_fleet(dsn, FLEET)
        execute(dsn, TALLY, FLEET, FLEET)
        with running_server(tmp_path_factory.mktemp("window"), dsn) as server:
            yield server


def value(console: DrivenConsole, index: int) -> object:
    """The metric `n` of a row; None while it is not loaded."""
    store = console.app.table.store
    row = store.rows.get(store.id_at(index) or "")
    return None if row is None else row.metrics["n"]


def cursor_value(console: DrivenConsole) -> object:
    """The metric `n` under the cursor."""
    row = console.app.table.store.rows.get(console.app.table.cursor_id or "")
    return None if row is None else row.metrics["n"]


async def wait_for_cursor(console: DrivenConsole, expected: object) -> None:
    """Waits until the row under the cursor is loaded and is this one."""
    await console.wait_until(
        lambda: cursor_value(console) == expected, f"{expected} instead of {cursor_value(console)}"
    )


async def wait_for_line(console: DrivenConsole, key: str | None, line: int) -> None:
    """Waits until the table has taken over the store's order, with the cursor on its row and line."""
    table = console.app.table

    def is_on_line() -> bool:
        index = table.store.index_of(key)
        return table.cursor_id == key and index is not None and index - table.scroll_offset.y + HEAD_LINES == line

    await console.wait_until(is_on_line, f"the cursor on line {line}")


async def wait_for_window(console: DrivenConsole, first: int, count: int) -> None:
    """Waits until the table shows a window with this many rows that begins with this value of `n`."""

    def is_shown() -> bool:
        store = console.app.table.store
        return store.is_windowed and value(console, 0) == first and store.row_count == count

    await console.wait_until(is_shown, f"a window of {count} rows")


async def test_the_last_row_and_every_page_are_those_of_the_fleet(server: ServerProcess) -> None:
    async with open_console(server, "ledger", max_rows=MAX_ROWS) as console:
        await wait_for_window(console, FLEET, FLEET)
        store = console.app.table.store
        await console.pilot.press("G")
        await wait_for_cursor(console, 1)
        assert store.index_of(console.app.table.cursor_id) == FLEET - 1
        for lines in (-150, -150, -150, 40):
            index = store.index_of(console.app.table.cursor_id)
            assert index is not None
            console.app.table.move_cursor(lines)
            await wait_for_cursor(console, FLEET - (index + lines))
        await console.pilot.press("g")
        await wait_for_cursor(console, FLEET)
        for number in range(1, 13):  # beyond the rows that a window keeps
            console.app.table.move_cursor(200)
            await wait_for_cursor(console, FLEET - 200 * number)
        console.app.table.move_cursor(-2_000)
        await wait_for_cursor(console, FLEET - 400)
        assert len(store.visible_ids) <= 2_200


@pytest.mark.long  # the short suite holds filters, orders and pages to the server one by one
async def test_the_filter_and_the_order_are_those_of_the_fleet(server: ServerProcess) -> None:
    async with open_console(server, "ledger", max_rows=MAX_ROWS) as console:
        await wait_for_window(console, FLEET, FLEET)
        await console.enter("n<=1000 version:1.3", "slash")
        matching = [number for number in range(1, 1001) if number % 7 == 3]
        await wait_for_window(console, matching[-1], len(matching))
        await console.wait_for_text(f"{len(matching)} of {FLEET:,}")
        await console.pilot.press("down")
        await console.wait_for_text(f"row 2/{len(matching)}")
        await console.pilot.press("s")
        await wait_for_window(console, matching[0], len(matching))
        await console.pilot.press("G")
        await wait_for_cursor(console, matching[-1])
        await console.enter("n>2900", "slash", "ctrl+u")  # the cursor's row does not match
        await wait_for_window(console, 2901, 100)
        await wait_for_cursor(console, 2901)
        await console.enter("docker", "slash", "ctrl+u")  # only the console searches for words
        await console.wait_until(lambda: not console.app.table.store.is_windowed, "the rows of the store")
        await console.wait_for_text("of the newest")


async def test_the_cursor_keeps_its_line_while_others_move(server: ServerProcess) -> None:
    async with open_console(server, "ledger", max_rows=MAX_ROWS) as console:
        await wait_for_window(console, FLEET, FLEET)
        table, store = console.app.table, console.app.table.store
        await console.pilot.press("g")
        await console.wait_for_text(f"row 1/{FLEET:,}")
        added: list[Install] = []
        key, line = table.cursor_id, 0
        for index in (5, 1_500):
            table.move_cursor_to(index)
            await wait_for_cursor(console, FLEET - index + len(added))
            line = index - table.scroll_offset.y + HEAD_LINES
            key, count = table.cursor_id, store.row_count
            added.append(await asyncio.to_thread(Install(server.url).enroll, {"n": FLEET + index}))
            await console.wait_until(lambda: store.row_count == count + 1, "the new instance")  # noqa: B023
            await console.wait_until(lambda: store.index_of(key) == index + 1, "the row's new number")  # noqa: B023
            await wait_for_line(console, key, line)
        for install in added:
            await asyncio.to_thread(erase, server, install)
        await console.wait_until(lambda: store.index_of(key) == index - 1, "the row's number before")
        await wait_for_line(console, key, line)


def erase(server: ServerProcess, install: Install) -> None:
    """Deletes an instance."""
    address = f"{server.url}/api/v1/admin/instances/{install.instance_id}"
    plain_http.request("DELETE", address, headers=server.headers).raise_for_status()


async def test_a_loaded_row_changes_in_place(server: ServerProcess) -> None:
    install = Install(server.url).enroll({"n": 0.5})
    async with open_console(server, "ledger", max_rows=MAX_ROWS) as console:
        await wait_for_window(console, FLEET, FLEET + 1)
        await console.pilot.press("G")
        await console.wait_until(lambda: console.app.table.cursor_id == install.instance_id, "the last row")
        await asyncio.to_thread(install.snapshot, {"n": 0.25})
        await console.wait_for_text("0.250")
        assert console.app.table.cursor_id == install.instance_id
    erase(server, install)


async def test_a_page_that_is_added_leaves_newer_rows(server: ServerProcess) -> None:
    """A row that changed since its page was received stays as it is, also while no refresh succeeds."""
    install = Install(server.url).enroll({"n": 9_000})
    async with (
        run_fault_proxy(server.port) as proxy,
        open_console(server, "ledger", max_rows=MAX_ROWS, url=proxy.url) as console,
    ):
        await wait_for_window(console, 9_000, FLEET + 1)
        proxy.cut_request = REFRESH
        await asyncio.to_thread(install.snapshot, {"n": 9_500})
        await console.wait_until(lambda: value(console, 0) == 9_500)
        console.app.table.move_cursor(150)
        await console.wait_until(lambda: value(console, 240) is not None, "the page after")
        await console.wait_until(lambda: not console.app.table.store.pending_count, "the flush")
        assert value(console, 0) == 9_500
    erase(server, install)


async def test_rows_are_shown_while_their_number_is_unknown(server: ServerProcess) -> None:
    """The number of a count that takes long, and of one that fails, is said to be unknown; the rows go on."""
    async with run_fault_proxy(server.port) as proxy:
        proxy.held_request = b"/instances/count"
        async with open_console(server, "ledger", max_rows=MAX_ROWS, url=proxy.url) as console:
            await console.wait_until(lambda: console.app.table.store.is_windowed and value(console, 0) == FLEET)
            await console.pilot.press("down")
            await console.wait_for_text("row 2/?")
            store = console.app.table.store
            for index in (101, 201, 301, 401):  # beyond the first pages
                await console.wait_until(lambda: store.row_count > index, f"row {index}")  # noqa: B023
                console.app.table.move_cursor(100)
                await wait_for_cursor(console, FLEET - index)
            proxy.held_request, proxy.cut_request = None, b"/instances/count"
            await console.enter("n<=1000", "slash")
            await console.wait_for_text(f"? of {FLEET:,}", "could not count the rows")
            await wait_for_cursor(console, 1000)
            assert value(console, 199) == 801
            proxy.cut_request = None
            await console.pilot.press("down")
            await console.wait_for_text(f"1,000 of {FLEET:,}", "row 2/1,000")


async def test_matches_are_shown_while_their_number_is_unknown(server: ServerProcess) -> None:
    """Those of a filter that the console evaluates in part are listed."""
    async with run_fault_proxy(server.port) as proxy:
        proxy.cut_request = b"/instances/count"
        place = "ledger/instances /n>1000 docker"
        async with open_console(server, place=place, max_rows=MAX_ROWS, url=proxy.url) as console:
            await console.wait_for_text("showing 300 of the instances that the server found; their number is unknown")
            rows = console.app.table.store.rows
            await console.wait_until(lambda: {row.metrics["n"] for row in rows.values()} >= set(range(1001, 1301)))
            proxy.cut_request = None
            console.app.session.server_matches.mark_outdated()
            await console.wait_for_text("showing 300 of the 2,000 instances that the server found")


def test_orders_of_the_table_are_those_of_the_server() -> None:
    assert column_sorting(SEEN, False) == ("last_seen_at", "desc")
    assert column_sorting(SEEN, True) == ("last_seen_at", "asc")
    assert column_sorting(INSTANCE, True) == ("instance_id", "desc")
    assert column_sorting(metric_column("version", "Version", True), True) == ("metrics.version", "desc")
    assert column_sorting(STATE, False) is None
