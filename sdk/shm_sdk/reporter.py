"""One report, from the host's counters to the server's response.

    providers -> snapshot (sanitized, signed) -> register and activate, if the server does not know the install -> send

`Client.report_now` calls `Reporter.report` on demand, and the worker calls it every hour. The reporter tracks whether
the install is registered, and logs one warning when reports stop reaching the server.
"""

import enum
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from random import SystemRandom

from shm_sdk import snapshot, system
from shm_sdk.clock import get_clock
from shm_sdk.configuration import Configuration
from shm_sdk.developer import Notices
from shm_sdk.identity import Identity, InvalidIdentityError, create_ephemeral, find, obtain
from shm_sdk.outcome import Outcome, Preview, Result
from shm_sdk.permission import ConsentCallback, Permission
from shm_sdk.providers import Provider, ProviderRunner, is_provider_thread
from shm_sdk.schedule import compute_delay
from shm_sdk.transport import Response, Transport, TransportError
from shm_sdk.version import __version__

TOO_MANY_REQUESTS = 429
UNKNOWN_INSTANCE_STATUSES = (403, 404)  # the server does not know the install, or has deleted it
PREVIEW_TIMEOUT_S = 10.0  # for the providers; a person waits for the preview
CLOSE_TIMEOUT_S = 1.0  # a report that runs longer keeps its connection
MIN_SERVER_ERROR = 500  # this status and above: the server failed, so a retry may succeed

REPLAYED = "replayed"  # the connection broke after the server had carried out the request, and it was sent again
TIMESTAMP_CODES = ("timestamp_ahead", "timestamp_too_old")

log = logging.getLogger("shm_sdk")


class RegistrationState(enum.Enum):
    """How far the install is registered, by the responses to this process."""

    UNREGISTERED = "unregistered"
    REGISTERED = "registered"
    ACTIVE = "active"


STEPS = {
    RegistrationState.UNREGISTERED: "register",
    RegistrationState.REGISTERED: "activate",
    RegistrationState.ACTIVE: "snapshot",
}


