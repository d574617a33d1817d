"""The directory `ssh` of the data directory: the host key and the authorized keys, for their owner only."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shm.cli.output_file import atomic_file
from shm.core.errors import ConfigurationError
from shm.core.lock_files import acquire_exclusive, open_lock_file
from shm.core.ownership import chown_to_owner_of

DIRECTORY = "ssh"
LOCK_FILE = "lock"


@contextmanager
def locked(data_dir: Path) -> Iterator[Path]:
    """Yields the directory, created with mode 0700 if missing. No other process changes it meanwhile.

    Raises ConfigurationError.
    """
    directory = data_dir / DIRECTORY
    try:
        if not directory.exists():
            data_dir.mkdir(parents=True, exist_ok=True)
            directory.mkdir(mode=0o700, exist_ok=True)
            _chown(directory, data_dir)
        lock = open_lock_file(directory / LOCK_FILE)
    except OSError as error:
        raise ConfigurationError(
            f"{directory} cannot be used: {error.strerror}. Make it writable for the user that runs shm, or "
            "use another SHM_DATA_DIR."
        ) from None
    with lock:
        acquire_exclusive(lock)
        yield directory


def write(file: Path, content: bytes) -> None:
    """Writes a file of the locked directory with mode 0600, whole or not at all. Raises ConfigurationError."""
    with atomic_file(file) as temporary_file:
        _chown(temporary_file, file.parent)
        temporary_file.write_bytes(content)


def _chown(path: Path, directory: Path) -> None:
    """As root, leaves a new file to the owner of its directory, whose `shm ssh` has to read it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        chown_to_owner_of(directory, descriptor)
    finally:
        os.close(descriptor)
