"""How a command ends when it is told to: by its `finally` clauses, whatever it is doing at that moment."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGHUP)  # SIGHUP: the terminal was closed


@contextmanager
def orderly() -> Iterator[None]:
    """Within it, SIGTERM and SIGHUP raise SystemExit; a second one finds the way out already taken."""
    before = {number: signal.signal(number, _end) for number in SIGNALS}
    before[signal.SIGINT] = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ending() -> None:
    """From here on the command only cleans up, and is not to be disturbed."""
    for number in (*SIGNALS, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _end(number: int, _: object) -> NoReturn:
    ending()
    raise SystemExit(128 + number)
