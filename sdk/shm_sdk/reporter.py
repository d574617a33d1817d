"""One report, from the host's counters to the server's response.

    counters and providers -> snapshot (sanitized) -> the user's permission -> delivery (signed, registered, spooled)

`Client.report_now` calls `Reporter.report` on demand, and the worker when a report is due. One report at a time is made
for an install, whatever its processes: a file lock covers the report, and its results are in the shared state.
"""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import SystemRandom

from shm_sdk import snapshot, system
from shm_sdk.clock import get_clock
from shm_sdk.clones import replace_identity
from shm_sdk.configuration import Configuration
from shm_sdk.consent import Consent, ConsentCallback
from shm_sdk.counters import Counters, merge_ended, sum_up
from shm_sdk.delivery import TOO_MANY_REQUESTS, Delivery
from shm_sdk.diagnostics import Notices, warn_once
from shm_sdk.hints import Hints
from shm_sdk.identity import Identity, InvalidIdentityError, create_ephemeral, find, obtain
from shm_sdk.locks import FileLock
from shm_sdk.outcome import Outcome, Preview, Result
from shm_sdk.providers import Provider, ProviderRunner, is_provider_thread
from shm_sdk.schedule import compute_delay
from shm_sdk.sender import REPORT_LOCK_NAME
from shm_sdk.shared_directory import SharedDirectory
from shm_sdk.spool import Spool
from shm_sdk.state import State, StateFile
from shm_sdk.transport import MAX_RETRY_AFTER_S

PREVIEW_TIMEOUT_S = 10.0  # for the providers; a person waits for the preview
CLOSE_TIMEOUT_S = 1.0  # a report that runs longer keeps its connection

log = logging.getLogger("shm_sdk")


