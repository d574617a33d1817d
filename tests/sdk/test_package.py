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


START = 'import shm_sdk; client = shm_sdk.Client("http://127.0.0.1:1", "Ledger", "1"); client.start()'


def test_each_step_imports_only_its_own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps the import and the memory of reporting small; `make bench-sdk` measures both."""
    monkeypatch.setenv("SHM_DATA_DIR", str(tmp_path))
    assert modules_loaded_by("import shm_sdk") - modules_loaded_by("pass") == {"shm_sdk", "shm_sdk.version"}
    heavy = {
        "dataclasses",
        "inspect",
        "psutil",
        "asyncio",
        "urllib.request",
        "tempfile",
        "encodings.idna",
        "hashlib",
        "nacl.bindings",
        "platform",
        "uuid",
        "cryptography",
        "email",
        "http",
        "http.client",
        "calendar",
    }
    heavy -= modules_loaded_by("import logging")  # that of Python 3.14 has some of them
    late = {"ssl", "socket", "nacl"}
    assert modules_loaded_by(START) & (heavy | late) == set()
    reported = modules_loaded_by(f"import sys; sys.modules['psutil'] = None; {START}; client.report_now()") - {"psutil"}
    assert late < reported
    assert reported & heavy == set()


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
def test_every_variable_that_the_code_names_is_documented(document: Path) -> None:
    """Beside those of settings: of the identity, the opt-out, proxies and certificate authorities."""
    code = "\n".join(path.read_text() for path in (ROOT / "sdk/shm_sdk").rglob("*.py"))
    names = set(re.findall(r"\b(?:SHM(?:_[A-Z]+)+|DO_NOT_TRACK|[A-Z]+_CA_BUNDLE|SSL_CERT_[A-Z]+)\b", code))
    names |= {name.upper() for name in re.findall(r'"([a-z]+_proxy)"', code)}
    assert {"SHM_PRIVATE_KEY", "SHM_TELEMETRY", "SSL_CERT_FILE", "NO_PROXY"} < names
    assert names - set(re.findall(r"\b[A-Z]\w+", document.read_text().upper())) == set()


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
