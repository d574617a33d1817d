"""The SDK's threads. They are daemons, and leave the host's signals to the host.

The system delivers a signal to any thread that does not block it. A host that blocks signals and waits for them with
`sigwait` would be killed if one reached a thread of the SDK. Providers and the consent callback get the host's signal
mask: the processes that they start inherit it.
"""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Of the thread whose instruction fails: they have to end the process with their message. Others cannot be blocked.
NOT_BLOCKED = ("SIGSEGV", "SIGFPE", "SIGBUS", "SIGILL", "SIGTRAP", "SIGABRT", "SIGSYS", "SIGKILL", "SIGSTOP")
GREENLETS = ("gevent", "eventlet")  # their threads may all be the main thread of the host

_host_mask: "set[int] | None" = None  # of the host's thread that started the SDK


def start_quietly(thread: threading.Thread) -> None:
    """Starts a thread with all signals blocked. Raises RuntimeError where there can be no further thread."""
    global _host_mask
    if not hasattr(signal, "pthread_sigmask") or any(name in sys.modules for name in GREENLETS):
        thread.start()
        return
    blocked = signal.valid_signals() - {getattr(signal, name) for name in NOT_BLOCKED if hasattr(signal, name)}
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        if not previous >= blocked:  # otherwise a thread of the SDK starts another one
            _host_mask = {int(number) for number in previous}
        thread.start()  # a new thread inherits the mask
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


@contextmanager
def host_signals() -> Iterator[None]:
    """Within this context, a thread of the SDK has the signal mask of the host."""
    if _host_mask is None:
        yield
        return
    previous = signal.pthread_sigmask(signal.SIG_SETMASK, _host_mask)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def run_in_thread(run: Callable[[], None], name: str) -> threading.Thread | None:
    """Runs a function in a thread of its own.

    At the exit of the interpreter there can be no further thread (Python 3.12). Then it runs in this one, and None is
    returned.
    """
    thread = threading.Thread(target=run, name=name, daemon=True)
    try:
        start_quietly(thread)
    except RuntimeError:
        run()
        return None
    return thread
