"""The limit of open files of this process. Each connection is an open file."""

import resource
from contextlib import suppress

RESERVED_FILES = 128  # not for connections of clients: connections to PostgreSQL, the log, pipes, files that are read


def raise_file_limit() -> None:
    """Raises the soft limit to the hard limit. Child processes inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # some systems have a lower limit of their own; the soft limit remains
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def max_open_connections() -> int | None:
    """The number of connections that the limit allows this process; None if there is no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else max(soft // 2, soft - RESERVED_FILES)
