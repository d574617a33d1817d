"""The public API of the SDK.

No method raises into the host or waits without a limit, and no lock is held around an import or a wait: a signal
handler may call every method at any moment. The modules for signing and for the network are imported when the first
report is due.
"""

import _thread
import logging
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Literal, TypeVar, cast, overload

from shm_sdk import forking
from shm_sdk.components import AnyProvider, Components, Provider, call_weakly
from shm_sdk.controls import Controls
from shm_sdk.diagnostics import install_handlers
from shm_sdk.event_loop import AsyncProvider, is_async, running_loop
from shm_sdk.opt_out import opt_out_reason, parse_bool
from shm_sdk.outcome import Outcome, Result

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Mapping
    from datetime import timedelta

    from shm_sdk.configuration import Configuration
    from shm_sdk.consent import ConsentCallback
    from shm_sdk.counters import Counter, Gauge
    from shm_sdk.worker import Worker

ProviderT = TypeVar("ProviderT", bound=AnyProvider)

REPORT_NOW_TIMEOUT_S = 10.0  # for all requests of one `report_now`, during which the host waits
CHILD_DELAY_S = 2.0  # a forked child that ends sooner touches no file
FLUSH_POLL_S = 0.02  # of `astop`
FLUSH_SHARE = 0.975  # of the time-out of `stop` is waited for; the host needs the rest to end within it
MAX_TIMEOUT_S = 86400.0  # a lock of the interpreter has a limit too, and raises beyond it
MAX_FIRST_REPORT_AFTER_S = 7 * 86400.0  # a longer delay is a mistake in units

ISOLATED = "create the Client in the main interpreter: an isolated one has no daemon threads"

log = logging.getLogger("shm_sdk")


