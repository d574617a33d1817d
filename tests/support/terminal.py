"""A real terminal: a program on a pseudo-terminal, with a terminal emulator for its screen."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import pyte

from tests.support.server_process import ServerProcess
from tests.support.shm_command import SHM

TIMEOUT_S = 60


class Terminal:
    """A terminal that runs a program."""

    def __init__(self, command: list[str], size: tuple[int, int], environment: dict[str, str]) -> None:
        columns, lines = size
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self.output = b""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.initial_attributes = termios.tcgetattr(slave)
        self._slave = slave
        self._is_open = True
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )

    @property
    def screen(self) -> str:
        """The text on the screen."""
        # pyte's `display` fails while a wide character is half overwritten. The second cell of such a one is empty.
        lines, columns = range(self._screen.lines), range(self._screen.columns)
        return "\n".join("".join(self._screen.buffer[y][x].data for x in columns).rstrip() for y in lines)

    def type_keys(self, keys: str) -> None:
        """Types these characters."""
        os.write(self._master, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        """Changes the size, and notifies the program."""
        self._screen.resize(lines, columns)
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.process.send_signal(signal.SIGWINCH)

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Reads what the program writes until `condition` holds."""
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline, self.screen
            self._read(0.05)

    def wait_for_texts(self, *texts: str) -> None:
        """Waits until all texts are on the screen."""
        self.wait_until(lambda: all(text in self.screen for text in texts))

    def wait_for_exit(self) -> int:
        """Waits for the end of the program, reads its last output, and returns its exit status."""
        self.wait_until(lambda: self.process.poll() is not None)
        while self._read(0.2):
            pass
        return self.process.returncode

    def attributes(self) -> list[object]:
        """The attributes of the terminal, which a program must restore."""
        return list(termios.tcgetattr(self._slave))

    def hang_up(self) -> None:
        """Closes the terminal while the program runs, as the end of a connection does. Nobody sends it a SIGHUP."""
        os.close(self._master)
        os.close(self._slave)
        self._is_open = False

    def close(self) -> None:
        """Kills the program and its child processes, and closes the terminal."""
        if self.process.poll() is None:
            for child in psutil.Process(self.process.pid).children(recursive=True):
                child.kill()
        self.process.kill()
        self.process.wait()
        if self._is_open:
            self.hang_up()

    def _read(self, timeout: float) -> bool:
        if not select.select([self._master], [], [], timeout)[0]:
            return False
        output = os.read(self._master, 65536)
        self.output += output
        self._stream.feed(output)
        return True


def open_shm(size: tuple[int, int], *arguments: str, **environment: str) -> Terminal:
    """The `shm` command in a terminal."""
    environment_without_settings = {
        name: value for name, value in os.environ.items() if not name.startswith(("SHM_", "TEXTUAL", "SSH_"))
    }
    return Terminal(
        [*SHM, *arguments],
        size,
        environment_without_settings | {"TERM": "xterm-256color", "COLORTERM": "truecolor"} | environment,
    )


@contextmanager
def open_terminal(server: ServerProcess, size: tuple[int, int], **environment: str) -> Iterator[Terminal]:
    """`shm console` on a server, in a terminal."""
    token = {"SHM_TOKEN": server.admin_token}
    terminal = open_shm(size, "console", "--server", server.url, **token, **environment)
    try:
        yield terminal
    finally:
        terminal.close()
