"""The first program of docs/sdk.md and of README.md prints the documented output on a real server."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server_process import ServerProcess

ROOT = Path(__file__).parents[2]
SERVER = "http://127.0.0.1:8080"


@pytest.mark.parametrize("page", ["docs/sdk.md", "README.md"])
def test_the_first_program_prints_the_documented_output(server: ServerProcess, tmp_path: Path, page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    program = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[0]
    assert SERVER in program
    output = subprocess.run(
        [sys.executable, "-W", "error", "-c", program.replace(SERVER, server.url)],
        env={**os.environ, "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert f"prints `{output.strip()}`" in " ".join(text.split())
