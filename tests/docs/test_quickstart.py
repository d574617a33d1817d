"""The programs and commands of docs/quickstart.md give the documented results on a real server."""

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import shm_sdk
from tests.support.server_process import ServerProcess
from tests.support.shm_command import LIMIT_S, SHM

GUIDE = (Path(__file__).parents[2] / "docs/quickstart.md").read_text(encoding="utf-8")
HINT = "correct docs/quickstart.md"
SERVER = "http://127.0.0.1:8080"
TOKEN_FILE = "~/.local/share/shm/admin.token"
CONSOLE = "shm console --once --app ledger"
VARIABLE_FIELDS = {"id", "created_at", "updated_at"}


def blocks(language: str, text: str = GUIDE) -> list[str]:
    """The fenced blocks of a language; without a language, the output of commands."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def run(command: list[str], folder: Path, **environment: str) -> str:
    """Runs a command with `folder` as its home; returns its standard output."""
    home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder / "share")}
    return subprocess.run(
        command,
        env={**os.environ, **home, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=True,
    ).stdout


def split_rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.strip()]


def without_times(response: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in each.items() if name not in VARIABLE_FIELDS} for each in response]


def test_the_first_metric_appears_as_documented(server: ServerProcess, tmp_path: Path) -> None:
    first, _ = blocks("python")
    output = run([sys.executable, "-W", "error", "-c", first.replace(SERVER, server.url)], tmp_path)
    assert f"`{output.strip()}`" in GUIDE, HINT

    assert CONSOLE in GUIDE, HINT
    arguments = [*SHM, *CONSOLE.split()[1:]]
    console_rows = split_rows(run(arguments, tmp_path, SHM_SERVER=server.url, SHM_TOKEN=server.admin_token))
    (table,) = blocks("", GUIDE.partition("the tables contain")[2].partition("`shm console`")[0])
    for row in split_rows(table):
        assert row in console_rows, HINT

    (script,) = [block for block in blocks("sh") if "curl" in block]
    script = script.replace(SERVER, server.url).replace(TOKEN_FILE, str(server.data_dir / "admin.token"))
    response = json.loads(run(["bash", "-euc", script.replace("curl -H", "curl -sSf -H")], tmp_path))
    (documented,) = blocks("json")
    assert without_times(response) == without_times(json.loads(documented)), HINT


def test_the_identity_is_at_the_documented_path(server: ServerProcess, tmp_path: Path) -> None:
    first, _ = blocks("python")
    environment = {name: value for name, value in os.environ.items() if name != "XDG_DATA_HOME"}
    subprocess.run(
        [sys.executable, "-c", first.replace(SERVER, server.url)],
        env={**environment, "HOME": str(tmp_path)},
        timeout=LIMIT_S,
        check=True,
    )
    (path,) = re.findall(r"`~/(\S+metrics_identity\.json)`", GUIDE)
    assert (tmp_path / path).exists(), HINT


def test_the_program_for_production_starts_and_ends_at_once(tmp_path: Path) -> None:
    _, production = blocks("python")
    assert run([sys.executable, "-W", "error", "-c", production], tmp_path) == ""
    assert list(tmp_path.iterdir()) == []


def test_the_argument_that_reports_at_once_exists() -> None:
    (argument,) = re.findall(r"`telemetry\.start\((\w+)=0\)`", GUIDE)
    assert argument in inspect.signature(shm_sdk.Client.start).parameters, HINT
