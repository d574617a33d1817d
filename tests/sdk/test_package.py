"""The distribution: fast to import, independent of the server, and documented correctly."""

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


def modules_loaded_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        env={**os.environ, "SHM_TELEMETRY": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(done.stdout.split())


def test_importing_loads_no_network_or_crypto_module() -> None:
    """Keeps the import under 25 ms. bench/ measures the time itself, next to that of bare Python."""
    heavy = {"ssl", "http", "socket", "email", "urllib", "asyncio", "nacl", "json", "psutil", "dataclasses", "pathlib"}
    assert heavy & modules_loaded_by("import shm_sdk") == set()
    start = 'shm_sdk.Client("http://localhost", "Ledger", "1").start()'
    assert {"ssl", "http", "socket", "email", "nacl", "psutil"} & modules_loaded_by(f"import shm_sdk; {start}") == set()


def test_the_sdk_imports_no_server_or_console() -> None:
    everything = "; ".join(f"import shm_sdk.{path.stem}" for path in (ROOT / "sdk/shm_sdk").glob("[a-z]*.py"))
    loaded = {name.split(".")[0] for name in modules_loaded_by(everything)}
    assert not loaded & {"shm", "shm_tui", "tornado", "textual", "msgspec", "httpx", "platformdirs"}
    assert [re.split(r"\W", dependency)[0] for dependency in PROJECT["dependencies"]] == ["pynacl"]


def test_the_version_is_that_of_the_distribution() -> None:
    assert shm_sdk.__version__ == PROJECT["version"]


def test_the_public_names() -> None:
    names = {"Client", "ConfigurationError", "ConsentRequest", "Outcome", "Result", "__version__"}
    assert set(shm_sdk.__all__) == names
    assert all(hasattr(shm_sdk, name) for name in shm_sdk.__all__)
    assert (ROOT / "sdk/shm_sdk/py.typed").exists()


@pytest.mark.parametrize("document", [ROOT / "sdk/README.md", GUIDE], ids=["README", "guide"])
def test_every_setting_is_documented_with_its_variable(document: Path) -> None:
    documented = dict(ROW.findall(document.read_text()))
    arguments = list(inspect.signature(Client).parameters)
    assert list(documented) == arguments
    without = {"os_arch", "consent_callback", "strict"}
    assert documented == {name: "" if name in without else f"SHM_{name.upper()}" for name in arguments}


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
