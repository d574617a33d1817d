"""The commands of `:` that concern contexts, tokens, themes and saved views."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import date
from functools import partial

from textual.app import App

from shm_client import Client
from shm_tui.access import check_token
from shm_tui.actions import SETTINGS_COMMANDS, commands
from shm_tui.config import keyring
from shm_tui.config.contexts import Target, context_target
from shm_tui.config.file import Config
from shm_tui.config.kept_tokens import KeptTokens
from shm_tui.config.keyring import KEYRING_TIMEOUT_S
from shm_tui.config.settings import Settings
from shm_tui.decisions import Decisions
from shm_tui.errors import ConsoleError, TokenError
from shm_tui.model.column_choice import ColumnChoice
from shm_tui.model.live_session import ConnectionStatus, Phase
from shm_tui.model.place import DEFAULT_APP, Place, PlaceError
from shm_tui.model.saved_views import check_view_name
from shm_tui.navigation import Navigation
from shm_tui.restricted import restricted_notice
from shm_tui.token_screen import TokenScreen
from shm_tui.widgets.footer import NOTICE_S, Footer

NO_TOKEN = "There is no token for this server yet."  # noqa: S105 - a sentence


_BY_NAME = {command.name: command for command in SETTINGS_COMMANDS}


class SettingsControl:
    """Carries out the commands. `settings` change when a view or a theme has been saved."""

    def __init__(self, app: App[None], client: Client, footer: Footer, settings: Settings) -> None:
        self.settings = settings
        self._app = app
        self._client = client
        self._footer = footer
        self._token_asked = False  # since the server last accepted one

    def bind(self, navigation: Navigation, decisions: Decisions) -> None:
        """Sets the parts of the console that start again with another server or token."""
        self._navigation, self._decisions = navigation, decisions

    @property
    def contexts(self) -> list[str]:
        """The names of the contexts."""
        return list(self.settings.config.contexts)

    def parse_place(self, text: str, current: Place, applications: list[str], today: date) -> Place:
        """The place that a text names, with saved views and contexts. Raises PlaceError."""
        return self.settings.config.views.parse(text, current, applications, self.contexts, today=today)

    def proposals(self, text: str) -> list[str]:
        """The texts that can be typed in addition to places and actions."""
        command = text.partition(" ")[0]
        if command == "theme" and " " in text:
            return sorted(self._app.available_themes)
        views = self.settings.config.views.names(self._navigation.place.app)
        return [*views, *self.contexts, *_BY_NAME]

    def places(self) -> Iterator[tuple[str, str]]:
        """The texts of saved views and contexts, each with its kind."""
        for app, name in self.settings.config.views.paths():
            yield f"{app}/{name}", "saved view"
        for name in self.contexts:
            yield name, "context"

    def find(self, text: str) -> Callable[[], None] | None:
        """The function of a command; None if the text is not a command. Raises PlaceError for its argument."""
        name, _, argument = text.partition(" ")
        command = _BY_NAME.get(name)
        if command is None or (not command.argument and argument):
            return None
        if command.argument and not argument:
            raise PlaceError(f"{name} needs a name: {name} {command.argument}")
        match name:
            case "context":
                return partial(self._switch_to, argument)
            case "save":
                self._check_name(argument)
                return partial(self._save_view, argument)
            case "theme":
                if argument not in self._app.available_themes:
                    raise PlaceError(f"there is no theme “{argument}”: {' '.join(sorted(self._app.available_themes))}")
                return partial(setattr, self._app, "theme", argument)
            case "save_theme":
                return self._save_theme
            case "token":
                return partial(self.ask_token, "Another token for this server.")
            case _:
                return self._forget_token

    # Contexts and tokens.

    def switch(self, place: Place) -> None:
        """Connects to the server of a place's context, and shows the place there."""
        try:
            with self._terminal_for(place.context):
                target = context_target(place.context, self.settings.config, self.settings.kept, self.settings.data_dir)
        except ConsoleError as error:
            self._footer.show_notice(str(error), NOTICE_S)
            return
        self._connect(target, place)
        if target.token is None:
            self.find_token()

    def find_token(self) -> None:
        """Requests the token for the present server from the keyring, if it has it; else asks the user for one."""
        self._token_asked = True
        kept = self.settings.kept
        try:
            is_in_keyring = kept is not None and kept.is_in_keyring(self._client.server)
        except ConsoleError as error:
            self.ask_token(f"{error}.")
            return
        if is_in_keyring:
            self._footer.show_notice("Waiting for the keyring, which has the token", KEYRING_TIMEOUT_S)
            self._app.run_worker(self._find_in_keyring, group="keyring", exclusive=True)  # type: ignore[arg-type] # mypy
        else:
            self.ask_token(NO_TOKEN)

    async def _find_in_keyring(self) -> None:
        server, reason = self._client.server, NO_TOKEN
        try:
            token = await keyring.find_token(server)
            token = check_token(token) if token is not None else None
        except TokenError as error:
            token, reason = None, f"{error}."
        self._footer.show_notice("", NOTICE_S)
        if server != self._client.server:
            return
        if token is None:
            self.ask_token(reason)
        else:
            self._token_asked = False  # the server may refuse it
            self._connect(Target(server, token, self._navigation.context), self._navigation.first_place)

    def ask_token(self, reason: str) -> None:
        """Asks for a token for the present server, and connects with it."""
        self._token_asked = True
        self._app.workers.cancel_group(self._app, "keyring")
        server, context, place = self._client.server, self._navigation.context, self._navigation.first_place

        def connect(token: str | None) -> None:
            if token:
                self._connect(Target(server, token, context), place)

        self._app.push_screen(TokenScreen(server, reason, self.settings.kept), connect)

    def ask_after_refusal(self, connection: ConnectionStatus) -> None:
        """Asks for another token once after each refusal, when no prompt and no other screen is open."""
        if connection.phase is Phase.LIVE:
            self._token_asked = False
        elif connection.phase is Phase.ACCESS_DENIED and not self._token_asked and len(self._app.screen_stack) == 1:
            self.ask_token(f"{connection.reason.rstrip('.')}.")

    def _connect(self, target: Target, place: Place) -> None:
        self._client.connect(target.server, target.token or "")
        self._decisions.is_admin = False
        request = self._decisions.request_role  # not a coroutine yet: another connection may cancel the worker first
        self._app.run_worker(request, group="role", exclusive=True)  # type: ignore[arg-type] # mypy finds no overload
        self._navigation.restart(place, target.context)

    def _terminal_for(self, name: str) -> AbstractContextManager[None]:
        """Gives the terminal to a context's command, which may ask for a passphrase."""
        context = self.settings.config.contexts.get(name)
        return self._app.suspend() if context and context.token_command and not self._app.is_headless else nullcontext()

    def _switch_to(self, name: str) -> None:
        self.switch(Place(DEFAULT_APP, range=self._navigation.place.range, context=name))

    def _forget_token(self) -> None:
        if (kept := self._writable(":forget_token")) is not None:
            self._app.run_worker(partial(self._forget, kept, self._client.server), group="commands")  # type: ignore[arg-type] # mypy

    async def _forget(self, kept: KeptTokens, server: str) -> None:
        try:
            if kept.is_in_keyring(server):
                await keyring.forget_token(server)
            notice = "The token is kept no longer" if kept.forget(server) else "No token was kept"
        except ConsoleError as error:
            notice = str(error)
        self._footer.show_notice(notice, NOTICE_S)

    # The configuration file.

    def _check_name(self, name: str) -> None:
        check_view_name(name)
        taken = [app.slug for app in self._navigation.overview.applications or []]
        if name in {*taken, *self.contexts, *_BY_NAME, *commands(is_admin=True)}:
            raise PlaceError(f"“{name}” is a command, a context or an application already")

    def _save_view(self, name: str) -> None:
        from shm_tui.config.writer import save_view  # tomlkit is loaded for those who save

        if self._writable(":save") is not None:
            self._try(partial(self._write, save_view, f"Saved: :{name} shows this place", self._navigation.place, name))

    def save_columns(self, app: str, choice: ColumnChoice) -> None:
        """Keeps the columns of an application's list in the configuration file; not in a restricted session."""
        from shm_tui.config.writer import save_columns

        if self.settings.kept is None:
            notice = "The columns are kept until the end of this session: it is restricted, and writes nothing"
            self._footer.show_notice(notice, NOTICE_S)
        else:
            self._try(partial(self._write, save_columns, "Saved the columns", app, choice))

    def _save_theme(self) -> None:
        from shm_tui.config.writer import save_theme

        if self._writable(":save_theme") is not None:
            self._try(partial(self._write, save_theme, f"Saved the theme {self._app.theme}", self._app.theme))

    def _write(self, save: Callable[..., Config], done: str, *values: object) -> str:
        config = save(self.settings.config.path, *values)
        self.settings = replace(self.settings, config=config)
        return f"{done}, in {config.path}"

    def _writable(self, feature: str) -> KeptTokens | None:
        """The kept tokens; in a restricted session a notice, and None."""
        if self.settings.kept is None:
            self._footer.show_notice(restricted_notice(feature), NOTICE_S)
        return self.settings.kept

    def _try(self, change: Callable[[], str]) -> None:
        """Shows the result of a change, or why it is not possible."""
        try:
            notice = change()
        except ConsoleError as error:
            notice = str(error)
        self._footer.show_notice(notice, NOTICE_S)
