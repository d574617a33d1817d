"""The daemon thread that reports in the background, and ends the moment it is told to."""

import logging
import threading
from collections.abc import Callable

from shm_sdk.outcome import Outcome, Result

REPORT_TIMEOUT = 30.0  # seconds for all requests of one report; a healthy server needs a fraction of one

log = logging.getLogger("shm_sdk")


class Worker:
    """One background thread's life, from `start` to `stop`. A stopped one is not started again."""

    def __init__(
        self, report: Callable[[float], Outcome], pause: Callable[[Outcome], float], first_delay: float
    ) -> None:
        """`report` makes one attempt within so many seconds, `pause` says how long to wait after it; neither raises."""
        self._report = report
        self._pause = pause
        self._first_delay = first_delay
        self._told_to_stop = threading.Event()
        self._flush_timeout: float | None = None
        self._thread = threading.Thread(target=self._run, name="shm-telemetry", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the thread runs in this process."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Starts the thread; raises RuntimeError where the system has none left."""
        self._thread.start()

    def stop(self, *, flush: bool, timeout: float) -> None:
        """Tells the thread to end, after one last report if `flush`, and waits for it up to `timeout` seconds."""
        if flush:
            self._flush_timeout = timeout
        self._told_to_stop.set()
        if threading.current_thread() is not self._thread:  # a provider may stop its own telemetry
            self._thread.join(float(timeout))  # None would wait for ever

    def _run(self) -> None:
        try:
            ended = self._report_until_told()
            if self._flush_timeout is not None and not ended:
                self._report(self._flush_timeout)
        except BaseException as error:  # nothing of ours may reach the host's threading.excepthook
            log.debug("the telemetry thread ends: %s", type(error).__name__, exc_info=True)

    def _report_until_told(self) -> bool:
        """True when telemetry turned out to be off, False when told to stop."""
        delay = self._first_delay
        while not self._told_to_stop.wait(delay):
            outcome = self._report(REPORT_TIMEOUT)
            if outcome.result is Result.OFF:
                return True
            delay = self._pause(outcome)
        return False
