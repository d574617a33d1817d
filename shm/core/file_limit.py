"""The limit of open files of this process. Each connection is an open file."""

import resource
from contextlib import suppress
from math import inf
from pathlib import Path

RESERVED_FILES = 128  # not for connections of clients: connections to PostgreSQL, the log, pipes, files that are read


def raise_file_limit() -> None:
    """Raises the soft limit to the hard limit. Child processes inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # some systems have a lower limit of their own; the soft limit remains
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def count_open_files() -> int:
    """The number of open files of this process."""
    directory = Path("/proc/self/fd")
    return sum(1 for _ in (directory if directory.is_dir() else Path("/dev/fd")).iterdir())  # macOS has the latter only


def open_files_limit() -> float:
    """The number of files that this process may open; infinite if there is no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return inf if soft == resource.RLIM_INFINITY else soft


def max_open_connections() -> int | None:
    """The number of connections that the limit allows this process; None if there is no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else max(soft // 2, soft - RESERVED_FILES)
