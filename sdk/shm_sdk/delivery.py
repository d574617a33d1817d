"""All requests of one report.

    register and activate, if the server does not know the install -> the snapshot, after those that wait in the spool

An answer that no SHM server gives (a hotel's login page, a redirect) is an outage: nothing counts as accepted.
"""

import enum
import json
import logging
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta

from shm_sdk import snapshot
from shm_sdk.clock import get_clock
from shm_sdk.clones import check_sequence
from shm_sdk.configuration import Configuration
from shm_sdk.hints import Hints
from shm_sdk.identity import Identity
from shm_sdk.outcome import Outcome, Result
from shm_sdk.registration import Registration
from shm_sdk.spool import Spool, Spooled
from shm_sdk.state import State
from shm_sdk.transport import Response, Transport, TransportError
from shm_sdk.version import __version__

TOO_MANY_REQUESTS = 429
BACKLOG_UNSUPPORTED_STATUSES = (404, 405)
INVALID_STATUS = 400
MIN_SERVER_ERROR = 500  # this status and above: the server failed, so a retry may succeed
MAX_BACKLOG = 100  # snapshots in one request
MAX_BACKLOG_BYTES = 900 * 1024  # the server takes 1 MiB
MIN_CLOCK_ERROR = timedelta(minutes=4)  # a server without reasons refuses timestamps from about 5 minutes on
PLAIN_REFUSAL = (
    500  # of the original server, in plain text, to a second activation and to a timestamp ahead of its clock
)

REPLAYED = "replayed"  # the connection broke after the server had carried out the request, and it was sent again
TIMESTAMP_CODES = ("timestamp_ahead", "timestamp_too_old")

log = logging.getLogger("shm_sdk")


class RegistrationState(enum.Enum):
    """How far the install is registered, by the responses to this process."""

    UNREGISTERED = "unregistered"
    REGISTERED = "registered"
    ACTIVE = "active"


class _Report:
    """One report. `body` is replaced when the clock was wrong."""

    def __init__(
        self, identity: Identity, metrics: Mapping[str, snapshot.Json], state: State, spool: Spool, deadline: float
    ) -> None:
        self.identity = identity
        self.metrics = metrics
        self.state = state
        self.spool = spool
        self.deadline = deadline
        self.body = b""
        self.may_reregister = True
        self.may_correct_clock = True
        self.is_activation_open = False  # the server has not confirmed it, and the snapshot's answer decides


