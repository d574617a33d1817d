"""Writes the console's own files and exports: whole or not at all, readable by their user only."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import BinaryIO

from shm_tui.errors import ConfigError

LOCK_TIMEOUT_S = 2.0  # another console holds the lock for milliseconds
LOCK_POLL_S = 0.01


@contextmanager
def private_file(path: Path, *, is_new: bool = False) -> Iterator[BinaryIO]:
    """Writes a file with mode 0600. It has its name only at the end of the context, unless that raises.

    Raises OSError; with `is_new` also if there is a file or a link of that name.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            yield file
        if is_new:  # takes the name; not every file system has hard links
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_private(path: Path, content: bytes) -> None:
    """Replaces a file, or the one that a link leads to, with mode 0600. Raises ConfigError; nothing is changed then."""
    try:
        with private_file(_prepare(path)) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _not_written(path, error) from None


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Makes other consoles wait that read and replace the same file. The lock is a file beside it.

    Raises ConfigError, also if another one does not end.
    """
    try:
        target = _prepare(path)
        lock = os.open(target.with_name(f".{target.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _not_written(path, error) from None
    try:
        deadline = monotonic() + LOCK_TIMEOUT_S
        while not _try_lock(path, lock):
            if monotonic() >= deadline:
                raise ConfigError(f"{path} cannot be written: another console is writing it")
            sleep(LOCK_POLL_S)
        yield
    finally:
        os.close(lock)


def _try_lock(path: Path, lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise _not_written(path, error) from None
    return True


def _prepare(path: Path) -> Path:
    """The file that a path leads to, in a directory that exists. Raises OSError and ConfigError."""
    try:
        target = path.resolve()  # a link into a repository of settings remains one
    except RuntimeError:
        raise ConfigError(f"{path} cannot be written: its links form a circle") from None
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return target


def _not_written(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{path} cannot be written: {error.strerror}")
