"""Python modules as processes that end with their context, and free ports for them."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

from bench.support.errors import InvalidRun

CHECKOUT = Path(__file__).parents[2]
START_TIMEOUT_S = 60
END_TIMEOUT_S = 30
POLL_INTERVAL_S = 0.05


def inherited_environment(*prefixes: str) -> dict[str, str]:
    """The environment without the variables that begin like this, and without the one that keeps modules uncompiled:
    an installed program has its bytecode.
    """
    left_out = (*prefixes, "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in os.environ.items() if not name.startswith(left_out)}


@contextmanager
def python_process(
    module: str, *arguments: str, environment: Mapping[str, str] | None = None, log_file: Path | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """`python -m module`, without the caller's `SHM_` variables. SIGTERM at the end; raises InvalidRun if that fails.

    stdout and stderr are appended to `log_file`; without one they are the caller's.
    """
    inherited = inherited_environment("SHM_")
    output = None if log_file is None else log_file.open("ab")
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=CHECKOUT,
            env={**inherited, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    finally:
        if output is not None:
            output.close()
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise InvalidRun(f"{module} did not end within {END_TIMEOUT_S} s of SIGTERM.") from None


def wait_until(is_ready: Callable[[], bool], process: "subprocess.Popen[bytes]", name: str) -> None:
    """Raises InvalidRun if the process ends before it is ready, or is not ready in time."""
    deadline = monotonic() + START_TIMEOUT_S
    while not is_ready():
        if (status := process.poll()) is not None:
            raise InvalidRun(f"{name} ended with status {status} before it was ready.")
        if monotonic() > deadline:
            raise InvalidRun(f"{name} was not ready within {START_TIMEOUT_S} s.")
        sleep(POLL_INTERVAL_S)


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