class Delivery:
    """The connection to the server and what it knows of this install. Not thread-safe."""

    def __init__(self, configuration: Configuration, hints: Hints) -> None:
        self._configuration = configuration
        self._registration = Registration(configuration, hints)
        self._transport = Transport(configuration.server_url, f"shm-sdk-python/{__version__}")
        self._registration_state = RegistrationState.UNREGISTERED
        self._clock_correction = timedelta()  # the server's clock minus this machine's
        self._supports_backlogs = True
        self.needs_new_identity = False  # after a report: another process uses this one's
        self.has_shortened_spool = False  # after a report
        self.is_registration_invalid = False  # after a report: the server does not take this application's values

    def deliver(
        self, identity: Identity, metrics: Mapping[str, snapshot.Json], state: State, spool: Spool, deadline: float
    ) -> Outcome:
        """Sends the snapshot and what waits in the spool. A snapshot that may be accepted later is spooled."""
        self.needs_new_identity = self.has_shortened_spool = self.is_registration_invalid = False
        self._load_registration(identity, state)
        state.sequence += 1
        report = _Report(identity, metrics, state, spool, deadline)
        report.body = self.snapshot_payload(identity, metrics, state.sequence)
        try:
            outcome = self._send(report)
        except TransportError as error:
            outcome = Outcome(Result.FAILED, f"the server cannot be reached: {error}")
        if report.is_activation_open and self._is_active and not outcome.sent:
            self._registration_state = RegistrationState.REGISTERED
        if self._is_active:
            self._registration.record_accepted(identity, state)
        else:
            state.registration = ""
        if outcome.result is Result.FAILED:
            distance_s = self._configuration.report_interval / 2
            spool.add(report.body, identity.sign(report.body), state.sequence, distance_s)
        return outcome

    def close(self) -> None:
        """Closes the connection; the next report opens another."""
        self._transport.close()

    def snapshot_payload(self, identity: Identity, metrics: Mapping[str, snapshot.Json], sequence: int) -> bytes:
        """The body of a snapshot request."""
        version = self._configuration.app_version
        return snapshot.build_body(identity.instance_id, self._timestamp(), metrics, version, sequence)

    def register_payload(self, identity: Identity, state: State) -> bytes:
        """The body of the register request."""
        members = self._registration.members(identity, state)
        return snapshot.encode_json({**members, "timestamp": self._timestamp()})

    @property
    def _is_active(self) -> bool:
        return self._registration_state is RegistrationState.ACTIVE

    def _load_registration(self, identity: Identity, state: State) -> None:
        """Reads from the state what an earlier process has registered; a changed registration is sent again."""
        is_registered = self._registration.is_known(identity, state)
        if self._is_active != is_registered:
            self._registration_state = RegistrationState.ACTIVE if is_registered else RegistrationState.UNREGISTERED

    def _send(self, report: _Report) -> Outcome:
        while True:
            if self._registration_state is RegistrationState.UNREGISTERED:
                content = self.register_payload(report.identity, report.state)
                step, response = "register", self._post(report, "/v1/register", content)
                if _is_success(response, 200, 201) or response.json_identifier("code") == REPLAYED:
                    self._registration_state = RegistrationState.REGISTERED
                    continue
            elif self._registration_state is RegistrationState.REGISTERED:
                step, response = "activate", self._post(report, "/v1/activate", self._activate_payload(report.identity))
                if _is_success(response, 200) and response.json_identifier("status") == "pending":
                    return Outcome(Result.PENDING, "the vendor has not approved this install yet", response.status)
                if _is_success(response, 200) or response.json_identifier("code") == REPLAYED:
                    self._registration_state = RegistrationState.ACTIVE
                    continue
                if _is_plain_refusal(response):
                    report.is_activation_open = True
                    self._registration_state = RegistrationState.ACTIVE
                    continue
            else:
                step, response = "snapshot", self._send_snapshots(report)
                if _is_success(response, 202):
                    self.needs_new_identity = check_sequence(response, report.identity, report.state)
                    return Outcome(Result.SENT, "stored", response.status)
            if not _is_from_shm(response):
                return _failure_outcome(response, step)
            if self._correct_clock(report, response):
                continue
            if response.is_unknown_instance and step != "register":
                self._registration_state = RegistrationState.UNREGISTERED
                if report.may_reregister:
                    report.may_reregister = False
                    continue
            outcome = _failure_outcome(response, step)
            code = response.json_identifier("code")
            if step == "register" and response.status == INVALID_STATUS and code not in TIMESTAMP_CODES:
                self.is_registration_invalid = True
                reason = "" if code else self._registration.explain_refusal(report.identity, report.state)
                return outcome._replace(reason=f"{outcome.reason}: {reason}" if reason else outcome.reason)
            return outcome

    def _post(self, report: _Report, path: str, content: bytes, signature: str | None = None) -> Response:
        identity = report.identity
        headers = {"X-Instance-ID": identity.instance_id, "X-Signature": signature or identity.sign(content)}
        remaining_s = report.deadline - time.monotonic()
        if remaining_s <= 0:
            raise TransportError("no answer in time")
        return self._transport.post(path, content, headers, remaining_s)

    def _send_snapshots(self, report: _Report) -> Response:
        """The deciding response: that to the new snapshot, or to an older one that is not accepted."""
        waiting = report.spool.load(report.identity)
        if waiting and self._supports_backlogs:
            response = self._send_backlog(report, waiting)
            if response is not None:
                return response
            self._supports_backlogs = False
        for entry in report.spool.load(report.identity) if waiting else ():
            response = self._post(report, "/v1/snapshot", entry.body, entry.signature)
            is_refused = response.status == 400 and _is_from_shm(response)
            is_refused = is_refused or (_is_plain_refusal(response) and _is_ahead(entry, response))
            if not is_refused and not _is_success(response, 202):
                return response
            if is_refused:
                log.warning("a telemetry snapshot of an outage is dropped: the server refuses it")
                self._correct_clock(report, response)
            self._remove(report, [entry])
        return self._post(report, "/v1/snapshot", report.body)

    def _send_backlog(self, report: _Report, waiting: Sequence[Spooled]) -> Response | None:
        """Sends what waits and the new snapshot, oldest first. None where the server takes no backlogs."""
        for page in _pages(waiting, len(report.body)):
            is_last = page[-1] is waiting[-1]
            bodies = [entry.body for entry in page] + ([report.body] if is_last else [])
            response = self._post(report, "/v1/snapshots", _backlog_payload(report.identity, bodies))
            if response.status in BACKLOG_UNSUPPORTED_STATUSES and _is_from_shm(response):
                return None
            if not _is_success(response, 202):
                return response
            verdicts = _verdicts(response)
            self._remove(report, page)
            for number, verdict in enumerate(verdicts[: len(page)]):
                if verdict.get("status") == "refused":
                    code = str(verdict.get("code"))[:64]
                    log.warning("telemetry snapshot %s of an outage is dropped: refused (%s)", page[number].name, code)
            if is_last:
                if len(verdicts) > len(page) and verdicts[len(page)].get("status") == "refused":
                    break  # send it alone: its answer says why
                return response
        return self._post(report, "/v1/snapshot", report.body)

    def _remove(self, report: _Report, entries: Sequence[Spooled]) -> None:
        report.spool.remove(entries)
        self.has_shortened_spool = True

    def _timestamp(self) -> str:
        """The current time, corrected by the offset of the server's clock if a response has shown one."""
        try:
            now = get_clock().now() + self._clock_correction
        except OverflowError:
            now = get_clock().now()
        return now.isoformat(timespec="microseconds").replace("+00:00", "Z")

    def _correct_clock(self, report: _Report, response: Response) -> bool:
        """Adopts the server's time, once in a report, if it refused a timestamp. Returns whether it did."""
        code, server_time = response.json_identifier("code"), response.json_timestamp("server_time") or response.date
        is_refusal = response.status == 400 or _is_plain_refusal(response)
        if (
            not report.may_correct_clock
            or server_time is None
            or not is_refusal
            or (code and code not in TIMESTAMP_CODES)
        ):
            return False
        correction = server_time - get_clock().now()
        if not code and abs(correction - self._clock_correction) < MIN_CLOCK_ERROR:
            return False
        report.may_correct_clock = False
        self._clock_correction = correction
        log.debug("timestamps follow the server's clock: %s", self._clock_correction)
        report.body = self.snapshot_payload(report.identity, report.metrics, report.state.sequence)
        return True

    def _activate_payload(self, identity: Identity) -> bytes:
        """The timestamp makes the request a sign of life: without one it could be a copy of an older one."""
        return snapshot.encode_json(
            {"action": "activate", "instance_id": identity.instance_id, "timestamp": self._timestamp()}
        )


