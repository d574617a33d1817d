"""Random input for a console: keys, texts, mouse, sizes of the terminal, reports of installs, and outages.

Input goes through Textual's driver, as a terminal's does. A seed repeats its events.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from random import Random

from textual import events
from textual.geometry import Size
from textual.keys import _character_to_key

from shm_tui.actions import ACTIONS
from shm_tui.model.live_session import Phase
from tests.support.console import DrivenConsole
from tests.support.fault_proxy import FaultProxy
from tests.support.installs import Install

SIZES = ((40, 10), (39, 9), (80, 24), (100, 30), (120, 36), (200, 50), (61, 13), (20, 5))
KEYS = sorted(
    {key for action in ACTIONS for key in action.keys.split(",")} - {"q", "ctrl+c"}
    | {"delete", "ctrl+u", "ctrl+w", "shift+tab", "f1", "shift+home", "x", "0", "é", "日"}
)
TEXTS = (
    *("sent>5", "env:prod", "-ledger", "status:pending", "version>=1.4", "sent:1", '"mail sent">1', "((", "sent>", "é"),
    *("seen<1h", "zzz", "db=pg", "beta:yes", "  ", "id:a"),
)
PLACES = (
    *(
        "fleet",
        "versions",
        "ledger",
        "kiosk",
        "*",
        "breakdown/os_arch",
        "breakdown/version/sent",
        "lifecycle",
        "events",
    ),
    *(
        "metric/sent",
        "kiosk/metric/plays 3m",
        "ledger/instances sort=-sent",
        "7d",
        "all",
        "/sent>5",
        "ledger /beta:yes",
    ),
    *("versions at=-3d", "at now", "nonsense", "instance/zzz", "sort=nonsense", "tokens", "metric/none", "*/events"),
    *("save", "theme", "context x", "theme nord", "theme shm", "pause", "reload", "previous_place", "reverse"),
)
AGE = re.compile(r" *\b\d+[smhd]\b")
TIME = re.compile(r"\d\d:\d\d(:\d\d)?Z")
CUT = re.compile(r"\S*…\S*")
SIZE = re.compile(r"\b\d[\d.]* [kMG]B\b")  # of the server's database, which changes without any report
SCROLLBAR = "▁▂▃▄▅▆▇█"  # at the end of lines
START_SIZE = (120, 36)


class ConsoleFuzz:
    """Sends random events to a console that is connected through a proxy."""

    def __init__(self, console: DrivenConsole, rng: Random, installs: list[Install], proxy: FaultProxy) -> None:
        self.console, self.app = console, console.app
        self.events: list[str] = []  # what was done, for the report of a failure
        self._rng, self._installs, self._proxy = rng, installs, proxy
        self._kinds: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            *((50, self._press_some), (8, self._type_filter), (8, self._type_place), (12, self._click)),
            *(
                (8, self._turn_wheel),
                (3, self._drag),
                (4, self._resize),
                (5, self._report),
                (3, self._break_network),
                (3, self._cancel),
            ),
        ]

    async def run(self, count: int) -> bool:
        """Sends events. After each one, the console must run without an error. Returns whether nothing has ended it."""
        weights = [weight for weight, _ in self._kinds]
        for _ in range(count):
            (kind,) = self._rng.choices([each for _, each in self._kinds], weights)
            await kind()
            await asyncio.sleep(self._rng.choice((0, 0, 0.01, 0.05)))
            self.check()
            if not self.app.is_running:  # the palette has an entry that ends the console
                return False
        return True

    def check(self) -> None:
        """Fails if the console has ended, or has restarted a session after an unexpected error."""
        message = self.app.dashboard.footer.message
        assert self.app._exception is None, f"{self.app._exception!r} after {self.events[-40:]}"
        assert not message.startswith("internal error"), f"{message} after {self.events[-40:]}"

    async def settle(self) -> None:
        """Ends the outage, closes what is open, and waits until the place is shown from its first row."""
        app, console = self.app, self.console
        self._proxy.refuses_connections, self._proxy.response_delay_s = False, 0.0
        self._resize_to(*START_SIZE)
        await console.wait_until(lambda: app.size == START_SIZE, "the size")
        while len(app.screen_stack) > 1:
            await self._press_and_wait("escape")
        if app.filter.is_open:
            await self._press_and_wait("tab")
        if app.commands.is_open or app.dashboard.details.display:
            await self._press_and_wait("escape")
        while app.session.store.is_paused:
            await self._press_and_wait("p")
        await self._press_and_wait("u", "r")
        await console.wait_until(self._is_settled, "the data of the place")
        app.dashboard.focus_main()
        await self._press_and_wait("g", *["left"] * 40 if app.place.view == "instances" else [])
        await console.wait_until(self._is_settled, "the data of the place")
        self.check()

    def _is_settled(self) -> bool:
        app = self.app
        view, window = app.navigation.view.session, app.session.window
        return (
            app.session.connection.phase is Phase.LIVE
            and app.session.is_complete
            and (not window.is_requested or (window.is_shown and not window.is_counting and not window._is_outdated))
            and app.dashboard.has_data
            and not app.session.descriptions._has_requests
            and (view is None or (view.loaded_at is not None and not view.error))
            and not app.drawing.has_changes
            and not app.dashboard.footer._notice
        )

    # Events.

    async def _press_and_wait(self, *keys: str) -> None:
        for key in keys:
            self._press(key)
        await asyncio.sleep(0.1)
        await self.console.pilot.pause()

    def _press(self, key: str) -> None:
        self.events.append(key)
        name = _character_to_key(key) if len(key) == 1 else key
        character = key if len(key) == 1 else {"space": " ", "colon": ":", "slash": "/", "question_mark": "?"}.get(key)
        self._send(events.Key(name, character))

    def _send(self, event: events.Event) -> None:
        assert self.app._driver is not None
        self.app._driver.process_message(event)

    async def _press_some(self) -> None:
        for _ in range(self._rng.choice((1, 1, 1, 2, 5))):
            self._press(self._rng.choice(KEYS))

    async def _type_filter(self) -> None:
        self._type("slash", self._rng.choice(TEXTS), self._rng.choice(("enter", "escape", "tab", "up", "")))

    async def _cancel(self) -> None:
        """Ctrl+C in an open prompt. Elsewhere two of them end the console."""
        if self.app.filter.is_open or self.app.commands.is_open:
            self.events.append("ctrl+c")
            self._send(events.Key("ctrl+c", "\x03"))
            await self.console.pilot.pause()

    async def _type_place(self) -> None:
        self._type("colon", self._rng.choice(PLACES), self._rng.choice(("enter", "enter", "enter", "escape", "tab")))

    def _type(self, opening: str, text: str, closing: str) -> None:
        self._press(opening)
        for character in text:
            self._press(character if character != " " else "space")
        if closing:
            self._press(closing)

    async def _click(self) -> None:
        x, y = self._point()
        self.events.append(f"click {x},{y}")
        for _ in range(self._rng.choice((1, 1, 2))):
            self._send(self._mouse(events.MouseDown, x, y, 1))
            self._send(self._mouse(events.MouseUp, x, y, 1))

    async def _drag(self) -> None:
        (x, y), (to_x, to_y) = self._point(), self._point()
        self.events.append(f"drag {x},{y} to {to_x},{to_y}")
        self._send(self._mouse(events.MouseDown, x, y, 1))
        self._send(self._mouse(events.MouseMove, to_x, to_y, 1))
        self._send(self._mouse(events.MouseUp, to_x, to_y, 1))

    async def _turn_wheel(self) -> None:
        x, y = self._point()
        kind = self._rng.choice((events.MouseScrollDown, events.MouseScrollUp))
        self.events.append(f"{kind.__name__} {x},{y}")
        for _ in range(self._rng.choice((1, 3, 10))):
            self._send(self._mouse(kind, x, y, 0))

    async def _resize(self) -> None:
        self._resize_to(*self._rng.choice(SIZES))

    def _resize_to(self, width: int, height: int) -> None:
        self.events.append(f"{width}x{height}")
        size = Size(width, height)
        self.app._driver._size = size  # type: ignore[union-attr]
        self.app.post_message(events.Resize(size, size))

    async def _report(self) -> None:
        install = self._rng.choice(self._installs)
        self.events.append("report")
        sent = self._rng.choice((0, 7, 1234, 10**12, "many", None, True))
        await asyncio.to_thread(install.snapshot, {"sent": sent, "beta": self._rng.random() < 0.5})

    async def _break_network(self) -> None:
        fault = self._rng.choice(("cut", "refuse", "accept", "delay", "none"))
        self.events.append(fault)
        if fault in ("cut", "refuse"):
            self._proxy.cut_connections()
        self._proxy.refuses_connections = fault == "refuse"
        self._proxy.response_delay_s = 0.05 if fault == "delay" else 0.0

    def _point(self) -> tuple[int, int]:
        width, height = self.app.size
        return self._rng.randrange(max(1, width)), self._rng.randrange(max(1, height))

    def _mouse(self, kind: type[events.MouseEvent], x: int, y: int, button: int) -> events.MouseEvent:
        return kind(None, x, y, 0, 0, button, False, False, False, x, y)


def comparable_screen(console: DrivenConsole) -> list[str]:
    """What two consoles at one place show alike.

    The columns of a fleet that is larger than the store are those of the rows that were loaded. So only the top line
    and the instances of a window are compared, and none that the console's own filter selects among the loaded ones.
    """
    lines, session = without_ages(console.screen), console.app.session
    store = session.store
    if console.app.place.view != "instances" or not session.is_larger_than_store():
        return lines
    return [lines[0], str(store.first_index), *store.visible_ids] if store.is_windowed else []


def without_ages(screen: str) -> list[str]:
    """The lines of a screen, with # in the place of times, sizes and ages, and without texts that are cut."""
    lines = [CUT.sub("…", TIME.sub("#", AGE.sub(" #", line))).rstrip(" " + SCROLLBAR) for line in screen.splitlines()]
    return [re.sub(r" +", " ", SIZE.sub("#", line)).rstrip() for line in lines]
