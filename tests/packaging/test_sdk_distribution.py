"""The SDK's source distribution: passes its own tests alone, with every Python of this machine that hosts may have."""

import os
import shutil
import subprocess
import sys
import tarfile
from functools import cache
from pathlib import Path

import pytest

from tests.support.built_distributions import ROOT, UV, build, contents, run

MINORS = range(10, 15)  # of Python 3: those that the SDK supports
PLACES = ("~/.pyenv/versions", "~/.local/share/uv/python", "/opt/python")


@cache
def find_interpreters() -> dict[str, str]:
    """The path of one interpreter for each minor version that works here."""
    found = {f"3.{sys.version_info.minor}": sys.executable}
    for name in [f"3.{minor}" for minor in MINORS]:
        installed = [path for place in PLACES for path in Path(place).expanduser().glob(f"*/bin/python{name}")]
        for candidate in [shutil.which(f"python{name}"), *installed]:
            if name not in found and candidate and _works(str(candidate)):
                found[name] = str(candidate)
    return found


def _works(interpreter: str) -> bool:
    """Whether it runs: a shim of pyenv may stand for no interpreter."""
    done = subprocess.run([interpreter, "-c", "import venv, ssl"], capture_output=True, timeout=60, check=False)
    return done.returncode == 0


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked source distribution."""
    directory = tmp_path_factory.mktemp("sdk-sdist")
    with tarfile.open(build("sdist", ROOT / "sdk", directory)) as archive:
        archive.extractall(directory / "unpacked", filter="data")
    (unpacked,) = (directory / "unpacked").iterdir()
    return unpacked


def test_the_source_distribution_builds_the_same_wheel(source: Path, tmp_path: Path) -> None:
    assert contents(build("wheel", source, tmp_path / "a")) == contents(build("wheel", ROOT / "sdk", tmp_path / "b"))
    assert {"sdk_tests", "examples", "README.md", "LICENSE"} < {path.name for path in source.iterdir()}


@pytest.mark.long
@pytest.mark.parametrize("version", [f"3.{minor}" for minor in MINORS])
def test_the_source_distribution_passes_its_own_tests(source: Path, tmp_path: Path, version: str) -> None:
    interpreter = find_interpreters().get(version)
    if interpreter is None:
        pytest.skip(f"no Python {version} on this machine")
    python = tmp_path / "venv/bin/python"
    run(str(UV), "venv", "--quiet", "--no-project", "--python", interpreter, str(tmp_path / "venv"), cwd=tmp_path)
    install = (str(UV), "pip", "install", "--quiet", "--python", str(python))
    # The lock is that of the server's oldest Python: some of its packages have no version for an older one.
    lock = ("--constraint", str(ROOT / "requirements.lock")) if version != "3.10" else ()
    run(*install, *lock, "pynacl", "pytest", cwd=tmp_path)
    run(*install, "--no-deps", str(build("wheel", source, tmp_path)), cwd=tmp_path)
    tests = shutil.copytree(source, tmp_path / "tests", ignore=shutil.ignore_patterns("shm_sdk"))
    done = subprocess.run(
        [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tests,
        env={name: value for name, value in os.environ.items() if not name.startswith(("SHM_", "PYTEST_", "PYTHON"))},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout
