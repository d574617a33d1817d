"""Small private files: written whole and durably or not at all, and read without waiting."""

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from shm_sdk.locks import FileLock

PRIVATE = 0o600
RENAME_TIMEOUT_S = 10.0  # another process needs milliseconds to rename its file


def open_regular_file(path: Path) -> BinaryIO:
    """Opens a file to read. Raises OSError, also for a FIFO, which would block until another process writes to it."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise OSError(errno.EINVAL, "not a regular file")


def write_atomically(content: bytes, target: Path, *, is_durable: bool = True, mode: int = PRIVATE) -> None:
    """Writes `target` with this mode, or replaces it. Readers see the old content or the new one. Raises OSError.

    Without `is_durable` a crash of the machine, not of the process, may lose the content.
    """
    with _temporary_file(content, target, is_durable=is_durable) as temporary:
        if mode != PRIVATE:
            temporary.chmod(mode)
        temporary.replace(target)
        if is_durable:
            _sync_directory(target.parent)


def write_exclusively(content: bytes, target: Path) -> None:
    """Writes `target`, mode 0600, unless it exists. Raises OSError."""
    with _temporary_file(content, target) as temporary:
        _link_exclusively(temporary, target)
        _sync_directory(target.parent)


@contextlib.contextmanager
def _temporary_file(content: bytes, target: Path, *, is_durable: bool = True) -> Iterator[Path]:
    """A complete file beside `target`, removed at the end unless it was moved."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{os.urandom(4).hex()}")
    try:
        # Mode 0600 from the start. O_EXCL prevents writing through a symbolic link that another user created.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            if is_durable:
                file.flush()
                os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _link_exclusively(temporary: Path, target: Path) -> None:
    """Links the file to its name unless that exists, which is atomic. Some file systems have no hard links."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        return
    except OSError:
        _rename_exclusively(temporary, target)


def _rename_exclusively(temporary: Path, target: Path) -> None:
    """Moves the file. Windows does not rename onto an existing file; elsewhere a file lock serializes the renames."""
    if sys.platform == "win32":
        with contextlib.suppress(FileExistsError):
            temporary.rename(target)
        return
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    if not lock.acquire(RENAME_TIMEOUT_S):
        raise OSError(errno.EBUSY, "another process holds its lock")
    try:
        if not target.exists():
            temporary.rename(target)
    finally:
        lock.release()


def _sync_directory(directory: Path) -> None:
    """Makes the new directory entry durable, on systems that support it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
