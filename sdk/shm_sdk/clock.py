"""The time of the SDK. `shm_sdk.testing` replaces it, so that an hour passes at once in a test."""

import threading
import time
from datetime import datetime, timezone


class Clock:
    """The system's clock."""

    def now(self) -> datetime:
        """The current time in UTC."""
        return datetime.now(timezone.utc)

    def timestamp(self) -> float:
        """The current Unix time."""
        return self.now().timestamp()

    def monotonic(self) -> float:
        """Seconds from an arbitrary moment; for intervals between reports."""
        return time.monotonic()

    def wait(self, lock: threading.Lock, seconds: float) -> bool:
        """Acquires the lock within this time, and returns whether it did."""
        return lock.acquire(timeout=min(max(seconds, 0), threading.TIMEOUT_MAX))


class _Current:
    """The clock in use."""

    def __init__(self) -> None:
        self.clock = Clock()


_current = _Current()


def get_clock() -> Clock:
    """The clock in use."""
    return _current.clock


def set_clock(clock: Clock) -> None:
    """Replaces the clock of this process. For tests."""
    _current.clock = clock
