"""The restricted mode: nothing is executed, written or kept on the machine of the console."""

import subprocess
import sys
from pathlib import Path

from shm_tui.app import HOST_ACTIONS, ConsoleApp
from shm_tui.command import make_client
from shm_tui.restricted import remove_textual_variables
from tests.support.shm_command import run_shm

HOST_ACCESSES = [
    "subprocess.run(['true'])",
    "os.system('true')",
    "os.execv('/bin/true', ['true'])",
    "os.fork()",
    "pathlib.Path('file').write_text('x')",
    "open('file', 'a')",
    "os.open('file', os.O_CREAT)",
    "os.mkdir('directory')",
    "os.remove('present')",
    "os.rename('present', 'file')",
    "os.write(present, b'x')",
    "socket.socket(socket.AF_UNIX).bind('socket')",
]


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


def test_a_restricted_process_gets_an_error(tmp_path: Path) -> None:
    """`present` is a file that was opened before. Reading and terminals stay possible."""
    (tmp_path / "present").write_text("")
    program = f"""
import os, pathlib, pty, socket, subprocess
from shm_tui.restricted import forbid_host_access
present = os.open("present", os.O_WRONLY)
forbid_host_access()
open("present").read()
_, terminal = pty.openpty()
assert os.write(terminal, b"x") == 1
for statement in {HOST_ACCESSES}:
    try:
        exec(statement)
    except OSError:
        continue
    raise AssertionError(statement)
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, timeout=60, check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["present"]
    assert (tmp_path / "present").read_text() == ""
