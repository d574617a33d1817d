"""Files that commands write: whole or not at all, and readable for their owner only."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shm.core.errors import ConfigurationError

TEMPORARY_PREFIX = "."  # hidden, so that no pattern for whole files finds an unfinished one


@contextmanager
def atomic_file(file: Path) -> Iterator[Path]:
    """The path of an empty file with mode 0600. It replaces `file` at the end of the context, unless that raises.

    Raises ConfigurationError if it cannot be written.
    """
    file = file.resolve()
    if file.exists() and not file.is_file():
        raise ConfigurationError(f"{file} is not a regular file; redirect the output instead of using --output.")
    temporary_file = file.with_name(f"{TEMPORARY_PREFIX}{file.name}.{secrets.token_hex(4)}")
    try:
        os.close(os.open(temporary_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            yield temporary_file
            _sync(temporary_file)
            temporary_file.replace(file)
            _sync(file.parent)
        finally:
            temporary_file.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be written: {error.strerror}.") from None


def _sync(path: Path) -> None:
    """Makes a file, or the names in a directory, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
