"""Runs the `shm` command in a process that a fork server has forked.

The fork server has imported the server already. So a start takes a quarter of the CPU time of one that runs `python -m
shm.cli`, and hundreds of tests start a server. The process has its own memory, signals and exit status as any other.
"""

import multiprocessing
import os
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from threading import Lock

import shm.cli.serve  # noqa: F401 - for the processes to be forked
from shm.cli.main import main

PRELOADED_MODULES = [__name__]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(PRELOADED_MODULES)
_lock = Lock()  # `multiprocessing` reads the exit status of all its processes at each start


def start_preloaded(arguments: list[str], environment: dict[str, str], log_file: Path) -> ForkServerProcess:
    """Starts `shm` with these arguments and exactly this environment; its output is appended to the file."""
    process = _context.Process(target=_run, args=(arguments, environment, log_file), daemon=True)
    with _lock:
        process.start()
    return process


def exit_status(process: ForkServerProcess) -> int | None:
    """The exit status of a process, negative for a signal; None while it runs."""
    with _lock:
        return process.exitcode


def _run(arguments: list[str], environment: dict[str, str], log_file: Path) -> None:
    os.environ.clear()
    os.environ.update(environment)
    log = os.open(log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(log, stream.fileno())
    os.close(log)
    sys.exit(main(arguments))
