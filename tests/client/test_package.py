"""The client leans on nobody: whoever has a URL and a token can use it, and it loads no more than it needs."""

import subprocess
import sys
from pathlib import Path

import pytest

import shm_client
from tests.support.imports import imported

FOLDER = Path(shm_client.__file__).parent


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.py")), ids=lambda file: file.stem)
def test_the_client_leans_on_neither_server_nor_console_nor_sdk(file: Path) -> None:
    roots = {name.split(".")[0] for name in imported(file.read_text(encoding="utf-8"))}
    assert not roots & {"shm", "shm_tui", "shm_sdk", "textual", "rich", "tests"}


def test_who_only_reads_loads_no_websocket() -> None:
    code = "import sys, shm_client; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "shm_client" in loaded
    assert not loaded & {"tornado", "shm", "shm_tui", "shm_sdk", "textual"}


def test_the_public_names_are_there_and_typed() -> None:
    assert shm_client.__all__ == sorted(shm_client.__all__)
    assert all(hasattr(shm_client, name) for name in shm_client.__all__)
    assert (FOLDER / "py.typed").exists()
