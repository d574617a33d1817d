"""Runs a program of PostgreSQL's, which has ended with all its children before the command that runs it ends."""

import os
import pwd
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TextIO

from shm.core.signals import is_signalled

POLL_INTERVAL_S = 0.05  # between two looks at whether a signal has come
TERMINATE_TIMEOUT_S = 8.0  # initdb notices a signal between its steps, and then removes what it made
KILL_TIMEOUT_S = 5.0


def run_program(
    command: Sequence[str],
    owner: pwd.struct_passwd | None,
    *,
    inherited_file: TextIO | None = None,
    can_terminate: Callable[[], bool] | None = None,
) -> tuple[int, list[str]]:
    """Runs it as `owner`; returns its exit status and the lines of its output.

    `can_terminate` says whether the program may be ended early once a signal has come; without it, the
    program is waited for. `inherited` is a file that it and its children keep open.
    """
    with tempfile.TemporaryFile("w+") as output:  # a pipe would stay open in the server that pg_ctl leaves behind
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            umask=0o077,
            user=owner.pw_uid if owner else None,
            group=owner.pw_gid if owner else None,
            extra_groups=[] if owner else None,
            start_new_session=True,  # a terminal's Ctrl-C is for us alone
            pass_fds=[inherited_file.fileno()] if inherited_file else [],
        )
        try:
            while not _has_ended(process, POLL_INTERVAL_S):
                if can_terminate is not None and is_signalled() and can_terminate():
                    _terminate(process)
        except BaseException:
            _terminate(process)
            raise
        output.seek(0)
        return process.returncode, output.read().strip().splitlines()


def _has_ended(process: "subprocess.Popen[bytes]", timeout_s: float) -> bool:
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def _terminate(process: "subprocess.Popen[bytes]") -> None:
    """SIGTERM; then SIGKILL for its whole process group."""
    process.terminate()
    if _has_ended(process, TERMINATE_TIMEOUT_S):
        return
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + KILL_TIMEOUT_S
    while _group_exists(process.pid) and time.monotonic() < deadline:
        time.sleep(POLL_INTERVAL_S)


def _group_exists(group: int) -> bool:
    """Whether a process of the group is left. Process 1 of a container inherits orphans, and has to wait for them."""
    with suppress(ChildProcessError):
        os.waitpid(-group, os.WNOHANG)
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):  # macOS: PermissionError for those that have ended
        return False
    return True
