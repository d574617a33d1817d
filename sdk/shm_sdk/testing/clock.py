"""A clock that stands still until a test moves it."""

import threading
import time
from datetime import datetime, timedelta, timezone

from shm_sdk.clock import Clock

POLL_S = 0.005  # of real time
SETTLE_TIMEOUT_S = 10.0  # of real time, for what is due
REPORTING_THREAD = "shm-telemetry"


class FrozenClock(Clock):
    """The time of the SDK and of the test server. It begins at the real time, or at `start`."""

    def __init__(self, start: datetime | None = None) -> None:
        self._now = start or datetime.now(timezone.utc).replace(microsecond=0)
        self._elapsed = 0.0
        self._lock = threading.Lock()
        self._waiting: dict[int, float] = {}  # by thread ID: until when

    def now(self) -> datetime:
        """The frozen time."""
        with self._lock:
            return self._now

    def monotonic(self) -> float:
        """Seconds by which the clock was moved."""
        with self._lock:
            return self._elapsed

    def advance(self, seconds: float = 0, **units: float) -> None:
        """Moves the clock by seconds, or `minutes=`, `hours=`, `days=`. Returns when what is due has happened.

        A background thread makes at most one report for each call, as a machine does that was suspended meanwhile.
        """
        step = timedelta(seconds=seconds, **units)
        if step < timedelta():
            raise ValueError("a clock does not go back")
        self._settle()  # a report of an earlier step decides when the next one is due
        with self._lock:
            self._now += step
            self._elapsed += step.total_seconds()
        self._settle()

    def wait(self, lock: threading.Lock, seconds: float) -> bool:
        """Waits until the clock was moved by this time, or until the lock is free."""
        end = self.monotonic() + seconds
        with self._lock:
            self._waiting[threading.get_ident()] = end
        try:
            while self.monotonic() < end:
                if lock.acquire(timeout=POLL_S):
                    return True
            return lock.acquire(blocking=False)
        finally:
            with self._lock:
                del self._waiting[threading.get_ident()]

    def _settle(self) -> None:
        """Waits until every reporting thread waits for a moment to come."""
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        while time.monotonic() < deadline:
            threads = [thread for thread in threading.enumerate() if thread.name == REPORTING_THREAD]
            others = [thread.ident or 0 for thread in threads if thread is not threading.current_thread()]
            with self._lock:
                if all(self._waiting.get(thread, -1.0) > self._elapsed for thread in others):
                    return
            time.sleep(POLL_S)
