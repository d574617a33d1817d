"""The prompt of places and commands: completes, parses and follows what is typed after `:`."""

from collections.abc import Callable
from typing import Protocol

from textual.suggester import Suggester

from shm_tui.actions import commands
from shm_tui.model.completion import candidates, complete
from shm_tui.model.live_session import LiveSession, Overview
from shm_tui.model.place import Place, PlaceError
from shm_tui.settings_control import SettingsControl
from shm_tui.widgets.dashboard import Dashboard

MAX_HISTORY = 50  # texts: more than anybody goes back


class PlaceHost(Protocol):
    """The app: it has a place, and goes to another one."""

    @property
    def place(self) -> Place:
        """The place that is shown."""

    @property
    def overview(self) -> Overview:
        """Counts of all applications."""

    @property
    def session(self) -> LiveSession:
        """The live instances of the application."""

    @property
    def is_admin(self) -> bool:
        """Whether the token is an admin's."""

    @property
    def settings(self) -> SettingsControl:
        """The commands that concern contexts, tokens, themes and saved views."""

    def go(self, place: Place) -> None:
        """Shows a place."""

    def run_command(self, action: str) -> None:
        """Carries out an action of the registry."""


class PlaceControl:
    """Opens the prompt, and follows its text."""

    def __init__(self, host: PlaceHost, dashboard: Dashboard) -> None:
        self._host = host
        self._dashboard = dashboard
        self._prompt = dashboard.place_prompt
        self._prompt.field.suggester = Completer(self.proposals)
        self._history: list[str] = []

    @property
    def is_open(self) -> bool:
        """Whether the prompt is open."""
        return self._prompt.is_open

    def open(self) -> None:
        """Opens the empty prompt."""
        self._dashboard.footer.show_keys("place")
        self._prompt.open("")

    def recall(self, offset: int) -> None:
        """Puts an older text of the history (-1) or a newer one (1) into the prompt."""
        self._prompt.recall(self._history, offset)

    def complete(self) -> None:
        """Accepts the proposal behind the cursor."""
        text = complete(self._prompt.value, self.proposals(self._prompt.value))
        if text is not None:
            self._prompt.field.value = text
            self._prompt.field.cursor_position = len(text)

    def submit(self, text: str) -> None:
        """Goes to the place or carries out the command. An invalid text stays in the prompt, with the reason."""
        words = text.strip()
        action = commands(is_admin=self._host.is_admin).get(words)
        try:
            command = self._host.settings.find(words)
            place = self._host.place if action or command or not words else self._parse(words)
        except PlaceError as error:
            self._dashboard.footer.show_message(str(error))
            return
        if words:
            self._history = [*(each for each in self._history if each != words), words][-MAX_HISTORY:]
        self.close()
        if action is not None:
            self._host.run_command(action)
        elif command is not None:
            command()
        elif words:
            self._host.go(place)

    def follow(self, text: str) -> None:
        """Goes to the place that a saved view or a context names."""
        self._host.go(self._parse(text))

    def close(self) -> None:
        """Closes the prompt."""
        self._prompt.close()
        self._dashboard.footer.show_message("")
        self._dashboard.focus_main()

    def proposals(self, text: str) -> list[str]:
        """The texts that can be typed now, after what has been typed."""
        keys = sorted(key for key in self._host.session.store.key_counts if "/" not in key and " " not in key)
        slugs = [application.slug for application in self._host.overview.applications or []]
        places = candidates(commands(is_admin=self._host.is_admin), slugs, keys, is_admin=self._host.is_admin)
        return [*places, *self._host.settings.proposals(text)]

    def _parse(self, text: str) -> Place:
        slugs = [application.slug for application in self._host.overview.applications or []]
        today = self._host.session.clock().now.date()
        return self._host.settings.parse_place(text, self._host.place, slugs, today)


class Completer(Suggester):
    """Proposes the rest of the word that is typed."""

    def __init__(self, proposals: Callable[[str], list[str]]) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self._proposals = proposals

    async def get_suggestion(self, value: str) -> str | None:
        """The completed text."""
        return complete(value, self._proposals(value))
