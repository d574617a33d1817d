"""What the console's modules may lean on: the pure ones on no screen, and none of them on the server or the SDK."""

import subprocess
import sys
from pathlib import Path

import pytest

import shm_tui
from tests.support.imports import imported_modules

FOLDER = Path(shm_tui.__file__).parent
PURE = ("store", "query", "columns", "state", "figures", "clean", "cells", "access", "layout")


def test_the_pure_modules_load_no_screen() -> None:
    code = "import sys, " + ", ".join(f"shm_tui.{name}" for name in PURE) + "; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "shm_tui" in loaded
    assert not loaded & {"textual", "tornado", "shm", "shm_sdk"}


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.py")), ids=lambda file: file.stem)
def test_the_console_leans_on_neither_the_server_nor_the_sdk(file: Path) -> None:
    roots = {name.split(".")[0] for name in imported_modules(file.read_text(encoding="utf-8"))}
    assert not roots & {"shm", "shm_sdk", "tests"}


def test_a_local_import_would_be_found() -> None:
    assert set(imported_modules("import shm.feed.hub\ndef f():\n    from shm_sdk import Client")) == {
        "shm.feed.hub",
        "shm_sdk",
    }
