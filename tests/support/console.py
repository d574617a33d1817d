"""A console on a real server, controlled by Textual's pilot without a terminal."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from textual.events import Paste
from textual.pilot import Pilot
from textual.strip import Strip

from shm_tui.app import ConsoleApp
from shm_tui.command import make_client
from shm_tui.config.settings import Settings
from shm_tui.model.place import DEFAULT_APP, Place, parse_place
from shm_tui.model.row_store import MAX_ROWS
from tests.support import plain_http
from tests.support.server_process import ServerProcess

TIMEOUT_S = 60  # a console starts within a second; on a machine that is busy with other work in twenty
FIRST_POLL_S, LAST_POLL_S = 0.02, 0.2  # a look at the screen draws it
ROW_PATTERN = re.compile(r"[●◐○…✕] +[0-9a-f]{8} .*")


@dataclass
class DrivenConsole:
    """A running console."""

    app: ConsoleApp
    pilot: Pilot[None]

    @property
    def screen(self) -> str:
        """The text on the screen."""
        return "\n".join(strip.text.rstrip() for strip in self.strips())

    def strips(self) -> list[Strip]:
        """The lines on the screen with their styles."""
        return self.app.screen._compositor.render_strips()

    async def wait_until(self, condition: Callable[[], object], what: str = "") -> None:
        """Waits until `condition` is true."""
        deadline = time.monotonic() + TIMEOUT_S
        pause_s = FIRST_POLL_S
        while not condition():
            assert time.monotonic() < deadline, f"timed out waiting for {what}\n{self.screen}"
            await asyncio.sleep(pause_s)
            await self.pilot.pause()
            pause_s = min(1.5 * pause_s, LAST_POLL_S)

    async def wait_for_text(self, *texts: str) -> None:
        """Waits until all texts are on the screen."""

        def are_shown() -> bool:
            screen = self.screen
            return all(text in screen for text in texts)

        await self.wait_until(are_shown, f"{texts}")

    async def wait_until_gone(self, text: str) -> None:
        """Waits until a text is no longer on the screen."""
        await self.wait_until(lambda: text not in self.screen, f"the disappearance of {text}")

    async def enter(self, text: str, *keys: str) -> None:
        """Presses keys, which open a prompt, then pastes a text and presses Enter.

        Each key that is pressed takes 20 ms of CPU time.
        """
        if keys:
            await self.pilot.press(*keys)
        self.app.post_message(Paste(text))
        await self.pilot.press("enter")

    def rows(self) -> list[str]:
        """The rows of the table, each from its status symbol on."""
        return [found[0].rstrip() for line in self.screen.splitlines() if (found := ROW_PATTERN.search(line))]


def viewer_token(server: ServerProcess) -> str:
    """A new viewer's token."""
    body = {"name": "viewer", "role": "viewer"}
    response = plain_http.post(f"{server.url}/api/v1/admin/tokens", json=body, headers=server.headers)
    return str(response.raise_for_status().json()["token"])


@asynccontextmanager
async def open_console(
    server: ServerProcess,
    slug: str | None = None,
    size: tuple[int, int] = (120, 36),
    *,
    place: str = "",
    max_rows: int = MAX_ROWS,
    url: str | None = None,
    token: str | None = None,
    settings: Settings | None = None,
) -> AsyncIterator[DrivenConsole]:
    """A console on `server`, at an application or a place, closed at the end.

    `url` is that of a proxy to the server. Without a token the console has the admin's.
    """
    async with make_client(url or server.url, server.admin_token if token is None else token) as client:
        app = ConsoleApp(
            client, place=parse_place(place, Place(slug or DEFAULT_APP)), max_rows=max_rows, settings=settings
        )
        async with app.run_test(size=size) as pilot:
            yield DrivenConsole(app, pilot)
