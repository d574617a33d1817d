"""Tests of commands and signals, each in a process of its own."""

import signal
import subprocess
import sys

import pytest

START = """
import os, signal, sys
from shm.core.signals import exit_if_signalled, exit_on_signals, ignore_signals
"""
TIMEOUT_S = 60


def run(code: str, ignored: tuple[signal.Signals, ...] = ()) -> int:
    """Runs `code`, in a process that was started with these signals ignored, and returns its status."""
    ignore = "".join(f"signal.signal({number:d}, signal.SIG_IGN)\n" for number in ignored)
    return subprocess.run([sys.executable, "-c", START + ignore + code], timeout=TIMEOUT_S, check=False).returncode


@pytest.mark.parametrize("further", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_further_signal_after_the_cleanup_does_not_change_the_status(further: signal.Signals) -> None:
    code = f"""
try:
    with exit_on_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        exit_if_signalled()
finally:
    os.kill(os.getpid(), {further:d})
"""
    assert run(code) == 128 + signal.SIGTERM


def test_signals_that_a_command_ignores_at_its_end_remain_ignored() -> None:
    code = """
with exit_on_signals():
    ignore_signals()
os.kill(os.getpid(), signal.SIGTERM)
"""
    assert run(code) == 0


def test_a_signal_after_an_undisturbed_command_has_its_previous_effect() -> None:
    code = """
with exit_on_signals():
    pass
os.kill(os.getpid(), signal.SIGTERM)
"""
    assert run(code) == -signal.SIGTERM


@pytest.mark.parametrize(("ignored", "status"), [((signal.SIGHUP,), 0), ((), 128 + signal.SIGHUP)])
def test_nohup_protects_a_command_from_a_closed_terminal(ignored: tuple[signal.Signals, ...], status: int) -> None:
    code = """
with exit_on_signals():
    os.kill(os.getpid(), signal.SIGHUP)
    exit_if_signalled()
"""
    assert run(code, ignored) == status
