"""Locks among the processes of one install, by `flock`: the system releases them when their process ends.

A forked child inherits the open file of its parent's lock. It closes its copy without unlocking, so the lock stays with
the parent and ends with it. A host may close all open files, as a daemon does: the lock is lost then, and the number of
its descriptor may be that of another file of the host. Where there is no `flock` (Windows), a lock holds within its
process only.
"""

import os
import time
from pathlib import Path

from shm_sdk import forking

try:
    import fcntl

    HAS_FLOCK = True
except ImportError:  # Windows
    HAS_FLOCK = False

POLL_S = 0.02  # `flock` has no time-out, so a wait asks again and again

_held_in_process: dict[str, object] = {}  # without flock: the owner of each path


class FileLock:
    """An exclusive lock on a file, which is created. Not re-entrant; also excludes threads of the same process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._file_id: tuple[int, int] | None = None  # of the open file
        self._pid = os.getpid()
        forking.register(self)

    @property
    def is_held(self) -> bool:
        """Whether this object holds the lock in this process."""
        return self._pid == os.getpid() and self.find_status() is not None

    @property
    def descriptor(self) -> int:
        """The descriptor of the open file; -1 while the lock is not held, which the system refuses."""
        return -1 if self._descriptor is None else self._descriptor

    def find_status(self) -> os.stat_result | None:
        """The properties of the open file, None if there is none, or if the host has closed it."""
        if self._descriptor is None:
            return None
        try:
            status = os.fstat(self._descriptor)
        except OSError:
            return None
        return status if (status.st_dev, status.st_ino) == self._file_id else None

    def acquire(self, timeout: float = 0.0) -> bool:
        """Waits up to `timeout` seconds. Raises OSError where the file cannot be opened."""
        deadline = time.monotonic() + timeout
        if self._pid != os.getpid():
            self.after_fork()
        while not self._try_acquire():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            time.sleep(min(POLL_S, left_s))
        return True

    def release(self) -> None:
        """Unlocks, also for children that have inherited the file. Does nothing unless it is held."""
        if not HAS_FLOCK and self._descriptor is not None:
            _held_in_process.pop(str(self._path), None)
        is_open = self.find_status() is not None
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None or not is_open:
            return
        if HAS_FLOCK and self._pid == os.getpid():
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)

    def after_fork(self) -> None:
        """Closes the parent's file, in a child, and leaves the lock to the parent."""
        is_open = self.find_status() is not None
        descriptor, self._descriptor = self._descriptor, None
        self._pid = os.getpid()
        if descriptor is not None and is_open:
            os.close(descriptor)

    def _try_acquire(self) -> bool:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            is_locked = self._lock(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        if not is_locked:
            os.close(descriptor)
            return False
        status = os.fstat(descriptor)
        self._file_id = status.st_dev, status.st_ino
        self._descriptor = descriptor
        return True

    def _lock(self, descriptor: int) -> bool:
        if not HAS_FLOCK:
            return _held_in_process.setdefault(str(self._path), self) is self
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks: each process reports for itself
            return True
        try:  # another process may have removed the file between the two steps
            return os.path.samestat(os.fstat(descriptor), os.stat(self._path))  # noqa: PTH116
        except FileNotFoundError:
            return False


def is_abandoned(path: Path) -> bool:
    """Whether no living process holds the lock on an existing file. False where that is unknown."""
    if not HAS_FLOCK:
        return False
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
