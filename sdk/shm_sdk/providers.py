"""Calls the host's providers, each with its own deadline.

They run in a thread that lives for one report. A provider that hangs keeps its thread and is skipped until it returns;
the others are called in another thread. So a hanging provider costs its own metrics and one thread.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context, copy_context
from queue import Empty, SimpleQueue
from types import CoroutineType

from shm_sdk.threads import host_signals, start_quietly

PROVIDER_TIMEOUT_S = 10.0  # a provider reads counters; one that takes longer hangs
MAX_SHARE = 0.5  # of the time that is left for the report; the rest is for the other providers and the server

Provider = Callable[[], Mapping[str, object]]

log = logging.getLogger("shm_sdk")
_current = threading.local()


def is_provider_thread() -> bool:
    """Whether the calling thread runs a provider. Waiting for a report there would be waiting for itself."""
    return getattr(_current, "is_provider", False)


class _Call:
    """One call of a provider. `returned` gets the metrics, or the exception."""

    def __init__(self, provider: Provider, context: Context) -> None:
        self.provider = provider
        self.context = context
        self.returned: SimpleQueue[object] = SimpleQueue()


class ProviderRunner:
    """Runs the providers of one client. Not thread-safe: reports run one after the other."""

    def __init__(self) -> None:
        self._hanging: dict[int, _Call] = {}  # by the provider's id
        self._warned: set[int] = set()

    def collect(self, providers: Sequence[Provider], deadline: float) -> list[Mapping[object, object]]:
        """The metrics of all providers that return in time. `deadline` is that of the report (monotonic time)."""
        collected: list[Mapping[object, object]] = []
        thread: _ProviderThread | None = None
        for provider in tuple(providers):
            if self._still_hangs(provider):
                continue
            call = _Call(provider, copy_context())
            if thread is None:
                thread = _ProviderThread()
            thread.submit(call)
            timeout_s = max(min(PROVIDER_TIMEOUT_S, (deadline - time.monotonic()) * MAX_SHARE), 0.0)
            try:
                returned = call.returned.get(timeout=timeout_s)
            except Empty:
                self._hanging[id(provider)] = call
                self._warn(provider, f"has not returned within {timeout_s:.0f} s")
                thread.end()
                thread = None
                continue
            self._add(provider, returned, collected)
        if thread is not None:
            thread.end()
        return collected

    def _still_hangs(self, provider: Provider) -> bool:
        call = self._hanging.get(id(provider))
        if call is None:
            return False
        if call.returned.empty():
            return True
        del self._hanging[id(provider)]
        return False

    def _add(self, provider: Provider, returned: object, collected: list[Mapping[object, object]]) -> None:
        if isinstance(returned, CoroutineType):
            returned.close()
            self._warn(provider, "is an `async def`, which the SDK does not await")
        elif isinstance(returned, BaseException):
            self._warn(provider, f"failed ({type(returned).__name__})")
            log.debug("a metrics provider failed", exc_info=returned)
        elif isinstance(returned, Mapping):
            collected.append(returned)
        else:
            self._warn(provider, f"returned {type(returned).__name__} and not a mapping")

    def _warn(self, provider: Provider, problem: str) -> None:
        """One warning for each provider: its developer can correct it."""
        level = logging.DEBUG if id(provider) in self._warned else logging.WARNING
        self._warned.add(id(provider))
        log.log(level, "the metrics provider %s %s: its metrics are left out", _name_of(provider), problem)


def _name_of(provider: object) -> str:
    try:
        return str(getattr(provider, "__qualname__", type(provider).__name__))
    except Exception:  # an object of the host that raises when it is read
        return type(provider).__name__


class _ProviderThread:
    """A daemon thread that runs calls until `end`."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="shm-telemetry-providers", daemon=True)
        self._is_started = False

    def submit(self, call: _Call) -> None:
        """Runs a call in the thread; in the present one where there can be no further thread, as at the exit."""
        if not self._is_started:
            try:
                start_quietly(self._thread)
            except RuntimeError:
                _run_call(call)
                return
            self._is_started = True
        self._calls.put(call)

    def end(self) -> None:
        """Ends the thread after the calls until now."""
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            _run_call(call)
            del call


def _run_call(call: _Call) -> None:
    _current.is_provider = True
    try:
        with host_signals():
            returned: object = call.context.run(call.provider)
            if isinstance(returned, Mapping):
                returned = dict(returned)  # here: a mapping of the host may raise or hang when it is read
    except BaseException as error:  # also SystemExit and cancellations, which do not concern this thread
        returned = error
    finally:
        _current.is_provider = False
    call.returned.put(returned)
