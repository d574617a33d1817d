"""A console of its own process on a pseudo-terminal, forked by a fork server that has imported the console.

A fork shares imported modules: a console takes two thirds of the memory of one in a new interpreter, and half of the
CPU time until it is on the screen. The fork server is started before anything else and never has a session's terminal
or connection.
"""

import asyncio
import codecs
import fcntl
import multiprocessing
import os
import pty
import struct
import sys
import termios
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing import reduction
from typing import Protocol

from shm.cli.main import main

PRELOADED_MODULE = "shm.cli.ssh.preload"
ENCODINGS = ("ascii", "utf-8", "iso8859", "cp125", "koi8")  # beginnings of those that a terminal may have
DEFAULT_ENCODING = "utf-8"
MAX_COLUMNS, MAX_LINES = 1_000, 500  # of a terminal; the console draws all cells that a client says it has

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([PRELOADED_MODULE])


def start_fork_server() -> None:
    """Starts the fork server and waits until it has imported the console."""
    process = _context.Process(target=_do_nothing, daemon=True)
    process.start()
    process.join()


class ConsoleProcess:
    """A running console. After `exited`, `status` is its exit status, negative for a signal."""

    def __init__(self, arguments: list[str], environment: dict[str, str], size: tuple[int, int]) -> None:
        self.terminal, slave = pty.openpty()
        try:
            os.set_blocking(self.terminal, False)
            self.resize(*size)
            self._process = _context.Process(
                target=_run_console, args=(_Descriptor(slave), arguments, environment), daemon=True
            )
            self._process.start()
        except BaseException:
            os.close(self.terminal)
            raise
        finally:
            os.close(slave)
        self.exited = asyncio.Event()
        self.status = 0
        asyncio.get_running_loop().add_reader(self._process.sentinel, self._set_exited)

    def resize(self, columns: int, lines: int) -> None:
        """Changes the size of the terminal. The kernel notifies the console."""
        if self.terminal >= 0:
            size = struct.pack("HHHH", min(lines, MAX_LINES), min(columns, MAX_COLUMNS), 0, 0)
            fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, size)

    def terminate(self) -> None:
        """Asks the console to end, which restores the terminal."""
        self._process.terminate()

    def kill(self) -> None:
        """Ends the console at once."""
        self._process.kill()

    def close_terminal(self) -> None:
        """Closes the terminal. The kernel sends SIGHUP to a console that still runs."""
        if self.terminal >= 0:
            os.close(self.terminal)
            self.terminal = -1

    def _set_exited(self) -> None:
        asyncio.get_running_loop().remove_reader(self._process.sentinel)
        status = self._process.exitcode
        self.status = 1 if status is None else status
        self.exited.set()
        self._process.close()


class _Descriptor:
    """A file descriptor that the other process gets with the arguments of its function."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Callable[..., "_Descriptor"], tuple[object]]:
        return _received, (reduction.DupFd(self.number),)


class _Duplicate(Protocol):
    """A descriptor that is sent to another process."""

    def detach(self) -> int:
        """Its number in that process."""


def _received(duplicate: _Duplicate) -> _Descriptor:
    return _Descriptor(duplicate.detach())


def _do_nothing() -> None:
    """The process that `start_fork_server` waits for."""


def _run_console(terminal: _Descriptor, arguments: list[str], environment: Mapping[str, str]) -> None:
    """Runs `shm console` with exactly this environment, as the leader of a session on its terminal."""
    os.setsid()
    fcntl.ioctl(terminal.number, termios.TIOCSCTTY, 0)
    for number in range(3):
        os.dup2(terminal.number, number)
    os.close(terminal.number)
    os.environ.clear()
    os.environ.update(environment)
    encoding = terminal_encoding(environment)
    sys.stdin = open(0, encoding=encoding, closefd=False)  # noqa: SIM115 - a descriptor, for all its life
    sys.stdout = open(1, "w", encoding=encoding, errors="replace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding=encoding, errors="replace", closefd=False)  # noqa: SIM115
    # Only type checkers take these for final.
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
    sys.exit(main(["console", "--restricted", *arguments]))


def terminal_encoding(environment: Mapping[str, str]) -> str:
    """The encoding of a client's locale, such as `de_DE.ISO-8859-1`. Without one, or for any other: UTF-8."""
    locale = next(filter(None, (environment.get(name) for name in ("LC_ALL", "LC_CTYPE", "LANG"))), "")
    with suppress(LookupError):
        name = codecs.lookup(locale.partition(".")[2].partition("@")[0]).name
        return name if name.startswith(ENCODINGS) else DEFAULT_ENCODING
    return DEFAULT_ENCODING
