"""The restricted mode: nothing is executed, written or kept on the machine of the console."""

from pathlib import Path

from shm_tui.app import HOST_ACTIONS, ConsoleApp
from shm_tui.command import make_client
from shm_tui.restricted import remove_textual_variables
from tests.support.shm_command import run_shm


def test_a_restricted_console_refuses_textuals_actions_on_the_machine() -> None:
    client = make_client("http://127.0.0.1:1", "token")
    for is_restricted in (False, True):
        app = ConsoleApp(client, is_restricted=is_restricted)
        for action in HOST_ACTIONS:
            assert hasattr(app, f"action_{action}")
            assert app.check_action(action, ()) is not is_restricted


def test_a_restricted_console_ignores_textuals_variables() -> None:
    environ = {"TEXTUAL_LOG": "/tmp/log", "TEXTUAL_DRIVER": "os:system", "TERM": "xterm"}  # noqa: S108 - not written
    remove_textual_variables(environ)
    assert environ == {"TERM": "xterm"}


def test_a_restricted_console_writes_no_screenshot(tmp_path: Path) -> None:
    file = tmp_path / "screen.svg"
    completed = run_shm("console", "--restricted", "--screenshot", str(file), SHM_TOKEN="x")
    assert completed.returncode == 2
    assert "--screenshot: not in this session" in completed.stderr
    assert not file.exists()
