"""Contexts, tokens, keys, themes and saved views of a running console."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from shm_tui.config.file import Config, Context, load_config
from shm_tui.config.kept_tokens import KeptTokens
from shm_tui.config.settings import Settings
from shm_tui.model.place import Place, parse_place
from tests.support.console import DrivenConsole, open_console
from tests.support.installs import Install
from tests.support.module_server import module_server
from tests.support.server_process import ServerProcess
from tests.support.terminal import open_shm


@pytest.fixture(scope="module")
def ledger(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with 3 installs of Ledger and 1 of Kiosk."""
    with module_server(postgres, tmp_path_factory.mktemp("settings")) as (server, _):
        for number in range(3):
            Install(server.url).enroll({"sent": 10 * number})
        Install(server.url, app_name="Kiosk").enroll({"plays": 1})
        yield server


@pytest.fixture(scope="module")
def other(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Another server, with 1 install of Harbour."""
    with module_server(postgres, tmp_path_factory.mktemp("other")) as (server, _):
        Install(server.url, app_name="Harbour").enroll({"ships": 5})
        yield server


@pytest.fixture
def settings(ledger: ServerProcess, other: ServerProcess, tmp_path: Path) -> Settings:
    """The contexts `one` and `two`, and a folder for the files."""
    (tmp_path / "one").write_text(ledger.admin_token)
    (tmp_path / "two").write_text(other.admin_token)
    contexts = {"one": Context(ledger.url, "one"), "two": Context(other.url, "two")}
    return Settings(
        Config(tmp_path / "console.toml", contexts=contexts), KeptTokens(tmp_path / "tokens.json"), context="one"
    )


async def enter_command(console: DrivenConsole, text: str) -> None:
    """Enters a text after `:`."""
    await console.enter(text, "colon")


async def test_the_console_goes_to_another_context_and_back(
    ledger: ServerProcess, other: ServerProcess, settings: Settings
) -> None:
    async with open_console(ledger, settings=settings) as console:
        await console.wait_for_text("Ledger", "one", "● live")
        await enter_command(console, "versions")
        await console.wait_for_text("is the latest")
        await enter_command(console, "context two")
        await console.wait_for_text("Harbour", "two", "SHIPS", "● live")
        await console.wait_until_gone("Ledger")
        await console.pilot.press("backspace")  # the view of the first context
        await console.wait_for_text("Ledger", "one", "is the latest")
        await enter_command(console, "two/harbour/metric/ships")
        await console.wait_for_text("two", "Ships", "5 now")
        titles = {command.title for command in console.app.get_system_commands(console.app.screen)}
        assert {"one", "two"} <= titles
        await enter_command(console, "context three")
        await console.wait_for_text("has no context “three”: one, two")
        assert console.app.navigation.context == "two"


async def test_a_saved_view_is_found_again_and_kept_in_the_file(ledger: ServerProcess, settings: Settings) -> None:
    async with open_console(ledger, "ledger", settings=settings) as console:
        await console.wait_for_text("● live", "SENT")
        await console.enter("sent>5", "slash")
        await console.wait_until(lambda: len(console.rows()) == 2)
        await enter_command(console, "save busy")
        await console.wait_for_text("Saved: :busy shows this place")
        await enter_command(console, "kiosk")
        await console.wait_for_text("PLAYS")
        await enter_command(console, "ledger/busy")
        await console.wait_until(lambda: len(console.rows()) == 2 and console.app.place.app == "ledger")
        await console.wait_until(lambda: console.app.navigation.session.store.has_sort_order)  # once KPIs are known
        places = {command.title: command for command in console.app.get_system_commands(console.app.screen)}
        places["ledger/busy"].callback()
        assert console.app.place == parse_place("ledger/instances sort=-sent /sent>5", Place())
        await enter_command(console, "save ledger")
        await console.wait_for_text("“ledger” is a command, a context or an application already")
        await console.pilot.press("ctrl+c")
        await enter_command(console, "theme shm-light")
        await enter_command(console, "save_theme")
        await console.wait_for_text("Saved the theme shm-light")
    config = load_config(settings.config.path)
    assert (config.theme, config.views.names("ledger")) == ("shm-light", ["busy"])
    assert config.views.parse("busy", Place("ledger")).filter == "sent>5"


async def test_rebound_keys_work_and_are_shown_everywhere(ledger: ServerProcess, settings: Settings) -> None:
    keys = {"pause": ("f5",), "help": ("f1",), "view_versions": ("p",), "filter": ("ctrl+f",), "page_next": ("z",)}
    rebound = Settings(Config(settings.config.path, keys=keys), settings.kept)
    async with open_console(ledger, "ledger", settings=rebound) as console:
        await console.wait_for_text("● live", "SENT", "F1 help", "^f filter")
        await console.pilot.press("f5")
        await console.wait_for_text("paused")
        await console.enter("sent>5", "f5", "ctrl+f")
        await console.wait_until(lambda: len(console.rows()) == 2)
        await console.pilot.press("f1")
        await console.wait_for_text("z          next page", "p          versions")
        await console.pilot.press("escape", "p")
        await console.wait_for_text("is the latest")
        await console.pilot.press("question_mark")
        assert len(console.app.screen_stack) == 1


async def test_a_missing_token_is_asked_for_and_kept(ledger: ServerProcess, settings: Settings) -> None:
    without = Settings(Config(settings.config.path), settings.kept, has_token=False)
    async with open_console(ledger, settings=without, token="") as console:
        await console.wait_for_text("There is no token for this server yet", f"Token for {ledger.url}")
        await console.enter("wrong-token")
        await console.wait_for_text("does not accept the token")
        await console.enter(ledger.admin_token, "ctrl+u")
        await console.wait_for_text("Keep it in")
        assert ledger.admin_token not in console.screen
        await console.pilot.press("y")
        await console.wait_for_text("Ledger", "SENT", "● live")
        await console.wait_until(lambda: console.app.is_admin, "the role of the token")
        assert console.app.place.app == "ledger"  # the largest one, as with a token from the start
        assert settings.kept is not None
        assert settings.kept.find(ledger.url) == ledger.admin_token
        await enter_command(console, "forget_token")
        await console.wait_for_text("The token is kept no longer")
        assert settings.kept.find(ledger.url) is None


async def test_a_refused_token_asks_for_another(ledger: ServerProcess, settings: Settings) -> None:
    """The place remains, and a token that is not kept is written nowhere."""
    tokens = f"{ledger.url}/api/v1/admin/tokens"
    body = {"name": "ana", "role": "viewer"}
    created = (await asyncio.to_thread(httpx.post, tokens, json=body, headers=ledger.headers)).json()
    async with open_console(ledger, place="ledger/versions", settings=settings, token=created["token"]) as console:
        await console.wait_for_text("is the latest", "● live")
        await asyncio.to_thread(httpx.delete, f"{tokens}/{created['id']}", headers=ledger.headers)
        await console.pilot.press("r")
        await console.wait_for_text("access denied", f"Token for {ledger.url}")
        await console.pilot.press("escape")
        await console.wait_until(lambda: len(console.app.screen_stack) == 1)
        await enter_command(console, "token")
        await console.wait_for_text("Another token for this server")
        await console.enter(ledger.admin_token)
        await console.wait_for_text("Keep it in")
        await console.pilot.press("n")
        await console.wait_for_text("is the latest", "● live")
    assert settings.kept is not None
    assert not settings.kept.path.exists()


async def test_a_console_without_files_writes_none(ledger: ServerProcess) -> None:
    async with open_console(ledger, "ledger", settings=Settings()) as console:
        await console.wait_for_text("● live", "SENT")
        for command in ("save busy", "save_theme", "forget_token"):
            await enter_command(console, command)
            await console.wait_for_text(f":{command.split()[0]}: not in this session")


def test_the_console_opens_a_context_and_a_saved_view(ledger: ServerProcess, tmp_path: Path) -> None:
    folder = tmp_path / "shm"
    folder.mkdir()
    (folder / "token").write_text(ledger.admin_token)
    (folder / "console.toml").write_text(
        f"[contexts.here]\nurl = '{ledger.url}'\ntoken_command = ['cat', '{folder}/token']\n"
        "[views.ledger]\nbusy = 'instances /sent>5'\n"
    )
    terminal = open_shm((80, 24), "console", "--view", "here/ledger/busy", XDG_CONFIG_HOME=str(tmp_path))
    try:
        terminal.wait_for_texts("here", "Ledger", "/sent>5  2 of 3", "● live")
        terminal.type_keys("q")
        assert terminal.wait_for_exit() == 0
    finally:
        terminal.close()
