"""Pictures of the console as SVG, at a recorded fleet and with a clock that stands still."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime

from shm_tui.app import ConsoleApp
from shm_tui.config.contexts import make_client
from shm_tui.model.place import Place, parse_place
from tests.support.recorded_api import Recording, replay

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
PORT, CHECKSUM = re.compile(r"127\.0\.0\.1:\d{5}"), re.compile(r"terminal-\d+")
POLL_INTERVAL_S = 0.1
TIMEOUT_S = 30


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
    async with replay(recording, upstream) as url, make_client(url, token) as client:
        if not upstream:
            now = parsedate_to_datetime(recording.date)
            client.server_time = lambda: now  # type: ignore[method-assign] # a clock that stands still
        if place.endswith("/"):
            place += recording.instance_id
        app = ConsoleApp(client, place=parse_place(place, Place("ledger")), theme=theme)
        async with app.run_test(size=size) as pilot:
            await asyncio.wait_for(app.data_shown.wait(), TIMEOUT_S)
            await pilot.pause()
            yield app


def draw(app: ConsoleApp) -> str:
    """The picture without the server's port, and without the names of its styles, which contain a checksum with it."""
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
    picture = draw(app)
    while picture != expected and loop.time() < deadline:
        await asyncio.sleep(POLL_INTERVAL_S)
        picture = draw(app)
    return picture
