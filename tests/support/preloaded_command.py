"""Runs the `shm` command in a process that a fork server has forked.

The fork server has imported the server already. So a start takes a quarter of the CPU time of one that runs `python -m
shm.cli`, and hundreds of tests start a server. The process has its own memory, signals and exit status as any other.
"""

import multiprocessing
import os
import sys
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from threading import Lock

import shm.cli.serve  # noqa: F401 - for the processes to be forked
from shm.cli.main import main

PRELOADED_MODULES = [__name__, "tests.support.preloaded_modules"]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(PRELOADED_MODULES)
_lock = Lock()  # `multiprocessing` reads the exit status of all its processes at each start


def start_preloaded(
    arguments: list[str], environment: dict[str, str], stdout: Path, stderr: Path | None = None
) -> ForkServerProcess:
    """Starts `shm` with these arguments and exactly this environment.

    Its output is appended to the file `stdout`, its errors to the file `stderr`, or to `stdout` as well.
    """
    process = _context.Process(target=_run, args=(arguments, environment, stdout, stderr or stdout), daemon=True)
    with _lock:
        process.start()
    return process


def exit_status(process: ForkServerProcess) -> int | None:
    """The exit status of a process, negative for a signal; None while it runs."""
    with _lock:
        return process.exitcode


def wait_for_exit(process: ForkServerProcess, timeout_s: float) -> int:
    """Waits for the end of a process and returns its exit status. Raises TimeoutError."""
    wait([process.sentinel], timeout_s)
    status = exit_status(process)
    if status is None:
        raise TimeoutError(f"process {process.pid} still runs after {timeout_s} s")
    return status


def _run(arguments: list[str], environment: dict[str, str], stdout: Path, stderr: Path) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for stream, path in ((sys.stdout, stdout), (sys.stderr, stderr)):
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        os.dup2(file, stream.fileno())
        os.close(file)
    sys.exit(main(arguments))
