"""The daemon thread that reports in the background.

`request_stop` takes no lock and waits for nothing, so a signal handler may call it at any moment.
"""

import logging
import os
import threading
import time
from collections.abc import Callable

from shm_sdk.clock import get_clock
from shm_sdk.outcome import Outcome, Result
from shm_sdk.threads import start_quietly

REPORT_TIMEOUT_S = 30.0  # for one report; providers and a healthy server need a fraction of a second

log = logging.getLogger("shm_sdk")


class Worker:
    """One background thread, from `start` to `stop`. It cannot be restarted."""

    def __init__(
        self,
        report: Callable[[float], Outcome],
        next_delay: Callable[[], float],
        end: Callable[[], None],
        may_report: Callable[[], bool],
        first_check_after_s: float,
    ) -> None:
        """None of the functions may raise.

        `report` makes one attempt within a timeout. `next_delay` returns the seconds until it is called again, 0 if a
        report is due. `may_report` is asked before a last report. `end` is called at the end of the thread.
        """
        self._report = report
        self._next_delay = next_delay
        self._end = end
        self._may_report = may_report
        self._first_check_after_s = first_check_after_s
        self._pid = os.getpid()
        self._stop_requested = False
        self._flush_deadline: float | None = None
        # Held until they signal. `release` neither waits nor can be interrupted, unlike `threading.Event.set`.
        self._wake = threading.Lock()
        self._wake.acquire()
        self._finished = threading.Lock()
        self._finished.acquire()
        self._thread = threading.Thread(target=self._run, name="shm-telemetry", daemon=True)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs in this process."""
        return self._pid == os.getpid() and self._thread.is_alive()

    def start(self) -> None:
        """Starts the thread; raises RuntimeError where the system has none left."""
        start_quietly(self._thread)

    def request_stop(self) -> None:
        """Ends the thread when its report is done. Returns at once."""
        self._stop_requested = True
        _signal(self._wake)

    def flush(self, timeout: float, wait_s: float) -> None:
        """Ends the thread after one last report within `timeout` seconds, and waits for that up to `wait_s`."""
        self._flush_deadline = time.monotonic() + timeout
        self.request_stop()
        if threading.get_ident() != self._thread.ident and self._finished.acquire(timeout=max(wait_s, 0)):
            _signal(self._finished)  # for the next caller

    @property
    def is_finished(self) -> bool:
        """Whether the thread has made its last report."""
        return not self._finished.locked()

    def _run(self) -> None:
        try:
            is_off = self._report_until_stopped()
            if self._flush_deadline is not None and not is_off and self._may_report():
                self._report(max(self._flush_deadline - time.monotonic(), 0))
        except BaseException as error:  # none may reach the host's threading.excepthook
            log.debug("the telemetry thread ends: %s", type(error).__name__, exc_info=True)
        finally:
            self._end()
            _signal(self._finished)

    def _report_until_stopped(self) -> bool:
        """Reports in a loop. Returns True when telemetry is off, False after `request_stop`."""
        delay_s = self._first_check_after_s
        while not self._wait(delay_s):
            delay_s = self._next_delay()
            if delay_s <= 0 and self._report(REPORT_TIMEOUT_S).result is Result.OFF:
                return True
        return False

    def _wait(self, delay_s: float) -> bool:
        """Waits; returns True as soon as the thread has to end."""
        return self._stop_requested or get_clock().wait(self._wake, delay_s) or self._stop_requested


def _signal(lock: threading.Lock) -> None:
    """Wakes the waiting thread, if the lock has not signalled before."""
    try:
        lock.release()
    except RuntimeError:
        return