def _pages(waiting: Sequence[Spooled], reserved_bytes: int) -> list[Sequence[Spooled]]:
    """The snapshots in requests of at most MAX_BACKLOG and MAX_BACKLOG_BYTES, with room for one more in each."""
    pages: list[list[Spooled]] = [[]]
    page_bytes = reserved_bytes
    for entry in waiting:
        if pages[-1] and (len(pages[-1]) >= MAX_BACKLOG - 1 or page_bytes + len(entry.body) > MAX_BACKLOG_BYTES):
            pages.append([])
            page_bytes = reserved_bytes
        pages[-1].append(entry)
        page_bytes += len(entry.body)
    return [*pages]


def _backlog_payload(identity: Identity, bodies: Sequence[bytes]) -> bytes:
    snapshots = [json.loads(body) for body in bodies]
    for document in snapshots:
        document.pop("instance_id", None)
    return snapshot.encode_json({"instance_id": identity.instance_id, "snapshots": snapshots})


def _verdicts(response: Response) -> list[dict[str, object]]:
    verdicts = response.json_object().get("snapshots")
    return [verdict for verdict in verdicts if isinstance(verdict, dict)] if isinstance(verdicts, list) else []


def _is_success(response: Response, *statuses: int) -> bool:
    """Whether a SHM server says yes. It answers with a JSON object, or with nothing."""
    return response.status in statuses and (not response.body.strip() or response.is_json_object)


def _is_from_shm(response: Response) -> bool:
    """Whether a SHM server can have said this: neither a page of HTML nor a redirect."""
    return not 300 <= response.status < 400 and not response.body.lstrip().startswith(b"<")


def _is_plain_refusal(response: Response) -> bool:
    """Whether it may be the original server's 500 for a request that it refuses."""
    return response.status == PLAIN_REFUSAL and _is_from_shm(response) and not response.is_json_object


def _is_ahead(entry: Spooled, response: Response) -> bool:
    """Whether a snapshot's time is ahead of the server's clock: this machine's clock was wrong."""
    return response.date is not None and entry.read_timestamp() - response.date >= MIN_CLOCK_ERROR


def _failure_outcome(response: Response, step: str) -> Outcome:
    """The outcome of a response with an unexpected status."""
    status = response.status
    if status >= MIN_SERVER_ERROR or status == TOO_MANY_REQUESTS:
        return Outcome(Result.FAILED, f"the server answered {status} to {step}", status, response.retry_after)
    if 300 <= status < 400:
        reason = "redirects are not followed, server_url needs its final address"
        return Outcome(Result.FAILED, f"the server answered {status} to {step}: {reason}", status)
    if status < 300 or not _is_from_shm(response):
        return Outcome(Result.FAILED, f"the answer {status} to {step} is not that of a SHM server", status)
    code = response.json_identifier("code")
    return Outcome(Result.REFUSED, f"the server answered {status} to {step}{f' ({code})' if code else ''}", status)