class Reporter:
    """Reports for one install. Thread-safe: reports run one after the other."""

    def __init__(
        self,
        configuration: Configuration,
        providers: Sequence[Provider],
        started_at: float,
        consent_callback: ConsentCallback | None = None,
    ) -> None:
        """`providers` may grow later. `started_at` is the `time.monotonic()` of the host's start."""
        self._notices = Notices()
        self._permission = Permission(configuration, consent_callback, self._notices)
        self._configuration = configuration
        self._providers = providers
        self._started_at = started_at
        self._transport = Transport(configuration.server_url, f"shm-sdk-python/{__version__}")
        self._provider_runner = ProviderRunner()
        self._lock = threading.RLock()  # a signal handler that reports must not wait for the report that it interrupts
        self._is_reporting = False
        self._identity: Identity | None = None
        self._registration = RegistrationState.UNREGISTERED
        self._clock_correction = timedelta()  # the server's clock minus this machine's
        self._sequence = 0  # of this process's snapshots; a gap shows the vendor that one was lost
        self._blocked_until = 0.0  # monotonic time; the end of the server's Retry-After
        self._outage_logged = False
        self._last_result: Result | None = None
        self._repetitions = 0  # outcomes of the same kind in a row
        self._rng = SystemRandom()  # has no state, so parent and forked children draw different numbers

    def report(self, timeout: float) -> Outcome:
        """Takes a snapshot and sends it. `timeout` limits the providers and all requests together, in seconds."""
        deadline = time.monotonic() + timeout
        with self._locked(timeout) as is_locked:
            if not is_locked:
                return Outcome(Result.FAILED, "another report of this process is still running")
            try:
                outcome = self._report(deadline)
            except Exception as error:  # a bug of the SDK must not reach the host
                log.debug("a telemetry report failed", exc_info=True)
                outcome = Outcome(Result.FAILED, f"{type(error).__name__} inside the SDK")
            self._count_repetitions(outcome)
            self._log_outcome(outcome)
            return outcome

    def preview(self) -> Preview:
        """What a report would send now, made as for a report. Sends nothing and stores nothing."""
        try:
            found = find(self._configuration)
        except InvalidIdentityError as error:
            found = create_ephemeral(str(error))
        identity = found or create_ephemeral("")  # a new install shows an ID that is not its later one
        metrics = self._collect_metrics(time.monotonic() + PREVIEW_TIMEOUT_S)
        if identity.is_ephemeral:
            metrics = snapshot.mark_ephemeral(metrics)
        return Preview(
            server_url=self._configuration.server_url,
            is_registered=found is not None,
            register=self._register_payload(identity),
            snapshot=self._snapshot_payload(identity, metrics),
        )

    def delay_after(self, outcome: Outcome) -> float:
        """Closes the connection and returns the seconds until the next report."""
        self.close(CLOSE_TIMEOUT_S)
        return compute_delay(
            outcome,
            self._repetitions,
            interval_s=self._configuration.report_interval,
            instance_id=self._identity.instance_id if self._identity else None,
            now=get_clock().now().timestamp(),
            rng=self._rng,
        )

    def close(self, timeout: float) -> None:
        """Closes the connection, unless a running report uses it for longer than `timeout` seconds."""
        with self._locked(timeout) as is_locked:
            if is_locked:
                self._transport.close()

    @contextmanager
    def _locked(self, timeout: float) -> Iterator[bool]:
        """Acquires the lock. Yields False after the timeout, and at once where waiting would be waiting for itself."""
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

    def _report(self, deadline: float) -> Outcome:
        wait_s = self._blocked_until - get_clock().monotonic()
        if wait_s > 0:
            return Outcome(Result.FAILED, "the server asked to wait", retry_after=wait_s)
        if (refusal := self._permission.refusal()) is not None:
            return refusal
        self._sequence += 1
        metrics = self._permission.admit(self._collect_metrics(deadline))  # before anything is stored
        if isinstance(metrics, Outcome):
            return metrics
        if self._identity is not None and self._permission.is_erased(self._identity.instance_id):
            self._identity = None
        if self._identity is None or self._identity.is_ephemeral:  # the disk may have been repaired
            self._adopt_identity(obtain(self._configuration))
        assert self._identity is not None  # noqa: S101  # adopted above
        if self._identity.is_ephemeral:
            metrics = snapshot.mark_ephemeral(metrics)
        try:
            outcome = self._deliver(self._identity, metrics, deadline)
        except TransportError as error:
            return Outcome(Result.FAILED, f"the server cannot be reached: {error}")
        if outcome.retry_after is not None:
            self._blocked_until = get_clock().monotonic() + outcome.retry_after
        return outcome

    def _adopt_identity(self, identity: Identity) -> None:
        """Uses this identity from now on. A temporary one is replaced by a stored one only."""
        current = self._identity
        if current is None or identity.path is not None or not identity.is_ephemeral:
            if current is None or current.instance_id != identity.instance_id:
                self._registration = RegistrationState.UNREGISTERED
            self._identity = identity
        if current is None and identity.is_ephemeral:
            log.warning("this install is counted apart, as ephemeral: %s", identity.ephemeral_reason)

    def _collect_metrics(self, deadline: float) -> dict[str, snapshot.Json]:
        """The metrics of a new snapshot, from all providers."""
        # System metrics come first, so that a provider with too many keys does not displace them. For a key of both,
        # the provider's value is sent.
        metrics: dict[object, object] = {}
        if self._configuration.collect_system_metrics:
            metrics.update(system.collect_system_metrics(self._started_at))
        for collected in self._provider_runner.collect(self._providers, deadline):
            with suppress(Exception):  # a mapping of the host that raises when it is read
                metrics.update(collected)
        sanitized = snapshot.sanitize(metrics)
        for line in sanitized.dropped:
            key, _, reason = line.partition(": ")
            self._notices.warn(f"value {key.split('[')[0]}", "the metric %s is left out: %s", key, reason)
        return sanitized.metrics

    def _timestamp(self) -> str:
        """The current time, corrected by the offset of the server's clock if a response has shown one."""
        try:
            now = get_clock().now() + self._clock_correction
        except OverflowError:
            now = get_clock().now()
        return now.isoformat(timespec="microseconds").replace("+00:00", "Z")

    def _correct_clock(self, response: Response) -> bool:
        """Adopts the server's time if it refused a timestamp. Returns whether a new timestamp may be accepted."""
        server_time = response.json_timestamp("server_time")
        if server_time is None or response.json_identifier("code") not in TIMESTAMP_CODES:
            return False
        self._clock_correction = server_time - get_clock().now()
        log.debug("timestamps follow the server's clock: %s", self._clock_correction)
        return True

    def _deliver(self, identity: Identity, metrics: Mapping[str, snapshot.Json], deadline: float) -> Outcome:
        """Registers and activates if needed, then sends.

        Registers again, once, if the server lost the install; sends another timestamp, once, if the clock is wrong.
        """

        def post(path: str, content: bytes) -> Response:
            headers = {"X-Instance-ID": identity.instance_id, "X-Signature": identity.sign(content)}
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                raise TransportError("no answer in time")
            return self._transport.post(path, content, headers, remaining_s)

        body = self._snapshot_payload(identity, metrics)
        may_reregister = may_correct_clock = True
        while True:
            if self._registration is RegistrationState.UNREGISTERED:
                response = post("/v1/register", self._register_payload(identity))
                if response.status in (200, 201) or response.json_identifier("code") == REPLAYED:
                    self._registration = RegistrationState.REGISTERED
                    continue
            elif self._registration is RegistrationState.REGISTERED:
                response = post("/v1/activate", self._activate_payload(identity))
                if response.status == 200 and response.json_identifier("status") == "pending":
                    return Outcome(Result.PENDING, "the vendor has not approved this install yet", response.status)
                if response.status == 200 or response.json_identifier("code") == REPLAYED:
                    self._registration = RegistrationState.ACTIVE
                    continue
            else:
                response = post("/v1/snapshot", body)
                if response.status == 202:
                    return Outcome(Result.SENT, "stored", response.status)
            step = STEPS[self._registration]
            if may_correct_clock and self._correct_clock(response):
                may_correct_clock = False
                body = self._snapshot_payload(identity, metrics)
                continue
            if response.status in UNKNOWN_INSTANCE_STATUSES and step != "register":
                self._registration = RegistrationState.UNREGISTERED
                if may_reregister:
                    may_reregister = False
                    continue
            return _failure_outcome(response, step)

    def _snapshot_payload(self, identity: Identity, metrics: Mapping[str, snapshot.Json]) -> bytes:
        version = self._configuration.app_version
        return snapshot.build_body(identity.instance_id, self._timestamp(), metrics, version, self._sequence)

    def _activate_payload(self, identity: Identity) -> bytes:
        """The timestamp makes the request a sign of life: without one it could be a copy of an older one."""
        return snapshot.encode_json(
            {"action": "activate", "instance_id": identity.instance_id, "timestamp": self._timestamp()}
        )

    def _register_payload(self, identity: Identity) -> bytes:
        """The body of the register request. Members without a value are left out."""
        settings = self._configuration
        mode, os_arch = settings.deployment_mode, settings.os_arch
        if settings.collect_system_metrics:
            with suppress(Exception):
                mode = mode or system.detect_deployment_mode()
                os_arch = os_arch or f"{system.detect_os()}/{system.detect_architecture()}"
        payload = {
            "instance_id": identity.instance_id,
            "public_key": identity.public_key,
            "app_name": settings.app_name,
            "app_version": settings.app_version,
            "deployment_mode": mode,
            "environment": settings.environment,
            "os_arch": os_arch,
            "timestamp": self._timestamp(),
        }
        return snapshot.encode_json({name: value for name, value in payload.items() if value})

    def _count_repetitions(self, outcome: Outcome) -> None:
        self._repetitions = self._repetitions + 1 if outcome.result is self._last_result else 1
        self._last_result = outcome.result

    def _log_outcome(self, outcome: Outcome) -> None:
        """One warning when reports stop reaching the server; none for retries, or when the server asks to wait."""
        is_failure = outcome.result in (Result.FAILED, Result.REFUSED)
        is_waiting = outcome.status == TOO_MANY_REQUESTS or (outcome.retry_after and outcome.status is None)
        if is_failure and not is_waiting and not self._outage_logged:
            self._outage_logged = True
            log.warning("telemetry reports do not reach the server: %s; retries are not logged", outcome.reason)
            return
        if not is_failure:
            self._outage_logged = False
        log.debug("telemetry report: %s (%s)", outcome.result.value, outcome.reason)


def _failure_outcome(response: Response, step: str) -> Outcome:
    """The outcome of a response with an unexpected status."""
    status = response.status
    if status >= MIN_SERVER_ERROR or status == TOO_MANY_REQUESTS:
        return Outcome(Result.FAILED, f"the server answered {status} to {step}", status, response.retry_after)
    if 300 <= status < 400:
        return Outcome(
            Result.REFUSED,
            f"the server answered {status} to {step}: redirects are not followed, server_url needs its final address",
            status,
        )
    code = response.json_identifier("code")
    return Outcome(Result.REFUSED, f"the server answered {status} to {step}{f' ({code})' if code else ''}", status)
