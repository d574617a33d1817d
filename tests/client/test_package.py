"""The client imports no other package of the project, and Tornado only for feeds."""

import subprocess
import sys
from pathlib import Path

import pytest

import shm_client
from tests.support.imports import imported_modules

FOLDER = Path(shm_client.__file__).parent


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.py")), ids=lambda file: file.stem)
def test_the_client_imports_no_server_console_or_sdk(file: Path) -> None:
    roots = {name.split(".")[0] for name in imported_modules(file.read_text(encoding="utf-8"))}
    assert not roots & {"shm", "shm_tui", "shm_sdk", "textual", "rich", "tests"}


def test_importing_the_client_loads_no_tornado() -> None:
    code = "import sys, shm_client; print(*sys.modules)"
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = {name.split(".")[0] for name in completed.stdout.split()}
    assert "shm_client" in loaded
    assert not loaded & {"tornado", "shm", "shm_tui", "shm_sdk", "textual"}


def test_importing_the_client_loads_no_command_line_program() -> None:
    code = "import sys, shm_client, httpx; httpx.Client().close(); print(*sys.modules)"
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "httpx" in completed.stdout.split()
    assert not {"click", "pygments", "rich", "httpx._main"} & set(completed.stdout.split())


def test_the_public_names_exist_and_are_typed() -> None:
    assert shm_client.__all__ == sorted(shm_client.__all__)
    assert all(hasattr(shm_client, name) for name in shm_client.__all__)
    assert (FOLDER / "py.typed").exists()