class Client(Controls):
    """Telemetry of one application in one process.

    A missing argument is read from its `SHM_` variable; docs/sdk.md lists them. `server_url`, `app_name` and
    `app_version` are required. `report_interval` is in seconds, a timedelta, or text such as `15m`; at least a minute.
    `os_arch` replaces the detected value, for simulated installs. `consent` is `opt-out`, `notice` or `opt-in`;
    `consent_callback` asks the user (docs/sdk.md, Consent). `debug` prints everything on stderr. A wrong setting turns
    telemetry off and writes one error to the log `shm_sdk`; with `strict`, it raises ConfigurationError.
    """

    def __init__(
        self,
        server_url: str | None = None,
        app_name: str | None = None,
        app_version: str | None = None,
        *,
        data_dir: "str | os.PathLike[str] | None" = None,
        environment: str | None = None,
        deployment_mode: str | None = None,
        enabled: bool | None = None,
        report_interval: "float | timedelta | str | None" = None,
        collect_system_metrics: bool | None = None,
        os_arch: str | None = None,
        consent: str | None = None,
        consent_callback: "ConsentCallback | None" = None,
        debug: bool | None = None,
        strict: bool = False,
    ) -> None:
        self._enabled: object = enabled
        self._strict = strict
        self._starting = threading.Lock()  # acquired without waiting only
        self._loop: AbstractEventLoop | None = None  # of the host
        self._stops = 0  # calls of `stop`
        self._worker: Worker | None = None
        self._is_started = False
        self._has_named_import_error = False  # one line in the log, not one for each report
        self._pid = os.getpid()
        self._configuration_error = ""
        self._components = Components(time.monotonic(), consent_callback, call_weakly(self._disabled_reason))
        forking.register(self)
        self._arguments: dict[str, object] = {
            "server_url": server_url,
            "app_name": app_name,
            "app_version": app_version,
            "data_dir": data_dir,
            "environment": environment,
            "deployment_mode": deployment_mode,
            "report_interval": report_interval,
            "collect_system_metrics": collect_system_metrics,
            "os_arch": os_arch,
            "consent": consent,
        }
        self._opt_out_name = app_name if isinstance(app_name, str) else ""
        install_handlers(debug=bool(parse_bool(os.environ.get("SHM_DEBUG", "") if debug is None else debug)))
        if reason := opt_out_reason(enabled, os.environ, self._opt_out_name):
            log.debug("telemetry is off: %s", reason)
            return  # the settings are not even read; once telemetry is allowed again, the host has to restart
        try:
            if _is_isolated():
                self._configuration_error = ISOLATED
            else:
                self._components.configuration, self._configuration_error = _read_settings(self._arguments)
        except Exception as error:  # an argument of the host that raises when it is read
            self._configuration_error = f"its settings cannot be read ({type(error).__name__})"
        if self._configuration_error:
            self._report_mistake("telemetry is off: %s", self._configuration_error)

    @overload
    def provider(self, function: ProviderT, *, per_process: bool = False) -> ProviderT: ...

    @overload
    def provider(self, function: None = None, *, per_process: bool = False) -> "Callable[[ProviderT], ProviderT]": ...

    def provider(
        self, function: ProviderT | None = None, *, per_process: bool = False
    ) -> "ProviderT | Callable[[ProviderT], ProviderT]":
        """Adds a function that returns metrics, as a decorator or by a plain call; several are merged in order.

        It is called for each report, in a background thread of the process that reports; an `async def` on the event
        loop in which `start` or this method was called. With `per_process`, it is called in every process of the
        install, and its numbers are added up. If it raises, the report is sent without its metrics.
        """
        if function is None:
            return lambda decorated: self.provider(decorated, per_process=per_process)
        self._loop = running_loop() or self._loop
        adapted = AsyncProvider(function, lambda: self._loop) if is_async(function) else function  # type: ignore[arg-type]
        providers = self._components.process_providers if per_process else self._components.providers
        providers.append(cast("Provider", adapted))
        return function

    def counter(self, name: str) -> "Counter":
        """A counter, such as `telemetry.counter("exports").inc()`: its sum over all processes and restarts is sent."""
        with forking.import_lock:
            from shm_sdk.counters import Counter

        return Counter(self._components.get_counters(), name)

    def gauge(self, name: str, *, across: Literal["sum", "latest"] = "sum") -> "Gauge":
        """A number that goes up and down: `telemetry.gauge("connections").set(7)`.

        `across` says what is sent of several processes: the sum of those that live, or the value that was set last.
        """
        with forking.import_lock:
            from shm_sdk.counters import LATEST, SUM, Gauge

        return Gauge(self._components.get_counters(), name, LATEST if across == "latest" else SUM)

    def describe(
        self,
        name: str,
        *,
        label: str | None = None,
        unit: str | None = None,
        kind: Literal["business", "system"] | None = None,
        aggregate: Literal["sum", "avg", "min", "max", "median"] | None = None,
        description: str | None = None,
    ) -> None:
        """Suggests to the vendor how to show a metric, by its full dotted name. The vendor may accept it.

        Call it where the module is imported, so that each process knows the same. A wrong value is one error in the log
        `shm_sdk`; with `strict`, it raises ConfigurationError.
        """
        fields = {"label": label, "unit": unit, "kind": kind, "aggregate": aggregate, "description": description}
        if error := self._components.hints.add(name, fields):
            self._report_mistake("a description is left out: %s", error)

    def start(self, first_report_after: "float | timedelta | None" = None) -> None:
        """Starts reporting in the background and returns at once. Does nothing if telemetry is off or started.

        The first report follows 5 to 15 minutes later, or after `first_report_after` (seconds or a timedelta).
        """
        if reason := self._disabled_reason():
            log.debug("telemetry does not start: %s", reason)
            return
        if "uwsgi" in sys.modules and self._defers_to_workers(first_report_after):
            return
        self._renew_after_fork()
        self._loop = running_loop() or self._loop
        starting = self._starting  # a fork within these lines, by a signal handler, gives the child another one
        if not starting.acquire(blocking=False):
            return  # another thread starts it, or the thread that this signal handler has interrupted
        try:
            stops = self._stops
            if self._worker is None or not self._worker.is_alive:
                worker = self._components.create_worker(self.report_now, _to_delay(first_report_after), 0.0)
                self._worker = worker
                self._is_started = self._components.may_keep_counts = True
                worker.start()
                self._components.write_counters()  # what was counted before: the process may end at once
                if self._stops != stops:  # a signal handler or another thread called `stop` meanwhile
                    self._is_started = False
                    worker.request_stop()
        except Exception as error:  # the system has no thread left, or the interpreter is shutting down
            log.debug("telemetry cannot start: %s", type(error).__name__, exc_info=True)
        finally:
            starting.release()

    def stop(self, flush: bool = False, timeout: float = 2.0) -> None:
        """Ends reporting at once. With `flush`, the background thread makes one last report before it ends.

        Only `flush` waits, up to `timeout` seconds. It does not wait on a running event loop: `await astop()` there. A
        host may exit without calling it: the thread is a daemon and does not delay the exit.
        """
        seconds = _to_timeout(timeout)
        self._stop(flush, seconds * FLUSH_SHARE if running_loop() is None else 0.0, seconds)

    async def astop(self, flush: bool = False, timeout: float = 2.0) -> None:
        """`stop` for an event loop, which goes on meanwhile."""
        from asyncio import sleep  # a coroutine runs on it: it is imported already

        seconds = _to_timeout(timeout)
        worker, deadline = self._worker, time.monotonic() + seconds * FLUSH_SHARE
        self._stop(flush, 0.0, seconds)
        # The loop's executor may be busy, or shut down already.
        while flush and worker is not None and not worker.is_finished and time.monotonic() < deadline:  # noqa: ASYNC110
            await sleep(FLUSH_POLL_S)

    def report_now(self, timeout: float = REPORT_NOW_TIMEOUT_S) -> Outcome:
        """Takes a snapshot and sends it before it returns, after registering if needed; never raises.

        `timeout` limits everything together, in seconds. Calls of several threads run one after the other. The
        connection stays open for the next call until `stop`.
        """
        if reason := self._disabled_reason():
            return Outcome(Result.OFF, reason)
        try:
            self._renew_after_fork()
            self._components.may_keep_counts = True
            self._components.collect_process_metrics()
            return self._components.get_reporter().report(_to_timeout(timeout))
        except ImportError as error:  # the host was packaged without the SDK's dependency
            return self._fail_without_module(str(error))
        except Exception as error:
            log.debug("a telemetry report failed", exc_info=True)
            return Outcome(Result.FAILED, f"{type(error).__name__} inside the SDK")

    def after_fork(self) -> None:
        """Replaces the parent's thread, locks and connection, in a forked child. Not for hosts."""
        self._pid = os.getpid()
        self._starting = threading.Lock()
        self._worker = self._loop = None
        self._components.after_fork()
        if self._is_started:
            try:
                self._worker = self._components.create_worker(self.report_now, None, CHILD_DELAY_S)
                self._worker.start()
            except Exception as error:  # the system has no thread left
                log.debug("telemetry cannot start in a child: %s", type(error).__name__)

    def _stop(self, flush: bool, wait_s: float, timeout: float) -> None:
        try:
            self._stops += 1
            self._is_started = False
            worker, self._worker = self._worker, None
            if worker is None or not worker.is_alive:
                if self._components.reporter is not None:
                    self._components.reporter.close(timeout=0)
            elif flush:
                worker.flush(timeout, wait_s)
            else:
                worker.request_stop()
        except Exception as error:
            log.debug("stopping telemetry failed: %s", type(error).__name__, exc_info=True)

    def _disabled_reason(self) -> str | None:
        """Why telemetry is off, or None. Reads the environment on each call, so that a change applies at once."""
        if reason := opt_out_reason(self._enabled, os.environ, self._opt_out_name):
            return reason
        if self._components.configuration is not None:
            return None
        return self._configuration_error or "it was off when the application started"

    def _fail_without_module(self, reason: str) -> Outcome:
        if not self._has_named_import_error:
            self._has_named_import_error = True
            log.error("telemetry cannot report: %s", reason)
        return Outcome(Result.FAILED, reason)

    def _report_mistake(self, message: str, mistake: str) -> None:
        """A mistake of the host's developer: an error in the log, or an exception."""
        log.error(message, mistake)
        if self._strict:
            from shm_sdk.configuration import ConfigurationError

            raise ConfigurationError(mistake)

    def _defers_to_workers(self, first_report_after: "float | timedelta | None") -> bool:
        with forking.import_lock:
            from shm_sdk.uwsgi_hosts import defer_to_workers

        try:
            return defer_to_workers(lambda: self.start(first_report_after))
        except Exception:  # of another version of uWSGI, or of what stands in for it
            log.debug("uWSGI does not start telemetry in its workers", exc_info=True)
            return False

    def _renew_after_fork(self) -> None:
        """Renews the state of a child whose host forks without Python's fork hooks, as uWSGI does."""
        if self._pid != os.getpid():
            self.after_fork()


