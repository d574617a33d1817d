"""Hosts of the SDK as processes of their own."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

HANG_TIMEOUT_S = 240.0  # of a host that takes a second or two on an idle machine; below the limit of a test
STACKS_TIMEOUT_S = 30.0

REPORT = "import sys, shm_sdk; print(shm_sdk.Client(sys.argv[1], 'Ledger', '1', data_dir=sys.argv[2]).report_now())"


def report_in_subprocess(url: str, data_dir: Path, program: str = REPORT, **environment: str) -> str:
    """The outcome of one report to this server, as text."""
    completed = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, url, str(data_dir)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (completed.returncode, completed.stderr) == (0, "")
    return completed.stdout


def run_host(program: str, *arguments: str | Path, timeout: float = HANG_TIMEOUT_S) -> str:
    """The output of a host program, which must end by itself.

    If it does not, the stacks of all threads of all its processes are in the assertion's message.
    """
    process = subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGABRT)  # each prints its stacks
        stacks = "no stacks"
        with suppress(subprocess.TimeoutExpired):
            _, stacks = process.communicate(timeout=STACKS_TIMEOUT_S)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(f"the host has not ended within {timeout:g} s\n{stacks}") from None
    assert process.returncode == 0, errors
    return output
