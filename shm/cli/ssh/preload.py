"""Imported by the fork server: the console and what its screen needs, so that each console shares their memory."""

import gc
import os
import signal

from shm.cli.main import command_entry_points

# `shm ssh` ends the fork server, after its consoles: without it, it would not learn of their ends. systemd and a closed
# terminal signal every process of the group.
IGNORED_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


def _set_signal_actions(action: signal.Handlers) -> None:
    for number in IGNORED_SIGNALS:
        signal.signal(number, action)


_set_signal_actions(signal.SIG_IGN)
os.register_at_fork(after_in_child=lambda: _set_signal_actions(signal.SIG_DFL))

command_entry_points()["console"].load().preload()

gc.collect()
gc.freeze()  # the garbage collector would copy every page that has an object
