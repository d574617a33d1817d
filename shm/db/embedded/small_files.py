"""Reads small files in the cluster's directory, where PostgreSQL's user can replace each of them by anything."""

import errno
import os
import stat
from pathlib import Path

MAX_BYTES = 64 * 1024  # more than any of these files has


def read_small_file(file: Path) -> bytes:
    """The content, at most `MAX_BYTES` of it. Raises OSError, also if it is no regular file: a pipe might never end."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as opened:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "It is no regular file", str(file))
        return opened.read(MAX_BYTES)
