"""The `shm` command as its users run it, with no other settings than a test says: conftest takes away the machine's."""

import os
import subprocess
import sys
from pathlib import Path

import psutil

SHM = (sys.executable, "-m", "shm.cli")
LIMIT_S = 60


def run_shm(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """To its end, with nothing to read."""
    return subprocess.run(
        [*SHM, *arguments],
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def start_serve(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
    """`shm serve` with exactly these arguments."""
    return subprocess.Popen(
        [*SHM, "serve", *arguments],
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def postgres_of(folder: Path) -> list[int]:
    """The PostgreSQL servers that run in a data directory."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if str(folder / "postgres") in (process.info["cmdline"] or ()) and "postgres" in process.name()
    ]
