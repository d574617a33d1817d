"""The console's model and text packages load no Textual; no module of the console imports the server or the SDK."""

import subprocess
import sys
from pathlib import Path

import pytest

import shm_tui
from tests.support.imports import imported_modules

FOLDER = Path(shm_tui.__file__).parent
FILES = sorted(FOLDER.rglob("*.py"))
MODEL = [
    ".".join(file.relative_to(FOLDER.parent).with_suffix("").parts)
    for file in FILES
    if {"model", "text"} & {part.name for part in file.parents} and file.name != "__init__.py"
]


def test_model_and_text_load_no_textual() -> None:
    assert len(MODEL) > 10
    code = f"import sys, {', '.join(MODEL)}; print(*sys.modules)"
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = {name.split(".")[0] for name in completed.stdout.split()}
    assert "shm_tui" in loaded
    assert not loaded & {"textual", "shm", "shm_sdk"}


def test_the_first_screen_loads_no_other_view() -> None:
    views = [
        name for name in MODEL if name.startswith("shm_tui.model.views.") and not name.endswith(("base", "registry"))
    ]
    code = "import sys, shm_tui.app; print(*sys.modules)"
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert len(views) > 6
    assert not set(completed.stdout.split()) & set(views)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(FOLDER)))
def test_no_module_imports_the_server_or_the_sdk(file: Path) -> None:
    roots = {name.split(".")[0] for name in imported_modules(file.read_text(encoding="utf-8"))}
    assert not roots & {"shm", "shm_sdk", "tests"}


def test_local_imports_are_found() -> None:
    assert set(imported_modules("import shm.feed.hub\ndef f():\n    from shm_sdk import Client")) == {
        "shm.feed.hub",
        "shm_sdk",
    }
