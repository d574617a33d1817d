"""The keyring keeps the console's token: with real backends of the library `keyring`, in a process of its own."""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from shm_tui.config import keyring
from shm_tui.config.file import Config
from shm_tui.config.kept_tokens import InKeyring, KeptTokens
from shm_tui.config.settings import Settings
from shm_tui.errors import KeyringError
from tests.support.console import DrivenConsole, open_console
from tests.support.installs import Install
from tests.support.module_server import module_server
from tests.support.server_process import ServerProcess
from tests.support.shm_command import SHM

SECRET = "shm_a-token-in-the-keyring"
BACKEND = """
import os
import time
from keyring.backend import KeyringBackend

class Hanging(KeyringBackend):
    priority = 5

    def get_password(self, *request):
        time.sleep(600)

    set_password = delete_password = get_password

class Printing(Hanging):
    def get_password(self, service, username):
        print("a backend's own words")
        raise ValueError("it is \\x1b[31mlocked")

class Late(Hanging):
    @property
    def name(self):
        while not os.path.exists(os.environ["ODD_KEYRING_MAY_ANSWER"]):
            time.sleep(0.05)
        return "a late one"
"""


@pytest.fixture(scope="module")
def ledger(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with an install of Ledger."""
    with module_server(postgres, tmp_path_factory.mktemp("keyring")) as (server, _):
        Install(server.url).enroll({"sent": 5})
        yield server


@pytest.fixture
def file_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A real backend that needs no desktop: a file, below this directory."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyrings.alt.file.PlaintextKeyring")
    return tmp_path / "data"


def choose_backend(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the backends above."""
    (folder / "odd_keyring.py").write_text(BACKEND)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", f"odd_keyring.{name}")


def without_token(folder: Path) -> Settings:
    """A console without a token, whose kept tokens are in a file of the folder."""
    return Settings(Config(folder / "console.toml"), KeptTokens(folder / "tokens.json"), has_token=False)


def with_marker(folder: Path, server: ServerProcess) -> Settings:
    """A console whose file of tokens says that the keyring has the one for the server."""
    settings = without_token(folder)
    assert settings.kept is not None
    settings.kept.keep(server.url, InKeyring())
    return settings


async def type_token(console: DrivenConsole, token: str) -> None:
    """Types a token where the console asks for one."""
    await console.wait_for_text("Token for")
    await console.enter(token)


def programs() -> list[psutil.Process]:
    """The running processes that use a keyring for this one."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            if "shm_tui.config.keyring_program" in child.cmdline():
                found.append(child)
    return found


async def test_the_keyring_keeps_a_token_and_the_file_only_a_marker(
    ledger: ServerProcess, tmp_path: Path, file_backend: Path
) -> None:
    settings = without_token(tmp_path)
    async with open_console(ledger, settings=settings, token="") as console:
        await type_token(console, ledger.admin_token)
        await console.wait_for_text("Keep it in your keyring", "PlaintextKeyring")
        await console.pilot.press("y")
        await console.wait_for_text("SENT", "● live")
    assert json.loads((tmp_path / "tokens.json").read_text()) == {ledger.url: {"in_keyring": True}}
    assert await keyring.find_token(ledger.url) == ledger.admin_token
    async with open_console(ledger, settings=settings, token="") as console:  # it does not ask again
        await console.wait_for_text("SENT", "● live")
        await console.enter("forget_token", "colon")
        await console.wait_for_text("The token is kept no longer")
    assert await keyring.find_token(ledger.url) is None
    assert json.loads((tmp_path / "tokens.json").read_text()) == {}


async def test_a_token_kept_in_the_file_leaves_none_in_the_keyring(
    ledger: ServerProcess, tmp_path: Path, file_backend: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keyring had the token before. The second console finds no keyring when it asks where to keep the new one."""
    await keyring.keep_token(ledger.url, SECRET)
    async with open_console(
        ledger, settings=with_marker(tmp_path, ledger), token=""
    ) as console:  # which has SECRET, and is refused
        monkeypatch.setattr(keyring, "DESCRIBE_TIMEOUT_S", 0.0)
        await type_token(console, ledger.admin_token)
        await console.wait_for_text("which only you can read")
        await console.pilot.press("y")
        await console.wait_for_text("SENT", "● live")
    assert KeptTokens(tmp_path / "tokens.json").find(ledger.url) == ledger.admin_token
    assert await keyring.find_token(ledger.url) is None


def test_once_uses_a_token_of_the_keyring(ledger: ServerProcess, tmp_path: Path, file_backend: Path) -> None:
    kept = KeptTokens(tmp_path / "shm" / "console-tokens.json")
    kept.keep(ledger.url, InKeyring())
    command = [*SHM, "console", "--server", ledger.url, "--data-dir", str(tmp_path), "--once"]
    environment = {"XDG_CONFIG_HOME": str(tmp_path), "XDG_DATA_HOME": str(file_backend)}
    environment["PYTHON_KEYRING_BACKEND"] = "keyrings.alt.file.PlaintextKeyring"
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (result.returncode, "no token" in result.stderr) == (1, True), "the marker alone is no token"
    asyncio.run(keyring.keep_token(ledger.url, ledger.admin_token))
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "sent 5" in result.stdout


async def test_a_hanging_keyring_does_not_hold_the_console(
    ledger: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The console draws and answers keys meanwhile, then asks for the token, and offers the file."""
    choose_backend("Hanging", tmp_path, monkeypatch)
    async with open_console(ledger, settings=with_marker(tmp_path, ledger), token="") as console:
        await console.wait_until(programs, "the keyring's process")
        await console.wait_for_text("Waiting for the keyring")
        await console.pilot.press("question_mark")
        await console.wait_for_text("NAVIGATION")
        await console.pilot.press("escape")
        monkeypatch.setattr(keyring, "KEYRING_TIMEOUT_S", 1.0)
        await console.enter("token", "colon")
        await type_token(console, ledger.admin_token)
        await console.wait_for_text("Keep it in your keyring")
        assert not programs(), "a token that is typed is not waited for"
        await console.pilot.press("y")
        await console.wait_for_text("the keyring did not answer within 1 s", "which only you can read")
        await console.pilot.press("y")
        await console.wait_for_text("The keyring still has the previous token", "⏎ continue")
        await console.pilot.press("enter")
        await console.wait_for_text("SENT", "● live")
    assert KeptTokens(tmp_path / "tokens.json").find(ledger.url) == ledger.admin_token
    assert not programs(), "the processes end with the console"


async def test_a_key_before_the_question_is_no_answer(
    ledger: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `y` while the keyring is looked for keeps the token nowhere."""
    choose_backend("Late", tmp_path, monkeypatch)
    may_answer = tmp_path / "may_answer"
    monkeypatch.setenv("ODD_KEYRING_MAY_ANSWER", str(may_answer))
    async with open_console(ledger, settings=without_token(tmp_path), token="") as console:
        await type_token(console, ledger.admin_token)
        await console.wait_until(programs, "the keyring's process")
        await console.pilot.press("y", "enter")
        may_answer.touch()
        await console.wait_for_text("Keep it in your keyring (a late one)?")
        assert not (tmp_path / "tokens.json").exists()
        await console.pilot.press("n")
        await console.wait_for_text("SENT", "● live")


async def test_the_user_is_asked_where_the_keyring_refuses(
    ledger: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose_backend("Printing", tmp_path, monkeypatch)
    async with open_console(ledger, settings=with_marker(tmp_path, ledger), token="") as console:
        await console.wait_for_text("the keyring cannot be used: it is", "Token for")


async def test_the_token_is_in_no_argument_and_no_variable_of_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose_backend("Hanging", tmp_path, monkeypatch)
    keeping = asyncio.create_task(keyring.keep_token("https://a", SECRET))
    while not programs():
        assert not keeping.done()
        await asyncio.sleep(0.05)
    (program,) = programs()
    seen = [*program.cmdline(), *program.environ().values()]
    assert not [text for text in seen if SECRET in text]
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    assert not program.is_running()


async def test_what_a_backend_says_reaches_the_user_sanitized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choose_backend("Printing", tmp_path, monkeypatch)
    with pytest.raises(KeyringError, match=r"the keyring cannot be used: it is �\[31mlocked"):
        await keyring.find_token("https://a")


@pytest.mark.parametrize(
    "backend", ["keyring.backends.null.Keyring", "keyring.backends.fail.Keyring", "no.such.Backend", None]
)
async def test_without_a_keyring_there_is_none(
    backend: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend that keeps passwords in a file without protection is used only where the user has chosen it."""
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    for name in ("PYTHON_KEYRING_BACKEND", "DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR", "DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    if backend is not None:
        monkeypatch.setenv("PYTHON_KEYRING_BACKEND", backend)
    assert await keyring.keyring_name() == ""


@pytest.mark.skipif(
    not (shutil.which("dbus-run-session") and shutil.which("gnome-keyring-daemon")),
    reason="needs dbus-run-session and gnome-keyring-daemon",
)
def test_the_secret_service_of_a_desktop_keeps_a_token(tmp_path: Path) -> None:
    script = (
        "import asyncio\n"
        "from shm_tui.config import keyring\n"
        "async def main():\n"
        "    print(await keyring.keyring_name())\n"
        f"    await keyring.keep_token('https://a', {SECRET!r})\n"
        "    print(await keyring.find_token('https://a'))\n"
        "    await keyring.forget_token('https://a')\n"
        "    print(await keyring.find_token('https://a'))\n"
        "asyncio.run(main())\n"
    )
    start = 'printf secret | gnome-keyring-daemon --unlock --components=secrets >/dev/null && exec "$@"'
    home = dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"), str(tmp_path)) | {"PATH": "/usr/bin:/bin"}
    result = subprocess.run(
        ["dbus-run-session", "--", "sh", "-c", start, "sh", sys.executable, "-c", script],
        env=home,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["SecretService", "Keyring", SECRET, "None"]
