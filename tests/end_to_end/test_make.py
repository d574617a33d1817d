"""`make` in a fresh clone, as a new user runs it."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

CHECKOUT = Path(__file__).parent.parent.parent
PACKAGES = ("", "client", "tui", "sdk")  # directories of a clone that Python imports from
TIMEOUT_S = 600  # allows for an installation over a slow network
STAMPS = (".installed", ".ready")  # of make, the older first


@dataclass(frozen=True)
class Clone:
    """A fresh clone of the last commit, and environment variables with which Python imports from it."""

    folder: Path
    environment: dict[str, str]

    def make(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Runs make without a terminal, and without the variables of this test run."""
        own = ("SHM_", "VIRTUAL_ENV", "PYTEST", "MAKE", "MFLAGS")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        return subprocess.run(
            ["make", *arguments],
            cwd=self.folder,
            env=inherited | self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def use_environment_of_checkout(self) -> None:
        """Provides `.venv` without an installation: the one of this checkout, whose `make test` installed it."""
        environment = self.folder / ".venv"
        environment.mkdir()
        for each in Path(sys.prefix).iterdir():
            if each.name not in STAMPS:
                (environment / each.name).symlink_to(each)
        for stamp in STAMPS:
            (environment / stamp).touch()


@pytest.fixture(scope="module", params=["existing environment", pytest.param("installation", marks=pytest.mark.long)])
def clone(request: pytest.FixtureRequest) -> Iterator[Clone]:
    """A clone. The long form installs everything with pip; each first `make test` of a checkout does so as well."""
    with tempfile.TemporaryDirectory(prefix="shm-clone-") as folder:
        target = Path(folder) / "shm"
        subprocess.run(["git", "clone", "--quiet", str(CHECKOUT), str(target)], check=True, capture_output=True)
        if request.param == "installation":
            # pip then compiles no modules: half of its time would go into modules that are never imported.
            yield Clone(target, {"PIP_NO_COMPILE": "0"})
            return
        clone = Clone(target, {"PYTHONPATH": os.pathsep.join(str(target / package) for package in PACKAGES)})
        clone.use_environment_of_checkout()
        yield clone


def processes_of(folder: Path) -> list[str]:
    """The command lines of processes that name a folder."""
    lines = (" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))
    return [line for line in lines if str(folder) in line]


@pytest.mark.timeout(TIMEOUT_S)
def test_make_demo_in_a_fresh_clone_leaves_no_process(clone: Clone) -> None:
    """It prints the fleet and keeps its data in `.demo`."""
    done = clone.make("demo")
    assert done.returncode == 0, done.stderr
    for name in ("Ledger", "Kiosk", "Café Board"):
        assert name in done.stdout, done.stdout
    assert str(clone.folder / ".demo") in done.stderr
    assert (clone.folder / ".demo" / "postgres" / "PG_VERSION").exists()
    assert processes_of(clone.folder) == []


@pytest.mark.timeout(TIMEOUT_S)
def test_a_second_make_setup_does_nothing(clone: Clone) -> None:
    assert clone.make("setup").returncode == 0
    assert "Nothing to be done" in clone.make("setup").stdout


def test_make_without_a_target_lists_the_targets(clone: Clone) -> None:
    output = clone.make().stdout
    for target in ("demo", "serve", "test", "test-long", "check", "setup"):
        assert f"make {target}" in output


@pytest.mark.parametrize("marker", ["<<<<<<< HEAD", "||||||| 1f85401", "=======", ">>>>>>> 1f85401 (Mend a limit)"])
def test_make_check_refuses_conflict_markers_in_any_file(clone: Clone, marker: str) -> None:
    changelog = clone.folder / "CHANGELOG.md"
    content = changelog.read_text()
    changelog.write_text(f"{marker}\n{content}")
    try:
        done = clone.make("check")
    finally:
        changelog.write_text(content)
    assert done.returncode != 0
    assert done.stdout == f"CHANGELOG.md:1:{marker}\na merge was not finished: remove the lines with its markers\n"
