"""Finds the running server of a cluster, and never mistakes another process for it.

After a power cut or a `kill -9`, postmaster.pid remains and may name a process of another program.
"""

import os
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

from shm.db.postgres_programs import reap

PS_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 5.0
PROGRAM = "postgres"


class Postmaster:
    """The server of one cluster, by its postmaster.pid. PostgreSQL writes that file and SHM reads it."""

    def __init__(self, cluster: Path) -> None:
        self._cluster = cluster
        self._file = cluster / "postmaster.pid"

    def lines(self) -> list[str]:
        """The lines of postmaster.pid: 1 the PID, 2 the cluster, 4 the port, 5 the socket's directory. May be empty."""
        try:
            return self._file.read_text().splitlines()
        except (OSError, UnicodeDecodeError):
            return []

    def is_alive(self) -> bool:
        """Whether the process that postmaster.pid names is this cluster's server. Cheap: called every second."""
        try:
            pid = int(self.lines()[0])
        except (ValueError, IndexError):
            return False
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

    def remove_stale_file(self) -> None:
        """Removes postmaster.pid, which names a process of another program: PostgreSQL would refuse to start."""
        with suppress(FileNotFoundError):
            self._file.unlink()

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
