"""File locks (flock) between the `shm` processes of one data directory. The kernel releases a dead process's locks."""

import fcntl
import logging
import os
import time
from pathlib import Path
from typing import TextIO

from shm.core.errors import ConfigurationError
from shm.core.ownership import chown_to_owner_of
from shm.core.signals import exit_if_signalled

logger = logging.getLogger(__name__)

LOCK_TIMEOUT_S = 120  # the holder may be in a crash recovery of a large database
POLL_INTERVAL_S = 0.05


def open_lock_file(path: Path) -> TextIO:
    """Opens a lock file, which no other user can open, and so no other user can lock. Root leaves it to the directory's
    owner.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    chown_to_owner_of(path.parent, descriptor)
    return os.fdopen(descriptor, "w")


def acquire_shared(file: TextIO) -> None:
    """Waits for a shared lock. Raises ConfigurationError after `LOCK_TIMEOUT_S`, SystemExit after a signal."""
    _acquire(file, fcntl.LOCK_SH)


def acquire_exclusive(file: TextIO) -> None:
    """Waits for an exclusive lock. Raises as `acquire_shared`."""
    _acquire(file, fcntl.LOCK_EX)


def upgrade_if_sole_holder(file: TextIO) -> bool:
    """Turns a shared lock into an exclusive one if no other process holds it. Returns whether it did."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _acquire(file: TextIO, operation: int) -> None:
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    has_logged = False
    while True:
        try:
            fcntl.flock(file, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise ConfigurationError(
                    f"Another shm process has held the lock {file.name} for {LOCK_TIMEOUT_S} s."
                ) from None
        else:
            return
        if not has_logged:
            logger.info("waiting for another shm process that uses %s", file.name)
            has_logged = True
        exit_if_signalled()
        time.sleep(POLL_INTERVAL_S)
