"""The console in a real terminal: a process on a pseudo-terminal, whose screen a terminal emulator keeps."""

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
from pathlib import Path

import psutil
import pyte
import pytest

from tests.support.installs import Install
from tests.support.module_server import module_server
from tests.support.server_process import ServerProcess
from tests.support.shm_command import SHM

LIMIT_S = 30
LEAVE_SCREEN = b"\x1b[?1049l"
MOUSE_OFF = b"\x1b[?1003l"


class Terminal:
    """A terminal of some size with a program in it."""

    def __init__(self, command: list[str], size: tuple[int, int], environment: dict[str, str]) -> None:
        columns, lines = size
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self.written = b""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.before = termios.tcgetattr(slave)
        self._slave = slave
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )

    @property
    def screen(self) -> str:
        """What somebody in front of it sees."""
        return "\n".join(line.rstrip() for line in self._screen.display)

    def keys(self, keys: str) -> None:
        """Types."""
        os.write(self._master, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        """Becomes another size, as a window that is dragged does."""
        self._screen.resize(lines, columns)
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.process.send_signal(signal.SIGWINCH)

    def until(self, condition: Callable[[], object]) -> None:
        """Reads what the program writes until `condition` holds."""
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < deadline, self.screen
            self._read(0.05)

    def shows(self, *texts: str) -> None:
        """Waits until all texts are on the screen."""
        self.until(lambda: all(text in self.screen for text in texts))

    def ended(self) -> int:
        """Waits for the program's end and what it wrote until then; returns its exit status."""
        self.until(lambda: self.process.poll() is not None)
        while self._read(0.2):
            pass
        return self.process.returncode

    def attributes(self) -> list[object]:
        """The line discipline, which a program must leave as it was."""
        return list(termios.tcgetattr(self._slave))

    def close(self) -> None:
        """Ends the program, whatever it has started, and the terminal."""
        if self.process.poll() is None:
            for child in psutil.Process(self.process.pid).children(recursive=True):
                child.kill()
        self.process.kill()
        self.process.wait()
        os.close(self._master)
        os.close(self._slave)

    def _read(self, timeout: float) -> bool:
        if not select.select([self._master], [], [], timeout)[0]:
            return False
        written = os.read(self._master, 65536)
        self.written += written
        self._stream.feed(written)
        return True


def shm(size: tuple[int, int], *arguments: str, **environment: str) -> Terminal:
    """The `shm` command in a terminal."""
    sanitize = {name: value for name, value in os.environ.items() if not name.startswith(("SHM_", "TEXTUAL", "SSH_"))}
    return Terminal(
        [*SHM, *arguments],
        size,
        sanitize | {"TERM": "xterm-256color", "COLORTERM": "truecolor"} | environment,
    )


@contextmanager
def console(server: ServerProcess, size: tuple[int, int], **environment: str) -> Iterator[Terminal]:
    """`shm console` on a server, in a terminal."""
    token = {"SHM_TOKEN": server.admin_token}
    terminal = shm(size, "console", "--server", server.url, **token, **environment)
    try:
        yield terminal
    finally:
        terminal.close()


@pytest.fixture(scope="module")
def crowded(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with 60 installs of Ledger."""
    with module_server(postgres, tmp_path_factory.mktemp("crowded")) as (server, _):
        for number in range(60):
            Install(server.url).enroll({"pizzas_eaten": 1000 * number, "beta": number % 2 == 0})
        yield server


@pytest.mark.parametrize("size", [(80, 24), (120, 36), (200, 50)])
def test_the_console_uses_the_room_that_it_has(crowded: ServerProcess, size: tuple[int, int]) -> None:
    with console(crowded, size) as terminal:
        terminal.shows("Ledger", "PIZZAS EATEN", "1.77M", "INSTANCE", "VERSION", "SEEN", "● live", "/ filter")
        room = {24: 19, 36: 22, 50: 36}[size[1]]
        terminal.until(lambda: sum("1.4.2" in line for line in terminal.screen.splitlines()) == room)
        assert ("APPLICATIONS" in terminal.screen) == (size[0] >= 100)
        terminal.keys("q")
        assert terminal.ended() == 0


def test_the_console_goes_with_its_window(server: ServerProcess) -> None:
    Install(server.url).enroll({"pizzas_eaten": 1000})
    with console(server, (80, 24)) as terminal:
        terminal.shows("PIZZAS EATEN 1.00k", "● live")
        terminal.resize(120, 36)
        terminal.shows("APPLICATIONS", "1 active of 1 instance", "p50 1.00k")
        terminal.resize(80, 24)
        terminal.until(lambda: "APPLICATIONS" not in terminal.screen and "PIZZAS EATEN 1.00k" in terminal.screen)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_demo_that_is_ended_leaves_a_clean_terminal_and_nothing_running(
    postgres_dir: Path, number: signal.Signals
) -> None:
    terminal = shm((80, 24), "demo", "--data-dir", str(postgres_dir), "--instances", "9", SHM_TOKEN="of-another-server")
    try:
        terminal.shows("● live", "Ledger")
        terminal.process.send_signal(number)
        assert terminal.ended() == 128 + number
        assert terminal.written.rindex(LEAVE_SCREEN) > terminal.written.rindex(b"\x1b[?1049h")
        assert terminal.attributes() == list(terminal.before)
        assert not [
            process.pid
            for process in psutil.process_iter(["cmdline"])
            if str(postgres_dir) in " ".join(process.info["cmdline"] or ())
        ]
    finally:
        terminal.close()


def test_the_terminal_is_left_clean_after_q_and_after_sigterm(server: ServerProcess) -> None:
    Install(server.url).enroll({"a": 1})
    for sigterm in (False, True):
        with console(server, (80, 24)) as terminal:
            terminal.shows("● live")
            if sigterm:
                terminal.process.send_signal(signal.SIGTERM)
            else:
                terminal.keys("q")
            assert terminal.ended() == 0
            assert terminal.written.rindex(LEAVE_SCREEN) > terminal.written.rindex(b"\x1b[?1049h")
            assert MOUSE_OFF in terminal.written
            assert terminal.attributes() == list(terminal.before)


def test_nothing_that_an_install_sent_reaches_the_terminal_as_a_command(server: ServerProcess) -> None:
    evil = "\x1b]52;c;aGk=\x07\x1b[31mevil\x9b31m"
    install = Install(server.url, app_name=evil, app_version=evil, environment=evil)
    install.enroll({"x\x1b]0;title\x07": evil})
    with console(server, (200, 50)) as terminal:
        terminal.shows("evil", install.instance_id[:8], "1 active of 1 instance")  # it has gone to the application
        terminal.keys("\r")
        terminal.shows("IDENTITY", "evil")
        for command in (b"\x1b]52", b"\x1b]0;title", b"\x1b[31mevil", b"\xc2\x9b"):
            assert command not in terminal.written


def test_the_console_outlives_its_server_and_catches_up(server: ServerProcess) -> None:
    install = Install(server.url).enroll({"sent": 111})
    with console(server, (80, 24)) as terminal:
        terminal.shows("SHM  Ledger", "111", "● live")  # the only application has been opened
        server.kill()
        terminal.shows("◌ disconnected", "retry in", "111")
        server.start()
        assert install.snapshot({"sent": 222}).status_code == 202
        terminal.shows("222", "● live")


def test_no_color_means_no_color(server: ServerProcess) -> None:
    Install(server.url).enroll({"sent": 111})
    with console(server, (80, 24), NO_COLOR="1") as terminal:
        terminal.shows("111", "● live")
        assert b"38;2;" not in terminal.written
        assert b"48;2;" not in terminal.written
