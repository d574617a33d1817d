"""The console in a pseudo-terminal of the bench: its bytes, its screen, and when each part of it arrived."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pyte

from bench.support.errors import InvalidRun
from bench.support.processes import CHECKOUT, END_TIMEOUT_S, inherited_environment

TIMEOUT_S = 60  # for anything that is waited for on the screen
READ_BYTES = 65_536
ROW = re.compile(r"[●◐○…✕] +([0-9a-f]{8}) ")
SYNC_QUERY, SYNC_ANSWER = b"\x1b[?2026$p", b"\x1b[?2026;2$y"  # most terminals draw a frame at once, and say so
TERMINAL = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LC_ALL": "C.UTF-8"}


class Terminal:
    """A terminal that runs a program. Its output is read by the methods, so call one of them all the time."""

    def __init__(self, command: Sequence[str], size: tuple[int, int], environment: dict[str, str]) -> None:
        columns, lines = size
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.bytes_read = 0
        self.started_at = time.perf_counter()
        self.process = subprocess.Popen(
            command, cwd=CHECKOUT, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        os.close(slave)

    @property
    def lines(self) -> list[str]:
        """The text on the screen."""
        return list(self._screen.display)

    @property
    def has_rows(self) -> bool:
        """Whether the table shows instances."""
        return any(ROW.search(line) for line in self.lines)

    @property
    def cursor_id(self) -> str | None:
        """The shortened ID in the row under the cursor: the row with a background that no other row has."""
        rows = [(found, self._screen.buffer[y]) for y, line in enumerate(self.lines) if (found := ROW.search(line))]
        backgrounds = [cells[found.start()].bg for found, cells in rows]
        return next((rows[at][0][1] for at, each in enumerate(backgrounds) if backgrounds.count(each) == 1), None)

    def type_key(self, key: str) -> float:
        """Types it; returns the time."""
        now = time.perf_counter()
        os.write(self._master, key.encode())
        return now

    def wait_until(self, is_shown: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> float:
        """Returns the time at which the last bytes arrived that it took. Raises InvalidRun after the timeout."""
        deadline = time.perf_counter() + timeout_s
        while not is_shown():
            read_at = self._read(deadline)
            if is_shown():
                return read_at
        return time.perf_counter()

    def read_for(self, seconds: float) -> None:
        """Reads what the program writes meanwhile."""
        deadline = time.perf_counter() + seconds
        while (remaining := deadline - time.perf_counter()) > 0:
            if select.select([self._master], [], [], remaining)[0]:
                self._read(deadline)

    def end(self) -> None:
        """Ends the program with SIGTERM, and closes the terminal."""
        self.process.terminate()
        deadline = time.perf_counter() + END_TIMEOUT_S
        while self.process.poll() is None and time.perf_counter() < deadline:
            if select.select([self._master], [], [], 0.05)[0]:
                try:
                    os.read(self._master, READ_BYTES)
                except OSError:  # the program has closed its end
                    break
        try:
            self.process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise InvalidRun("The console did not end after SIGTERM.") from None
        finally:
            os.close(self._master)

    def _read(self, deadline: float) -> float:
        if not select.select([self._master], [], [], max(0.0, deadline - time.perf_counter()))[0]:
            raise InvalidRun("The screen did not show what was expected:\n" + "\n".join(self.lines))
        try:
            output = os.read(self._master, READ_BYTES)
        except OSError:
            raise InvalidRun("The console ended:\n" + "\n".join(self.lines)) from None
        read_at = time.perf_counter()
        self.bytes_read += len(output)
        self._stream.feed(output)
        if SYNC_QUERY in output:
            os.write(self._master, SYNC_ANSWER)
        return read_at


@contextmanager
def open_program(command: Sequence[str], size: tuple[int, int], environment: dict[str, str]) -> Iterator[Terminal]:
    """A program in a terminal, ended with the context."""
    inherited = inherited_environment("SHM_", "TEXTUAL", "SSH_")
    terminal = Terminal(command, size, inherited | TERMINAL | environment)
    try:
        yield terminal
    finally:
        terminal.end()


@contextmanager
def open_console(url: str, token: str, size: tuple[int, int], *arguments: str) -> Iterator[Terminal]:
    """`shm console` on a server."""
    command = [sys.executable, "-m", "shm.cli", "console", "--server", url, *arguments]
    with open_program(command, size, {"SHM_TOKEN": token}) as terminal:
        yield terminal