def _is_isolated() -> bool:
    """Whether this is an interpreter with a GIL of its own, in which extension modules may crash the process."""
    may_have_daemons: Callable[[], bool] | None = getattr(_thread, "daemon_threads_allowed", None)  # Python 3.12
    return may_have_daemons is not None and not may_have_daemons()


def _read_settings(arguments: "Mapping[str, object]") -> "tuple[Configuration | None, str]":
    """The settings, or None and what is wrong with them."""
    with forking.import_lock:
        from shm_sdk.configuration import ConfigurationError, load_configuration

    try:
        return load_configuration(arguments, os.environ), ""
    except ConfigurationError as error:
        return None, str(error)


def _to_delay(first_report_after: "float | timedelta | None") -> float | None:
    """Seconds within the limits."""
    if first_report_after is None:
        return None
    to_seconds: Callable[[], float] | None = getattr(first_report_after, "total_seconds", None)
    seconds = to_seconds() if to_seconds else float(first_report_after)  # type: ignore[arg-type]  # a number
    return min(max(seconds, 0.0), MAX_FIRST_REPORT_AFTER_S)


def _to_timeout(timeout: float) -> float:
    """Seconds within the limits, 0 for what is no number."""
    try:
        return min(max(0.0, float(timeout)), MAX_TIMEOUT_S)  # in this order, NaN becomes 0
    except (TypeError, ValueError, OverflowError):
        return 0.0
