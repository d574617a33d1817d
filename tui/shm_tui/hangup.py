"""Ends the console when its terminal is gone, also where SIGHUP is ignored or was never sent.

Textual's writer thread ends at its first failed write, and the application would then wait for it for ever.
"""

import select
import signal
import sys


def end_without_terminal() -> None:
    """Ends this process by SIGHUP if the terminal of standard input has been closed. Nothing is left to restore."""
    if sys.__stdin__ is None:
        return
    poller = select.poll()
    poller.register(sys.__stdin__.fileno(), 0)  # reports a hang-up and errors only
    if poller.poll(0):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        signal.raise_signal(signal.SIGHUP)
