"""The programs of docs/sdk.md and README.md run as they are written; the first one prints the documented output."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server_process import ServerProcess

ROOT = Path(__file__).parents[2]
SERVER = "http://127.0.0.1:8080"


def programs(page: str) -> list[str]:
    """The Python programs of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def run(program: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Runs a program, with warnings as errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, "HOME": str(home), "XDG_DATA_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("page", ["docs/sdk.md", "README.md"])
def test_the_first_program_prints_the_documented_output(server: ServerProcess, tmp_path: Path, page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    program = programs(page)[0]
    assert SERVER in program
    done = run(program.replace(SERVER, server.url), tmp_path)
    assert f"prints `{done.stdout.strip()}`" in " ".join(text.split()), done.stderr


def test_each_program_of_the_guide_runs_without_a_warning(shared_server: ServerProcess, tmp_path: Path) -> None:
    for program in programs("docs/sdk.md")[1:]:
        here = program.replace("https://metrics.example.com", shared_server.url)
        done = run(here.replace("/var/lib/ledger", str(tmp_path)), tmp_path)
        assert (done.returncode, done.stderr) == (0, ""), program


def test_the_commands_of_the_guide_name_a_missing_one(tmp_path: Path) -> None:
    (program,) = (each for each in programs("docs/sdk.md") if "argparse" in each)
    arguments = '["telemetry", "status"]'
    assert arguments in program
    for given in ("[]", '["telemetry"]'):
        done = run(program.replace(arguments, given), tmp_path)
        assert (done.returncode, "arguments are required" in done.stderr) == (2, True), done.stderr
