"""The public face: what a host application holds in its hands.

Nothing here raises into the host or waits without a bound. The parts that talk are imported when the first report is
due, so an application that merely starts us pays next to nothing.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from shm_sdk.consent import refusal

if TYPE_CHECKING:
    from shm_sdk.configuration import Configuration
    from shm_sdk.outcome import Outcome
    from shm_sdk.reporter import Reporter
    from shm_sdk.worker import Worker

ProviderT = TypeVar("ProviderT", bound=Callable[[], Mapping[str, object]])

NOW_TIMEOUT = 10.0  # seconds for all requests of one `report_now`, which the host waits for
LONGEST_FIRST_DELAY = 7 * 86400.0  # seconds; what is longer is a mistake in units

log = logging.getLogger("shm_sdk")
log.addHandler(logging.NullHandler())  # a host that configured no logging shall not find us on its stderr


class Client:
    """Telemetry of one application in one process.

    Every argument left out is read from its `SHM_` variable; docs/sdk.md lists them. `server_url`, `app_name` and
    `app_version` are needed. `report_interval` is in seconds, a timedelta, or text such as `15m`; at least a minute.
    `os_arch` replaces what would be found out about the machine, for simulations. A wrong setting turns telemetry off
    with one line in the log `shm_sdk`.
    """

    def __init__(
        self,
        server_url: str | None = None,
        app_name: str | None = None,
        app_version: str | None = None,
        *,
        data_dir: str | os.PathLike[str] | None = None,
        environment: str | None = None,
        deployment_mode: str | None = None,
        enabled: bool | None = None,
        report_interval: float | timedelta | str | None = None,
        collect_system_metrics: bool | None = None,
        os_arch: str | None = None,
    ) -> None:
        self._started = time.monotonic()
        self._enabled = enabled
        self._providers: list[Callable[[], Mapping[str, object]]] = []
        self._lock = threading.Lock()  # held for moments only, never while anything is sent
        self._reporter: Reporter | None = None
        self._worker: Worker | None = None
        self._configuration: Configuration | None = None
        self._mistake = ""
        if refusal(enabled, os.environ):
            return  # not even a wrong setting is looked at, and should the refusal end, a restart is due
        from shm_sdk.configuration import ConfigurationError, configure

        arguments: dict[str, object] = {
            "server_url": server_url,
            "app_name": app_name,
            "app_version": app_version,
            "data_dir": data_dir,
            "environment": environment,
            "deployment_mode": deployment_mode,
            "report_interval": report_interval,
            "collect_system_metrics": collect_system_metrics,
            "os_arch": os_arch,
        }
        try:
            self._configuration = configure(arguments, os.environ)
        except ConfigurationError as error:
            self._mistake = str(error)
        except Exception as error:  # an argument that fails while it is looked at
            self._mistake = f"its settings cannot be read ({type(error).__name__})"
        if self._mistake:
            log.warning("telemetry is off: %s", self._mistake)

    def provider(self, function: ProviderT) -> ProviderT:
        """Adds a function that returns metrics, as a decorator or by a plain call; several are merged in order.

        It is called for each report, in a background thread, and may fail: the report then goes without its metrics.
        """
        self._providers.append(function)
        return function

    def start(self, first_report_after: float | timedelta | None = None) -> None:
        """Starts reporting in the background and returns at once; does nothing where telemetry is off or started.

        The first report comes 5 to 15 minutes later, or after `first_report_after` (seconds or a timedelta).
        """
        if off := self._why_off():
            log.debug("telemetry does not start: %s", off)
            return
        try:
            with self._lock:
                if self._worker is None or not self._worker.alive:
                    self._worker = self._new_worker(first_report_after)
                    self._worker.start()
        except Exception as error:  # no thread to be had, or the interpreter is ending
            log.debug("telemetry cannot start: %s", type(error).__name__, exc_info=True)

    def stop(self, flush: bool = False, timeout: float = 2.0) -> None:
        """Ends the background thread; with `flush`, after one last report. Returns within `timeout` seconds.

        A host need not call it to exit: the thread is a daemon and holds nothing up.
        """
        try:
            with self._lock:
                worker, self._worker = self._worker, None
            called = time.monotonic()
            if worker is not None:
                worker.stop(flush=flush, timeout=timeout)
            if self._reporter is not None:
                self._reporter.close(called + timeout - time.monotonic())
        except Exception as error:
            log.debug("telemetry did not stop in order: %s", type(error).__name__, exc_info=True)

    def report_now(self, timeout: float = NOW_TIMEOUT) -> "Outcome":
        """Takes a snapshot and sends it in this thread, registering first where that is due; never raises.

        `timeout` bounds the network in seconds; the providers take the time they take. Several threads take turns, and
        the connection is kept for the next call until `stop`.
        """
        from shm_sdk.outcome import Outcome, Result

        if off := self._why_off():
            return Outcome(Result.OFF, off)
        try:
            return self._the_reporter().report(timeout)
        except Exception as error:
            log.debug("a telemetry report failed", exc_info=True)
            return Outcome(Result.FAILED, f"{type(error).__name__} inside the SDK")

    def _why_off(self) -> str | None:
        """Asked before each step, so that a refusal counts from the moment it is in the environment."""
        if why := refusal(self._enabled, os.environ):
            return why
        return None if self._configuration else self._mistake or "it was refused when the application started"

    def _new_worker(self, first_report_after: float | timedelta | None) -> "Worker":
        from random import SystemRandom

        from shm_sdk.schedule import first_delay
        from shm_sdk.worker import Worker

        if isinstance(first_report_after, timedelta):
            first_report_after = first_report_after.total_seconds()
        if first_report_after is None:
            delay = first_delay(SystemRandom())
        else:
            delay = min(max(float(first_report_after), 0.0), LONGEST_FIRST_DELAY)
        return Worker(self.report_now, lambda outcome: self._the_reporter().pause(outcome), delay)

    def _the_reporter(self) -> "Reporter":
        """The one of this client, made when it is first needed."""
        from shm_sdk.reporter import Reporter

        with self._lock:
            if self._reporter is None:
                assert self._configuration is not None  # noqa: S101  # `_why_off` came first
                self._reporter = Reporter(self._configuration, self._providers, self._started)
            return self._reporter