class Reporter:
    """Reports for one install. Thread-safe: reports run one after the other."""

    def __init__(
        self,
        configuration: Configuration,
        providers: Sequence[Provider],
        started_at: float,
        consent_callback: ConsentCallback | None = None,
        counters: Counters | None = None,
        directory: SharedDirectory | None = None,
        hints: Hints | None = None,
    ) -> None:
        """`providers` may grow later. `started_at` is the `time.monotonic()` of the host's start."""
        self._notices = Notices()
        self._consent = Consent(configuration, consent_callback, self._notices)
        self._configuration = configuration
        self._providers = providers
        self._started_at = started_at
        self._counters = counters
        self._shared = directory or SharedDirectory(configuration)
        self._delivery = Delivery(configuration, hints or Hints())
        self._provider_runner = ProviderRunner()
        self._lock = threading.RLock()  # a signal handler that reports must not wait for the report that it interrupts
        self._is_reporting = False
        self._identity: Identity | None = None
        self._directory: Path | None = None
        self._state_file = self._shared.in_memory_state
        self._spool = Spool(None)
        self._file_lock: FileLock | None = None
        self._outage_logged = False
        self._invalid_registration_logged = False
        self._rng = SystemRandom()  # has no state, so parent and forked children draw different numbers

    def report(self, timeout: float) -> Outcome:
        """Takes a snapshot and sends it. `timeout` limits the providers and all requests together, in seconds."""
        deadline = time.monotonic() + timeout
        with self._locked(timeout) as is_locked:
            if not is_locked:
                return Outcome(Result.FAILED, "another report of this install is still running")
            try:
                outcome = self._report(deadline)
            except Exception as error:  # a bug of the SDK must not reach the host
                log.debug("a telemetry report failed", exc_info=True)
                outcome = Outcome(Result.FAILED, f"{type(error).__name__} inside the SDK")
            self._log_outcome(outcome)
            return outcome

    def preview(self) -> Preview:
        """The bodies of a report, made as for a report. Sends nothing and stores nothing."""
        try:
            found = find(self._configuration)
        except InvalidIdentityError as error:
            found = create_ephemeral(str(error))
        identity = found or create_ephemeral("")  # a new install shows an ID that is not its later one
        state = StateFile(self._shared.peek()).load()
        collected = self._collect_metrics(state, time.monotonic() + PREVIEW_TIMEOUT_S)
        metrics = self._consent.select_agreed(collected)
        if identity.is_ephemeral:
            metrics = snapshot.mark_ephemeral(metrics)
        return Preview(
            server_url=self._configuration.server_url,
            is_registered=found is not None,
            register=self._delivery.register_payload(identity, state),
            snapshot=self._delivery.snapshot_payload(identity, metrics, state.sequence + 1),
        )

    def close(self, timeout: float = CLOSE_TIMEOUT_S) -> None:
        """Closes the connection, unless a running report uses it for longer than `timeout` seconds."""
        with self._locked_in_process(timeout) as is_locked:
            if is_locked:
                self._delivery.close()

    @contextmanager
    def _locked(self, timeout: float) -> Iterator[bool]:
        """Acquires the locks of this process and of the install. Yields False after the timeout."""
        deadline = time.monotonic() + timeout
        with self._locked_in_process(timeout) as is_locked:
            if not is_locked:
                yield False
                return
            self._use_shared_directory()
            try:
                is_alone = self._file_lock is None or self._file_lock.acquire(max(deadline - time.monotonic(), 0))
            except OSError as error:  # the processes cannot see each other
                message = "telemetry reports without a lock on %s: %s"
                warn_once(f"lock {self._directory}", message, REPORT_LOCK_NAME, error.strerror)
                is_alone = True
            try:
                yield is_alone
            finally:
                if self._file_lock is not None:
                    self._file_lock.release()

    @contextmanager
    def _locked_in_process(self, timeout: float) -> Iterator[bool]:
        """Yields False after the timeout, and at once where waiting would be waiting for itself."""
        if is_provider_thread() or not self._lock.acquire(timeout=max(timeout, 0)):
            yield False
            return
        try:
            if self._is_reporting:  # by this thread, which a signal handler has interrupted
                yield False
                return
            self._is_reporting = True
            try:
                yield True
            finally:
                self._is_reporting = False
        finally:
            self._lock.release()

    def _use_shared_directory(self) -> None:
        """Uses the shared directory as soon as there is one."""
        directory = self._shared.find()
        if directory is not None and self._directory is None:
            self._directory = directory
            previous = self._state_file.load()
            self._state_file, self._spool = StateFile(directory), Spool(directory)
            self._file_lock = FileLock(directory / REPORT_LOCK_NAME)
            if previous.instance_id and not self._state_file.load().instance_id:
                self._save(previous)  # of reports before the user agreed to files

    def _report(self, deadline: float) -> Outcome:
        state = self._state_file.load()
        if 0 < (wait_s := state.quiet_until - get_clock().timestamp()) <= MAX_RETRY_AFTER_S:
            return Outcome(Result.FAILED, "the server asked to wait", retry_after=wait_s)
        if (refusal := self._consent.refusal()) is not None:
            return refusal
        metrics = self._consent.check(self._collect_metrics(state, deadline))  # before anything is stored
        if isinstance(metrics, Outcome):
            self._plan(metrics, state)
            return metrics
        identity = self._obtain_identity()
        if identity.is_ephemeral:
            metrics = snapshot.mark_ephemeral(metrics)
        state.ensure_identity(identity.instance_id)
        outcome = self._delivery.deliver(identity, metrics, state, self._spool, deadline)
        if self._delivery.needs_new_identity and replace_identity(identity, state):
            self._identity = None
        self._plan(outcome, state)
        return outcome

    def _plan(self, outcome: Outcome, state: State) -> None:
        """Stores the outcome and when the next report follows."""
        now = get_clock().timestamp()
        # A server that takes some of a backlog in each minute is no failing one.
        is_repeated = outcome.result.value == state.last_result and not self._delivery.has_shortened_spool
        state.repetitions = state.repetitions + 1 if is_repeated else 1
        state.last_result = outcome.result.value
        if outcome.sent:
            state.last_sent_at = now
        state.quiet_until = now + outcome.retry_after if outcome.retry_after else 0.0
        state.next_report_at = now + compute_delay(
            outcome,
            state.repetitions,
            interval_s=self._configuration.report_interval,
            instance_id=self._identity.instance_id if self._identity else None,
            now=now,
            rng=self._rng,
        )
        self._save(state)

    def _save(self, state: State) -> None:
        """Stores the state, with the counts of ended processes."""
        try:
            ended = merge_ended(self._directory, state) if self._directory else []
            self._state_file.save(state)
            for path in ended:
                path.unlink(missing_ok=True)
        except OSError as error:
            warn_once(f"state {self._directory}", "the telemetry state cannot be stored: %s", error.strerror)

    def _obtain_identity(self) -> Identity:
        """This install's identity. A temporary one is replaced by a stored one only."""
        current = self._identity
        if current is not None and self._consent.is_erased(current.instance_id):
            current = self._identity = None
        if current is not None and not current.is_ephemeral:
            return current
        found = obtain(self._configuration)  # the disk may have been repaired
        if current is None or found.path is not None or not found.is_ephemeral:
            self._identity = found
        if current is None and found.is_ephemeral:
            reason = found.ephemeral_reason
            warn_once(f"ephemeral {reason}", "the server counts this install separately, as ephemeral: %s", reason)
        assert self._identity is not None  # noqa: S101  # set above
        return self._identity

    def _collect_metrics(self, state: State, deadline: float) -> dict[str, snapshot.Json]:
        """The metrics of a new snapshot: of the system, of the counters and of all providers."""
        # System metrics come first, so that a provider with too many keys does not displace them. For a key of both,
        # the provider's value is sent.
        metrics: dict[object, object] = {}
        if self._configuration.collect_system_metrics:
            metrics.update(system.collect_system_metrics(self._started_at))
        own = self._counters.samples() if self._counters else []
        for name, value in sum_up(self._shared.peek(), state, own).items():
            metrics[name] = int(value) if value.is_integer() else value
        for collected in self._provider_runner.collect(self._providers, deadline):
            metrics.update(collected)
        sanitized = snapshot.sanitize(metrics)
        for line in sanitized.dropped:
            self._notices.warn_left_out(line)
        return sanitized.metrics

    def _log_outcome(self, outcome: Outcome) -> None:
        """One warning when reports stop reaching the server; none for retries, or when the server asks to wait.

        That the server does not take the application's values is an error instead, once: no retry mends it.
        """
        is_failure = outcome.result in (Result.FAILED, Result.REFUSED)
        is_waiting = outcome.status == TOO_MANY_REQUESTS or (outcome.retry_after and outcome.status is None)
        if self._delivery.is_registration_invalid and not self._invalid_registration_logged:
            self._outage_logged = self._invalid_registration_logged = True
            log.error("the telemetry server does not register this application: %s", outcome.reason)
            return
        if is_failure and not is_waiting and not self._outage_logged:
            self._outage_logged = True
            log.warning("telemetry reports do not reach the server: %s; retries are not logged", outcome.reason)
            return
        if not is_failure:
            self._outage_logged = False
        log.debug("telemetry report: %s (%s)", outcome.result.value, outcome.reason)
