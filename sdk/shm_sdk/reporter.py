"""One report, from the host's counters to the server's answer.

    providers -> snapshot (cleaned, signed) -> register, activate where the server does not know us yet -> snapshot

`Reporter.report` is what the worker does every hour and `Client.report_now` on demand, by the same code. It knows what
the server thinks of this install, and tells the log once when reports stop getting through.
"""

import enum
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from random import SystemRandom
from types import CoroutineType
from typing import cast

from shm_sdk import snapshot, system
from shm_sdk.configuration import Configuration, official_slug
from shm_sdk.identity import Identity, IdentityUnusable, IdentityUnwritable, load_or_create
from shm_sdk.outcome import Outcome, Result
from shm_sdk.schedule import next_delay
from shm_sdk.transport import Answer, Transport, Unreachable
from shm_sdk.version import __version__

Provider = Callable[[], Mapping[str, object]]

TOO_MANY_REQUESTS = 429
STRANGER_STATUSES = (403, 404)  # what a server answers to an install it does not know, or has forgotten
CLOSE_TIMEOUT = 1.0  # seconds; a report under way keeps its connection
SERVER_ERRORS = 500  # and above: not our fault, so worth another try

log = logging.getLogger("shm_sdk")


class Standing(enum.Enum):
    """What the server knows of this install, as far as this process has heard."""

    STRANGER = "stranger"
    REGISTERED = "registered"
    ACTIVE = "active"


def _after_fork(reporter: "Reporter") -> None:
    """In a forked child a turn that was under way never ends, and the connection is the parent's."""
    if hasattr(os, "register_at_fork"):
        known = weakref.ref(reporter)

        def renew() -> None:
            if (alive := known()) is not None:
                alive.begin_in_child()

        os.register_at_fork(after_in_child=renew)


