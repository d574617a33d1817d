"""Pictures of the console as SVG, at a recorded server and with clocks that stand still."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from email.utils import parsedate_to_datetime
from time import monotonic
from urllib.parse import urlsplit

from textual.pilot import Pilot
from textual.widgets import Input

from shm_client.api import API_LEVEL, API_LEVEL_HEADER
from shm_tui.app import ConsoleApp
from shm_tui.config.contexts import make_client
from shm_tui.model.place import DEFAULT_APP, Place, parse_place
from shm_tui.widgets.status_bar import StatusBar
from tests.support.fault_proxy import run_fault_proxy
from tests.support.recorded_api import WRONG_TOKEN, Recording, replay

TOKEN = "recorded"
SIZES = ((80, 24), (120, 40), (200, 50))
PLACES = {
    "instances": "ledger/instances",
    "fleet": "fleet",
    "versions": "ledger/versions 1y",
    "lifecycle": "ledger/lifecycle 1y",
    "breakdown": "ledger/breakdown/version",
    "metric": "ledger/metric/invoices_sent 1y",
    "instance": "ledger/instance/",  # of the recording
    "events": "ledger/events",
    "application": "ledger/application",
    "tokens": "tokens",
    "audit": "audit",
    "no-match": "ledger/instances /version=99",
}
LEDGER = "ledger/instances"
STATES = {  # each with its size; `loading` to `disconnected` are those of the connection, in the order of `Phase`
    "loading": (120, 40),
    "empty": (80, 24),  # where the lines of the first report fit closely
    "disconnected": (120, 40),
    "access-denied": (120, 40),
    "server-too-old": (120, 40),
    "server-too-new": (120, 40),
    "too-small": (39, 9),
}
DIALOG_SIZE = (80, 24)
DIALOGS = {  # each with the keys that open it from the list
    "actions": ("ctrl+p",),
    "columns": ("w", "j", "space", "j", "p", "j"),
    "copy": ("Y",),
    "export": ("ctrl+s",),
    "filter-help": ("question_mark", "G"),
    "help": ("question_mark",),
    "revoke": ("R",),
    "sort": ("o",),
    "themes": ("T",),
}
DISCONNECTED_S, RETRY_S = 12.5, 4.5  # while the server is unavailable
PORT, CHECKSUM = re.compile(r"127\.0\.0\.1:\d{5}"), re.compile(r"terminal-\d+")
POLL_INTERVAL_S = 0.1
LAST_POLL_S = 0.4  # of those that draw the picture, which become rarer
TIMEOUT_S = 60


@asynccontextmanager
async def open_picture(
    recording: Recording,
    place: str,
    size: tuple[int, int],
    theme: str | None = None,
    upstream: str = "",
    token: str = TOKEN,
) -> AsyncIterator[ConsoleApp]:
    """A console at a place of the recorded server."""
    if place.endswith("/"):
        place += recording.instance_id
    async with (
        replay(recording, upstream) as url,
        _open_console(
            url,
            token,
            parse_place(place, Place("ledger" if place else DEFAULT_APP)),
            size,
            theme,
            "" if upstream else recording.date,
        ) as app,
    ):
        await asyncio.wait_for(app.drawing.data_shown.wait(), TIMEOUT_S)
        yield app


@asynccontextmanager
async def open_state(name: str, fleet: Recording, empty: Recording) -> AsyncIterator[ConsoleApp]:
    """A console in one of `STATES`."""
    recording, place = (empty, Place(DEFAULT_APP)) if name == "empty" else (fleet, parse_place(LEDGER, Place()))
    levels = {"server-too-old": API_LEVEL - 1, "server-too-new": API_LEVEL + 1}
    if name in levels:
        recording.headers[API_LEVEL_HEADER] = str(levels[name])
    token = WRONG_TOKEN if name == "access-denied" else TOKEN
    async with replay(recording) as url, run_fault_proxy(urlsplit(url).port or 0) as proxy:
        if name == "loading":
            proxy.may_respond.clear()
        async with _open_console(proxy.url, token, place, STATES[name], None, recording.date) as app:
            if name == "disconnected":
                await _await_figures(app)
                await proxy.stop()
            yield app


@asynccontextmanager
async def _open_console(
    url: str, token: str, place: Place, size: tuple[int, int], theme: str | None, date: str
) -> AsyncIterator[ConsoleApp]:
    async with make_client(url, token) as client:
        if date:
            now = parsedate_to_datetime(date)
            client.server_time = lambda: now  # type: ignore[method-assign] # a clock that stands still
        app = ConsoleApp(client, place=place, theme=theme)
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            yield app


async def _await_figures(app: ConsoleApp) -> None:
    """Until rows and tiles are complete: they remain while the server is unavailable."""
    await asyncio.wait_for(app.drawing.data_shown.wait(), TIMEOUT_S)
    async with asyncio.timeout(TIMEOUT_S):
        has_figures = False
        while not has_figures:
            await asyncio.sleep(POLL_INTERVAL_S)
            has_figures = app.navigation.tiles.data.series is not None


async def open_dialog(app: ConsoleApp, name: str) -> None:
    """Opens one of `DIALOGS`, once the figures behind it and the token's role are known."""
    await _await_figures(app)
    async with asyncio.timeout(TIMEOUT_S):
        is_admin = app.is_admin
        while not is_admin:
            await asyncio.sleep(POLL_INTERVAL_S)
            is_admin = app.is_admin
    await Pilot(app).press(*DIALOGS[name])


def _stop_clocks(app: ConsoleApp) -> None:
    """Draws the times since the connection was lost and until the next attempt as those of a fixed moment."""
    connection, now = app.session.connection, monotonic()
    if connection.is_lost:
        app.session.connection = replace(connection, since=now - DISCONNECTED_S, next_try=now + RETRY_S)
        app.dashboard.query_one(StatusBar).refresh()
    for field in app.screen.query(Input):
        field.cursor_blink = False


def draw(app: ConsoleApp) -> str:
    """The picture without the server's port, and without the names of its styles, which contain a checksum with it."""
    _stop_clocks(app)
    picture = app.export_screenshot(title="shm console")
    return CHECKSUM.sub("terminal", PORT.sub("127.0.0.1:00000", picture))


async def settle(app: ConsoleApp, seconds: float) -> str:
    """The picture once it has not changed for some seconds."""
    loop = asyncio.get_running_loop()
    picture, since = draw(app), loop.time()
    while loop.time() < since + seconds:
        await asyncio.sleep(POLL_INTERVAL_S)
        if (now := draw(app)) != picture:
            picture, since = now, loop.time()
    return picture


async def draw_until(app: ConsoleApp, expected: str) -> str:
    """The picture as soon as it is the expected one, else the last one before the timeout."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + TIMEOUT_S
    picture, pause_s = draw(app), POLL_INTERVAL_S
    while picture != expected and loop.time() < deadline:
        await asyncio.sleep(pause_s)
        picture, pause_s = draw(app), min(1.5 * pause_s, LAST_POLL_S)
    return picture
