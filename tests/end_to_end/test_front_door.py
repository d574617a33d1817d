"""The front door as a stranger finds it: a fresh clone, `make`, nothing else."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

CHECKOUT = Path(__file__).parent.parent.parent
LIMIT_S = 600  # installing from a slow line


@pytest.fixture(scope="module")
def clone() -> Iterator[Path]:
    """A fresh clone of what is committed."""
    with tempfile.TemporaryDirectory(prefix="shm-clone-") as folder:
        clone = Path(folder) / "shm"
        subprocess.run(["git", "clone", "--quiet", str(CHECKOUT), str(clone)], check=True, capture_output=True)
        yield clone


def make(clone: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Runs make without a terminal, and without what this test run has in its environment."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("SHM_", "VIRTUAL_ENV", "PYTEST"))}
    return subprocess.run(
        ["make", *arguments],
        cwd=clone,
        env=keep | {"PIP_NO_COMPILE": "0"},  # which tells pip not to: half of the time goes into modules never used
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def processes_of(clone: Path) -> list[str]:
    """Whatever runs from the clone."""
    lines = (" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))
    return [line for line in lines if str(clone) in line]


@pytest.mark.timeout(LIMIT_S)
def test_make_demo_in_a_fresh_clone_leaves_no_process(clone: Path) -> None:
    """It prints the fleet and keeps its data in `.demo`."""
    done = make(clone, "demo")
    assert done.returncode == 0, done.stderr
    for name in ("Ledger", "Kiosk", "Café Board"):
        assert name in done.stdout, done.stdout
    assert str(clone / ".demo") in done.stderr
    assert (clone / ".demo" / "postgres" / "PG_VERSION").exists()
    assert processes_of(clone) == []


@pytest.mark.timeout(LIMIT_S)
def test_setting_up_again_does_nothing(clone: Path) -> None:
    assert make(clone, "setup").returncode == 0
    assert "Nothing to be done" in make(clone, "setup").stdout


def test_make_alone_says_what_can_be_done(clone: Path) -> None:
    said = make(clone).stdout
    for target in ("demo", "serve", "test", "test-long", "check", "setup"):
        assert f"make {target}" in said
