"""How a command ends when a signal says so: by its `finally` clauses, after all the processes that it started.

A signal raises SystemExit once, and only where the command allows it: in `interruptible`, and where it calls
`exit_if_signalled`. Everywhere else it is remembered, so that no child is started unnoticed and no cleanup is cut off.
"""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # SIGHUP: the terminal was closed


class _Signals:
    """The signals of this process; only its main thread hears them."""

    first: int | None = None  # the signal that came first
    has_raised = False
    may_raise = False  # in the handler, at any instruction
    cleanups = 0  # nested `uninterrupted` contexts

    def hear(self, number: int, _: FrameType | None) -> None:
        """The handler."""
        if self.first is None:
            self.first = number
        if self.may_raise:
            self.exit_once()

    def exit_once(self) -> None:
        """Raises SystemExit if a signal came and has not raised it yet."""
        if self.first is not None and not self.has_raised and not self.cleanups:
            self.has_raised, self.may_raise = True, False
            raise SystemExit(128 + self.first)


_signals = _Signals()


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Within it, a signal ends the command where the command allows it; from the second one on they are ignored."""
    global _signals
    _signals = _Signals()
    before = {number: signal.signal(number, _signals.hear) for number in SIGNALS}
    try:
        yield
    finally:
        _signals = _Signals()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interruptible() -> Iterator[None]:
    """Within it, a signal raises SystemExit at any moment. Nothing is started here that has to be ended."""
    try:
        _signals.may_raise = True
        exit_if_signalled()
        yield
    finally:
        _signals.may_raise = False


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A cleanup: within it, no signal raises anything."""
    _signals.cleanups += 1
    try:
        yield
    finally:
        _signals.cleanups -= 1


def exit_if_signalled() -> None:
    """Raises SystemExit if a signal has come, unless one was raised before or this is a cleanup."""
    _signals.exit_once()


def is_signalled() -> bool:
    """Whether a signal has come."""
    return _signals.first is not None


@contextmanager
def call_on_signals(call: Callable[[], None]) -> Iterator[None]:
    """In a coroutine: the loop calls `call` at each signal.

    `loop.add_signal_handler` is not used: the loop's end would leave the default handlers, and a signal before the
    next line would end the process without its cleanup.
    """
    loop = asyncio.get_running_loop()
    woken, wakes = socket.socketpair()  # a signal wakes the loop, or its handler might run a second later
    for end in (woken, wakes):
        end.setblocking(False)
    loop.add_reader(woken, woken.recv, 4096)
    waking = signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)

    def hear(_: int, __: FrameType | None) -> None:
        loop.call_soon_threadsafe(call)

    before = {number: signal.signal(number, hear) for number in SIGNALS}
    try:
        if is_signalled():
            call()
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(waking)
        loop.remove_reader(woken)
        woken.close()
        wakes.close()


def ignore_signals() -> None:
    """From here on the command only cleans up, and is not to be disturbed."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
