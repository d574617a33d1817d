"""The daemon thread that reports in the background. `stop` interrupts its wait at once."""

import logging
import threading
from collections.abc import Callable

from shm_sdk.outcome import Outcome, Result

REPORT_TIMEOUT_S = 30.0  # for all requests of one report; a healthy server needs a fraction of a second

log = logging.getLogger("shm_sdk")


class Worker:
    """One background thread, from `start` to `stop`. It cannot be restarted."""

    def __init__(
        self, report: Callable[[float], Outcome], delay_after: Callable[[Outcome], float], first_delay_s: float
    ) -> None:
        """`report` makes one attempt within a timeout. `delay_after` returns the seconds until the next one.

        Neither may raise. `first_delay_s` is the time from `start` to the first attempt.
        """
        self._report = report
        self._delay_after = delay_after
        self._first_delay_s = first_delay_s
        self._stop_requested = threading.Event()
        self._flush_timeout_s: float | None = None
        self._thread = threading.Thread(target=self._run, name="shm-telemetry", daemon=True)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs in this process."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Starts the thread; raises RuntimeError where the system has none left."""
        self._thread.start()

    def stop(self, *, flush: bool, timeout: float) -> None:
        """Ends the thread, after one last report with `flush`, and waits for it up to `timeout` seconds."""
        if flush:
            self._flush_timeout_s = timeout
        self._stop_requested.set()
        if threading.current_thread() is not self._thread:  # a provider may stop its own telemetry
            self._thread.join(float(timeout))  # None would wait for ever

    def _run(self) -> None:
        try:
            is_off = self._report_until_stopped()
            if self._flush_timeout_s is not None and not is_off:
                self._report(self._flush_timeout_s)
        except BaseException as error:  # none may reach the host's threading.excepthook
            log.debug("the telemetry thread ends: %s", type(error).__name__, exc_info=True)

    def _report_until_stopped(self) -> bool:
        """Reports in a loop. Returns True when telemetry is off, False after `stop`."""
        delay_s = self._first_delay_s
        while not self._stop_requested.wait(delay_s):
            outcome = self._report(REPORT_TIMEOUT_S)
            if outcome.result is Result.OFF:
                return True
            delay_s = self._delay_after(outcome)
        return False
