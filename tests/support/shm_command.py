"""The `shm` command, with only the settings that a test gives it: conftest removes those of the machine."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from tests.support.preloaded_command import start_preloaded, wait_for_exit

SHM = (sys.executable, "-m", "shm.cli")
LIMIT_S = 60


def run_shm(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Runs `shm` to its end with an empty standard input.

    It is forked by a process that has imported the server, as `ServerProcess` is, unless the environment has a variable
    that Python reads at its start.
    """
    whole = {**os.environ, **environment}
    if any(name.startswith(("PYTHON", "LC_", "LANG")) for name in environment):
        return subprocess.run(
            [*SHM, *arguments],
            env=whole,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    with tempfile.TemporaryDirectory() as folder:
        stdout, stderr = Path(folder, "stdout"), Path(folder, "stderr")
        process = start_preloaded(list(arguments), whole, stdout, stderr)
        status = wait_for_exit(process, LIMIT_S)
        output, errors = (path.read_bytes().decode() for path in (stdout, stderr))  # with the line ends of CSV
        return subprocess.CompletedProcess([*SHM, *arguments], status, output, errors)


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
