"""The distribution: light to import, alone, and documented as it is."""

import inspect
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import shm_sdk
from shm_sdk import Client

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "sdk/pyproject.toml").read_text())["project"]
GUIDE = ROOT / "docs/sdk.md"
ROW = re.compile(r"^\| `(\w+)` +\| (?:`(SHM_\w+)`|none) +\|", re.MULTILINE)


def modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        env={**os.environ, "SHM_TELEMETRY": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(done.stdout.split())


def test_importing_loads_nothing_that_talks_signs_or_measures() -> None:
    """What the budget of 25 ms rests on; the time itself is printed by bench/, beside that of bare Python."""
    heavy = {"ssl", "http", "socket", "email", "urllib", "asyncio", "nacl", "json", "psutil", "dataclasses", "pathlib"}
    assert heavy & modules_after("import shm_sdk") == set()
    started = 'shm_sdk.Client("http://localhost", "Ledger", "1").start()'
    assert {"ssl", "http", "socket", "email", "nacl", "psutil"} & modules_after(f"import shm_sdk; {started}") == set()


def test_the_sdk_needs_neither_the_server_nor_the_console() -> None:
    everything = "; ".join(f"import shm_sdk.{path.stem}" for path in (ROOT / "sdk/shm_sdk").glob("[a-z]*.py"))
    loaded = {name.split(".")[0] for name in modules_after(everything)}
    assert not loaded & {"shm", "shm_tui", "tornado", "textual", "msgspec", "httpx", "platformdirs"}
    assert [re.split(r"\W", one)[0] for one in PROJECT["dependencies"]] == ["pynacl"]


def test_the_version_is_said_once_and_the_same_everywhere() -> None:
    assert shm_sdk.__version__ == PROJECT["version"]


def test_the_public_names_are_those_that_are_promised() -> None:
    assert set(shm_sdk.__all__) == {"Client", "Outcome", "Result", "__version__"}
    assert all(hasattr(shm_sdk, name) for name in shm_sdk.__all__)
    with pytest.raises(AttributeError):
        shm_sdk.nothing_of_the_kind  # noqa: B018
    assert (ROOT / "sdk/shm_sdk/py.typed").exists()


def test_every_setting_is_in_the_guide_with_its_variable() -> None:
    documented = dict(ROW.findall(GUIDE.read_text()))
    arguments = list(inspect.signature(Client).parameters)
    assert list(documented) == arguments
    assert documented == {name: "" if name == "os_arch" else f"SHM_{name.upper()}" for name in arguments}


@pytest.mark.parametrize("document", [ROOT / "sdk/README.md", GUIDE], ids=["README", "guide"])
def test_the_examples_in_the_documents_run(document: Path, tmp_path: Path) -> None:
    examples = re.findall(r"^```python\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)
    assert examples
    for example in examples:
        subprocess.run(
            [sys.executable, "-W", "error", "-c", example],
            env={**os.environ, "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path), "DO_NOT_TRACK": "1"},
            timeout=60,
            check=True,
        )
    assert list(tmp_path.iterdir()) == []
