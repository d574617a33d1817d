"""Decides which process of an install reports, and when.

One process at a time holds the sender lock and reports for all. The others ask for the lock now and then, so that one
of them takes over when the sender has ended. The next report's time is in the shared state: a restart does not change
it.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from random import Random

from shm_sdk.clock import get_clock
from shm_sdk.configuration import Configuration
from shm_sdk.diagnostics import warn_once
from shm_sdk.locks import FileLock
from shm_sdk.schedule import MAX_FIRST_DELAY_S, draw_first_delay
from shm_sdk.shared_directory import SharedDirectory
from shm_sdk.state import StateFile

LOCK_NAME = "sender.lock"
REPORT_LOCK_NAME = "report.lock"
TAKEOVER_POLL_S = 20.0  # of a process that waits for the lock
MAX_RETRY_AFTER_S = 86400.0  # a longer one is of a wrong clock
MAX_WAIT_S = 300.0  # of the sender: the clock may be set, and a suspended machine's timers stand still

log = logging.getLogger("shm_sdk")


class Sender:
    """Elects the sender among the processes of an install. Used by the background thread only."""

    def __init__(
        self,
        configuration: Configuration,
        directory: SharedDirectory,
        rng: Random,
        *,
        first_report_after: float | None,
        prepare_report: Callable[[], None],
    ) -> None:
        """`first_report_after`: seconds from now, if the host asked for a time.

        `prepare_report` is called shortly before each report, in the processes that do not report.
        """
        self._configuration = configuration
        self._directory = directory
        self._rng = rng
        self._prepare_report = prepare_report
        self._requested_at = None if first_report_after is None else get_clock().timestamp() + first_report_after
        self._lock: FileLock | None = None
        self._has_waited = False
        self._is_announced = False
        self._reported_at = 0.0
        self._drawn_due = 0.0  # the first report's time, kept here in case it cannot be stored

    def next_delay(self) -> float:
        """Seconds until the next check. 0: this process has to report now."""
        if not self.become_sender():
            self._has_waited = True
            if self._directory.state_file().load().next_report_at - get_clock().timestamp() < 2 * TAKEOVER_POLL_S:
                self._prepare_report()
            return self._rng.uniform(0.8, 1.0) * TAKEOVER_POLL_S
        if self._has_waited:
            self._requested_at = None  # the request was for the start, and another process has reported since then
        delay_s = max(self._due() - get_clock().timestamp(), 0.0)
        if not self._is_announced:
            self._is_announced = True
            due = get_clock().now() + timedelta(seconds=delay_s)
            log.info("the first telemetry report is due at %s UTC, in %.0f s", due.strftime("%H:%M:%S"), delay_s)
        return min(delay_s, MAX_WAIT_S)

    def become_sender(self) -> bool:
        """Whether this process is the sender, or becomes it now."""
        directory = self._directory.find()
        if directory is None:  # no other process can be seen
            return True
        if self._lock is None:
            self._lock = FileLock(directory / LOCK_NAME)
        try:
            return self._lock.is_held or self._lock.acquire()
        except OSError as error:
            message = "each process sends its own telemetry: no lock on %s: %s"
            warn_once(f"sender {directory}", message, directory / LOCK_NAME, error.strerror)
            return True

    def record_report(self, started_at: float) -> None:
        """Records that this process made a report at this Unix time."""
        self._requested_at = None
        self._reported_at = started_at

    def close(self) -> None:
        """Lets another process report."""
        if self._lock is not None:
            self._lock.release()

    def _due(self) -> float:
        """When to report (Unix time), by the host's request or by the state."""
        state, now = self._directory.state_file().load(), get_clock().timestamp()
        latest = now + MAX_FIRST_DELAY_S + 2 * self._configuration.report_interval
        quiet_until = state.quiet_until if state.quiet_until < now + MAX_RETRY_AFTER_S else 0.0
        is_known = 0 < state.next_report_at < max(latest, quiet_until + 1)
        if self._requested_at is not None:
            # Sooner, but not later: a process that always ends before its delay does not postpone the report.
            sooner = min(self._requested_at, state.next_report_at) if is_known else self._requested_at
            due = max(sooner, quiet_until)
            if state.next_report_at != due:
                self._store_due(due)  # for the other processes
            return due
        if 0 < self._reported_at <= now and not (is_known and self._reported_at < state.next_report_at):
            # The last report could not store the time of the next one.
            return self._reported_at + self._configuration.report_interval
        if not is_known:  # the first start, or a wrong clock
            if not self._reported_at < self._drawn_due < latest:
                self._drawn_due = now + draw_first_delay(self._rng)
            self._store_due(self._drawn_due)
            return self._drawn_due
        return state.next_report_at

    def _store_due(self, due: float) -> None:
        """Stores the time of the next report, unless a report is just being made, which stores a later one."""
        directory = self._directory.find()
        if directory is None:
            self._directory.in_memory_state.load().next_report_at = due
            return
        lock = FileLock(directory / REPORT_LOCK_NAME)
        with suppress(OSError):
            if lock.acquire():
                try:
                    state_file = StateFile(directory)
                    state = state_file.load()
                    state.next_report_at = due
                    state_file.save(state)
                finally:
                    lock.release()