class Reporter:
    """Reports for one install. Safe for several threads; they take turns."""

    def __init__(self, configuration: Configuration, providers: Sequence[Provider], started: float) -> None:
        """`providers` is the host's list, which may still grow; `started` is when the host did, in monotonic time."""
        self._configuration = configuration
        self._providers = providers
        self._started = started
        self._transport = Transport(configuration.server_url, f"shm-sdk-python/{__version__}")
        self._turn = threading.Lock()
        self._whose_turn: int | None = None  # the thread that has it
        self._identity: Identity | None = None
        self._standing = Standing.STRANGER
        self._sequence = 0  # snapshots taken by this process; a gap tells the vendor of one that was lost
        self._quiet_until = 0.0  # monotonic; the server asked to be left alone until then
        self._in_trouble = False
        self._warned_of_async = False
        self._previous: Result | None = None
        self._repeated = 0  # outcomes of the same kind in a row
        _after_fork(self)
        self._dice = SystemRandom()  # has no state that a fork could double

    def report(self, timeout: float) -> Outcome:
        """Takes a snapshot and sends it. The network gets `timeout` seconds in all, the providers what they take."""
        with self._turn_within(timeout) as ours:
            if not ours:
                return Outcome(Result.FAILED, "another report of this process is still under way")
            try:
                outcome = self._report(timeout)
            except Exception as error:  # a fault of ours is no reason for the host to suffer
                log.debug("a telemetry report failed", exc_info=True)
                outcome = Outcome(Result.FAILED, f"{type(error).__name__} inside the SDK")
            self._count(outcome)
            self._tell(outcome)
            return outcome

    def pause(self, outcome: Outcome) -> float:
        """Seconds to leave the server alone after this outcome; meanwhile no connection is kept."""
        self.close(CLOSE_TIMEOUT)
        return next_delay(
            outcome,
            self._repeated,
            interval=self._configuration.report_interval,
            instance_id=self._identity.instance_id if self._identity else None,
            now=time.time(),
            dice=self._dice,
        )

    def close(self, timeout: float) -> None:
        """Lets go of the connection, unless a report under way keeps it longer than `timeout` seconds."""
        with self._turn_within(timeout) as ours:
            if ours:
                self._transport.close()

    def begin_in_child(self) -> None:
        """What a fork cannot carry over is made anew; the identity and the standing stay."""
        self._turn = threading.Lock()
        self._whose_turn = None
        self._transport = Transport(self._configuration.server_url, f"shm-sdk-python/{__version__}")

    @contextmanager
    def _turn_within(self, timeout: float) -> Iterator[bool]:
        """This thread's turn, if it comes in time. A provider that reports or stops would wait for itself: not so."""
        if self._whose_turn == threading.get_ident() or not self._turn.acquire(timeout=max(timeout, 0)):
            yield False
            return
        self._whose_turn = threading.get_ident()
        try:
            yield True
        finally:
            self._whose_turn = None
            self._turn.release()

    def _report(self, timeout: float) -> Outcome:
        pause = self._quiet_until - time.monotonic()
        if pause > 0:
            return Outcome(Result.FAILED, "the server asked to wait", retry_after=pause)
        try:
            if self._identity is None:
                directory, slug = self._configuration.data_dir, official_slug(self._configuration.app_name)
                self._identity = load_or_create(directory, slug)
        except IdentityUnusable as error:
            return Outcome(Result.OFF, str(error))
        except IdentityUnwritable as error:
            return Outcome(Result.FAILED, str(error))
        body = self._take(self._identity)
        try:
            outcome = self._deliver(self._identity, body, time.monotonic() + timeout)
        except Unreachable as error:
            return Outcome(Result.FAILED, f"the server cannot be reached: {error}")
        if outcome.retry_after is not None:
            self._quiet_until = time.monotonic() + outcome.retry_after
        return outcome

    def _take(self, identity: Identity) -> bytes:
        """The snapshot of this moment, ready to be signed."""
        # System metrics stand first, so that a provider with too many keys does not push them out; where both have a
        # key, the host's word counts.
        metrics: dict[object, object] = {}
        if self._configuration.collect_system_metrics:
            metrics.update(system.system_metrics(self._started))
        for provider in tuple(self._providers):
            try:
                given: object = provider()  # whatever its type promises
                if isinstance(given, CoroutineType):
                    self._leave_out(given)
                else:
                    metrics.update(cast("Mapping[object, object]", given))
            except KeyboardInterrupt:  # it is the host's, and for its main thread
                raise
            except BaseException as error:  # also what libraries use to cancel: a thread of ours is none of theirs
                log.debug("a metrics provider failed: %s", type(error).__name__, exc_info=True)
        cleaned = snapshot.clean(metrics)
        for line in cleaned.dropped:
            log.debug("left out of the snapshot: %s", line)
        self._sequence += 1
        timestamp = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        return snapshot.body(
            identity.instance_id, timestamp, cleaned.metrics, self._configuration.app_version, self._sequence
        )

    def _leave_out(self, coroutine: "CoroutineType[object, object, object]") -> None:
        """A provider that is an `async def` gives no metrics here; its author hears of it once."""
        coroutine.close()
        if not self._warned_of_async:
            self._warned_of_async = True
            log.warning("a metrics provider is an `async def`, which is not awaited here: its metrics are left out")

    def _deliver(self, identity: Identity, body: bytes, deadline: float) -> Outcome:
        """Goes the steps from stranger to active as far as needed, then sends; starts over once if forgotten."""

        def post(path: str, content: bytes) -> Answer:
            headers = {"X-Instance-ID": identity.instance_id, "X-Signature": identity.sign(content)}
            left = deadline - time.monotonic()
            if left <= 0:
                raise Unreachable("no answer in time")
            return self._transport.post(path, content, headers, left)

        may_start_over = True
        while True:
            if self._standing is Standing.STRANGER:
                answer = post("/v1/register", self._introduction(identity))
                if answer.status not in (200, 201):
                    return _refusal(answer, "register")
                self._standing = Standing.REGISTERED
                continue
            if self._standing is Standing.REGISTERED:
                answer = post("/v1/activate", b'{"action":"activate"}')
                if answer.status == 200 and answer.word("status") == "pending":
                    return Outcome(Result.PENDING, "the vendor has not approved this install yet", answer.status)
                if answer.status == 200:
                    self._standing = Standing.ACTIVE
                    continue
            else:
                answer = post("/v1/snapshot", body)
                if answer.status == 202:
                    return Outcome(Result.SENT, "stored", answer.status)
            step = "activate" if self._standing is Standing.REGISTERED else "snapshot"
            if answer.status in STRANGER_STATUSES:
                self._standing = Standing.STRANGER
                if may_start_over:
                    may_start_over = False
                    continue
            return _refusal(answer, step)

    def _introduction(self, identity: Identity) -> bytes:
        """The body of register. What was neither said nor may be found out is left out."""
        said = self._configuration
        mode, os_arch = said.deployment_mode, said.os_arch
        if said.collect_system_metrics:
            with suppress(Exception):
                mode = mode or system.deployment_mode()
                os_arch = os_arch or f"{system.operating_system()}/{system.architecture()}"
        introduction = {
            "instance_id": identity.instance_id,
            "public_key": identity.public_key,
            "app_name": said.app_name,
            "app_version": said.app_version,
            "deployment_mode": mode,
            "environment": said.environment,
            "os_arch": os_arch,
        }
        return snapshot.encode({name: value for name, value in introduction.items() if value})

    def _count(self, outcome: Outcome) -> None:
        self._repeated = self._repeated + 1 if outcome.result is self._previous else 1
        self._previous = outcome.result

    def _tell(self, outcome: Outcome) -> None:
        """One line when reports stop getting through, none for each try after it, and none for being asked to wait."""
        troubled = outcome.result in (Result.FAILED, Result.REFUSED, Result.OFF)
        waiting = outcome.status == TOO_MANY_REQUESTS or (outcome.retry_after and outcome.status is None)
        if troubled and not waiting and not self._in_trouble:
            self._in_trouble = True
            ending = "telemetry is off" if outcome.result is Result.OFF else "trying on quietly"
            log.warning("no telemetry report gets through: %s; %s", outcome.reason, ending)
            return
        if not troubled:
            self._in_trouble = False
        log.debug("telemetry report: %s (%s)", outcome.result.value, outcome.reason)


def _refusal(answer: Answer, step: str) -> Outcome:
    """What an answer other than the hoped-for one means."""
    status = answer.status
    if status >= SERVER_ERRORS or status == TOO_MANY_REQUESTS:
        return Outcome(Result.FAILED, f"the server answered {status} to {step}", status, answer.retry_after)
    if 300 <= status < 400:
        return Outcome(
            Result.REFUSED,
            f"the server answered {status} to {step}: redirects are not followed, server_url needs its final address",
            status,
        )
    code = answer.word("code")
    return Outcome(Result.REFUSED, f"the server answered {status} to {step}{f' ({code})' if code else ''}", status)
