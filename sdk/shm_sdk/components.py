"""The components of a client in one process: its counters, its directory, its reporter and its background thread.

Each is imported and created when it is needed, so creating and starting a client costs little. No lock is held around
an import or a wait: a signal handler may need any component at any moment.
"""

import weakref
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from shm_sdk import forking
from shm_sdk.hints import Hints

if TYPE_CHECKING:
    from pathlib import Path

    from shm_sdk.configuration import Configuration
    from shm_sdk.consent import ConsentCallback
    from shm_sdk.counters import Counters
    from shm_sdk.outcome import Outcome
    from shm_sdk.process_metrics import ProcessMetrics
    from shm_sdk.reporter import Reporter
    from shm_sdk.shared_directory import SharedDirectory
    from shm_sdk.worker import Worker

Provider = Callable[[], Mapping[str, object]]
AnyProvider = Callable[[], Mapping[str, object] | Awaitable[Mapping[str, object]]]
ResultT = TypeVar("ResultT")


def call_weakly(method: Callable[[], ResultT]) -> Callable[[], ResultT | None]:
    """Calls a method as long as its object lives. A cycle of objects would keep the connection open."""
    bound = weakref.WeakMethod(method)

    def call() -> ResultT | None:
        alive = bound()
        return alive() if alive else None

    return call


class Components:
    """The components. `configuration` is None as long as telemetry is off or a setting is wrong."""

    def __init__(
        self,
        started_at: float,
        consent_callback: "ConsentCallback | None",
        get_disabled_reason: Callable[[], str | None],
    ) -> None:
        """`get_disabled_reason` must not keep the client alive, see `call_weakly`."""
        self.configuration: Configuration | None = None
        self.started_at = started_at
        self.providers: list[Provider] = []
        self.process_providers: list[Provider] = []
        self.hints = Hints()
        self.may_keep_counts = False  # nothing is stored before the host starts telemetry or makes a report
        self.counters: Counters | None = None
        self.reporter: Reporter | None = None
        self._consent_callback = consent_callback
        self._get_disabled_reason = get_disabled_reason
        self._process_metrics: ProcessMetrics | None = None
        self._shared_directory: SharedDirectory | None = None

    def after_fork(self) -> None:
        """Discards the parent's components, in a child."""
        self.reporter = self._process_metrics = None

    def get_counters(self) -> "Counters":
        """The counters of this process."""
        if self.counters is None:
            with forking.import_lock:
                from shm_sdk.counters import Counters

            created = Counters(call_weakly(self._find_counter_directory))
            if self.counters is None:  # no bytecode between this and the next line releases the GIL
                self.counters = created
        return self.counters

    def get_reporter(self) -> "Reporter":
        """The reporter of this process."""
        if self.reporter is None:
            forking.load_reporting_modules()
            from shm_sdk.reporter import Reporter

            created = Reporter(
                self._get_configuration(),
                self.providers,
                self.started_at,
                self._consent_callback,
                self.get_counters(),
                self._get_shared_directory(),
                self.hints,
            )
            if self.reporter is None:  # as above
                self.reporter = created
        return self.reporter

    def collect_process_metrics(self) -> None:
        """Calls the per-process providers, and keeps the numbers of this process for the sender."""
        if self.process_providers:
            forking.load_reporting_modules()
            from shm_sdk.process_metrics import ProcessMetrics

            if self._process_metrics is None:
                self._process_metrics = ProcessMetrics(self.get_counters(), self.process_providers)
            self._process_metrics.collect()
        if self.counters is not None:
            self.counters.refresh()

    def write_counters(self) -> None:
        """Stores what was counted while nothing could be stored."""
        if self.counters is not None:
            self.counters.write()

    def create_worker(
        self, report: "Callable[[float], Outcome]", first_report_after: float | None, first_check_after_s: float
    ) -> "Worker":
        """A background thread that calls `report` when this process has to. Times are in seconds."""
        with forking.import_lock:
            from random import SystemRandom

            from shm_sdk.clock import get_clock
            from shm_sdk.sender import Sender
            from shm_sdk.worker import Worker

        sender = Sender(
            self._get_configuration(),
            self._get_shared_directory(),
            SystemRandom(),
            first_report_after=first_report_after,
            prepare_report=self.collect_process_metrics,
        )

        def report_and_close(timeout: float) -> "Outcome":
            started_at = get_clock().timestamp()
            outcome = report(timeout)
            sender.record_report(started_at)
            if self.reporter is not None:
                self.reporter.close()
            return outcome

        return Worker(report_and_close, sender.next_delay, sender.close, sender.become_sender, first_check_after_s)

    def _find_counter_directory(self) -> "Path | None":
        if not self.may_keep_counts or self._get_disabled_reason():
            return None
        with forking.import_lock:
            from shm_sdk.locks import HAS_FLOCK

        return self._get_shared_directory().find() if HAS_FLOCK else None  # an ended process cannot be recognized

    def _get_shared_directory(self) -> "SharedDirectory":
        if self._shared_directory is None:
            with forking.import_lock:
                from shm_sdk.shared_directory import SharedDirectory

            self._shared_directory = SharedDirectory(self._get_configuration())
        return self._shared_directory

    def _get_configuration(self) -> "Configuration":
        assert self.configuration is not None  # noqa: S101  # the client checks first that telemetry is on
        return self.configuration
