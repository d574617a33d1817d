"""Termination of a command by a signal: its `finally` clauses run, and all its child processes end first.

A signal raises SystemExit once, and only where the command allows it: within `interruptible`, where it calls
`exit_if_signalled`, and at the end of `run_cancellable`. Anywhere else it is only recorded. So a signal never comes
between the start of a child process and the code that ends it, and never interrupts a cleanup.
"""

import asyncio
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

T = TypeVar("T")

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # SIGHUP: the terminal was closed


def stop_signals() -> tuple[signal.Signals, ...]:
    """The signals that end a command: SIGHUP does not where it was ignored, as `nohup` does."""
    return tuple(
        number for number in SIGNALS if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
    )


class _Signals:
    """The state of this process's signals. Python runs signal handlers in the main thread only."""

    first: int | None = None  # the number of the first signal
    has_raised = False
    may_raise = False  # whether the handler may raise, at any instruction
    cleanup_depth = 0  # number of nested `uninterrupted` contexts

    def handle(self, number: int, _: FrameType | None) -> None:
        """The signal handler."""
        if self.first is None:
            self.first = number
        if self.may_raise:
            self.exit_once()

    def exit_once(self) -> None:
        """Raises SystemExit if a signal was received and has not raised it yet."""
        if self.first is not None and not self.has_raised and not self.cleanup_depth:
            self.has_raised, self.may_raise = True, False
            raise SystemExit(128 + self.first)


_signals = _Signals()


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Within this context, the first signal ends the command where it allows that; further signals are ignored.

    They remain ignored afterwards, so that a second Ctrl-C changes neither the status nor the output of a process that
    is ending. If no signal was received, and nobody called `ignore_signals`, the previous handlers are restored.
    """
    global _signals
    _signals = _Signals()
    previous_handlers = {number: signal.signal(number, _signals.handle) for number in stop_signals()}
    try:
        yield
    finally:
        if is_signalled():
            ignore_signals()
        _signals = _Signals()
        for number, handler in previous_handlers.items():
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, handler)


@contextmanager
def interruptible() -> Iterator[None]:
    """Within this context, a signal raises SystemExit at any instruction. Do not start anything that must be ended."""
    could_raise = _signals.may_raise
    try:
        _signals.may_raise = True
        exit_if_signalled()
        yield
    finally:
        _signals.may_raise = could_raise


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Within this context, a cleanup, no signal raises an exception."""
    _signals.cleanup_depth += 1
    try:
        yield
    finally:
        _signals.cleanup_depth -= 1


def exit_if_signalled() -> None:
    """Raises SystemExit if a signal was received, unless it was raised before or a cleanup is running."""
    _signals.exit_once()


def is_signalled() -> bool:
    """Whether a signal was received."""
    return _signals.first is not None


def run_cancellable(coroutine: Coroutine[object, object, T]) -> T:
    """Runs a coroutine in a new event loop. A signal cancels it, and raises SystemExit after its cleanup.

    An exception at any instruction, as of `interruptible`, would leave the loop and its libraries in an unknown state.
    Code of the coroutine that may block is `interruptible`.
    """

    async def run() -> T:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - it runs in a task
        with call_on_signals(task.cancel, is_recorded=True):
            return await coroutine

    try:
        return asyncio.run(run())
    except asyncio.CancelledError:
        exit_if_signalled()
        raise


@contextmanager
def call_on_signals(call: Callable[[], object], *, is_recorded: bool = False) -> Iterator[None]:
    """Within this context, the running event loop calls `call` at each signal, and once for an earlier signal.

    If the signals are also recorded, they raise SystemExit afterwards, and within `interruptible`.

    `loop.add_signal_handler` is not used: at the loop's end it restores the default handlers, and a signal before the
    next statement would end the process without its cleanup.
    """
    loop = asyncio.get_running_loop()
    receiver, sender = socket.socketpair()  # a signal wakes the loop at once; without it the handler runs later
    for end in (receiver, sender):
        end.setblocking(False)
    loop.add_reader(receiver, receiver.recv, 4096)
    previous_fd = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)

    def handle(number: int, frame: FrameType | None) -> None:
        if is_recorded and is_signalled():
            return  # a further signal does not cancel the cleanup
        loop.call_soon_threadsafe(call)
        if is_recorded:
            _signals.handle(number, frame)

    previous_handlers = {number: signal.signal(number, handle) for number in stop_signals()}
    try:
        if is_signalled():
            call()
        yield
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(previous_fd)
        loop.remove_reader(receiver)
        receiver.close()
        sender.close()


def ignore_signals() -> None:
    """Ignores all further signals: for the rest of the process, which only cleans up."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
