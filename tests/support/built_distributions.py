"""Wheels and source distributions, built from the checkout, and commands that see nothing of it."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UV = Path(sysconfig.get_path("scripts")) / "uv"


def build(target: str, source: Path, output_dir: Path) -> Path:
    """Builds a wheel or an sdist of `source` in a new directory below `output_dir`."""
    folder = output_dir / f"built-{target}" / source.name
    run(sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder), cwd=source)
    (built,) = folder.iterdir()
    return built


def contents(wheel: Path) -> dict[str, bytes]:
    """The files of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def run(*command: str, cwd: Path) -> str:
    """Runs a command, which must succeed; returns its standard output."""
    completed = subprocess.run(
        command, cwd=cwd, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0, f"{command}\n{completed.stdout}\n{completed.stderr}"
    return completed.stdout


def environment() -> dict[str, str]:
    """This process's environment without variables that refer to the checkout or its virtualenv."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
