"""Finds the running server of a cluster, and never mistakes another process for it.

After a power cut or a `kill -9`, postmaster.pid remains and may name a process of another program.
"""

import os
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

from shm.db.embedded.programs import reap
from shm.db.embedded.small_files import read_small_file

PS_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 5.0
PROGRAM = "postgres"
MAX_PID = 2**31 - 1  # that the system's calls take
SOCKET_LOCKS = ".s.PGSQL.*.lock"  # beside each socket, with the PID of its server


class Postmaster:
    """The server of one cluster, by its postmaster.pid. PostgreSQL writes that file and SHM reads it."""

    def __init__(self, cluster: Path) -> None:
        self._cluster = cluster
        self._file = cluster / "postmaster.pid"

    def lines(self) -> list[str]:
        """The lines of postmaster.pid: 1 the PID, 2 the cluster, 4 the port, 5 the socket's directory. May be empty."""
        try:
            return read_small_file(self._file).decode().splitlines()
        except (OSError, UnicodeDecodeError):
            return []

    def is_alive(self) -> bool:
        """Whether the process that postmaster.pid names is this cluster's server. Cheap: called every second."""
        pid = _first_number(self._file)
        return pid > 1 and not reap(pid) and self._is_own(pid)

    def accepts_connections(self) -> bool:
        """Whether a server listens on the socket that postmaster.pid names, perhaps that of another container."""
        lines = self.lines()
        if len(lines) < 5 or not lines[4]:
            return False
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(CONNECT_TIMEOUT_S)
            try:
                probe.connect(f"{lines[4]}/.s.PGSQL.{lines[3]}")
            except OSError:
                return False
        return True

    def has_stale_files(self) -> bool:
        """Whether there are lock files of a server, while none of this cluster runs."""
        return self._file.exists() or bool(self.stale_socket_locks(self._cluster))

    def remove_stale_files(self) -> None:
        """Removes lock files that name a process of another program or none: PostgreSQL would refuse to start."""
        for file in (self._file, *self.stale_socket_locks(self._cluster)):
            with suppress(FileNotFoundError):
                file.unlink()

    def stale_socket_locks(self, directory: Path) -> list[Path]:
        """The lock files of sockets in a directory whose first line names no server of this cluster."""
        return [file for file in directory.glob(SOCKET_LOCKS) if not self._names_own_process(file)]

    def _names_own_process(self, file: Path) -> bool:
        pid = _first_number(file)
        return pid > 1 and self._is_own(pid)

    def _is_own(self, pid: int) -> bool:
        """Whether the process is a PostgreSQL in the cluster's directory: a postmaster changes to it at its start."""
        process = Path(f"/proc/{pid}")
        if not Path("/proc/self").exists():
            return self._is_own_by_ps(pid)
        try:
            if (process / "comm").read_text().strip() != PROGRAM:
                return False
            return (process / "cwd").samefile(self._cluster)
        except PermissionError:  # of another user: its command line is readable
            with suppress(OSError):
                return os.fsencode(self._cluster) in (process / "cmdline").read_bytes().split(b"\0")
            return False
        except OSError:
            return False

    def _is_own_by_ps(self, pid: int) -> bool:
        """Whether the process belongs to this cluster, by its command line. For macOS, which has no /proc."""
        try:
            command = subprocess.run(
                ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)],
                capture_output=True,
                text=True,
                timeout=PS_TIMEOUT_S,
                check=False,
            ).stdout
        except (OSError, subprocess.TimeoutExpired):
            return False
        return PROGRAM in command and str(self._cluster) in command


def _first_number(file: Path) -> int:
    """The number in the first line of a file; 0 if there is none that a process can have, as after a power cut."""
    try:
        number = int(read_small_file(file).split(b"\n", 1)[0])
    except (OSError, ValueError):
        return 0
    return number if number <= MAX_PID else 0
