"""An SSH session: it opens a console for the client, and nothing else."""

import asyncio
import logging
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import monotonic

import asyncssh

from shm.cli.ssh.authorized_keys import AuthorizedKey
from shm.cli.ssh.console_process import ConsoleProcess
from shm.cli.ssh.terminal_bridge import TerminalBridge
from shm.core.logs import describe_error, rate_limited

END_TIMEOUT_S = 5.0  # for a console to restore its terminal and end; then it is killed
DEFAULT_SIZE = (80, 24)  # of a terminal whose client says nothing
FAILED = 1  # exit status of a session without a console
TERMINAL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")  # of a terminal's kind, as in terminfo
DISPLAY_VARIABLES = ("LANG", "LC_ALL", "LC_CTYPE", "COLORTERM", "NO_COLOR")  # accepted from a client
DISPLAY_VALUE = re.compile(r"[A-Za-z0-9@._+-]{0,64}")
INHERITED_VARIABLES = ("PATH", "SSL_CERT_FILE", "SSL_CERT_DIR")  # of this process

ONLY_CONSOLE = "This server opens the console and runs no command. Connect without one."
NEEDS_TERMINAL = "The console needs a terminal. Connect without -T and with a terminal as the input, or with ssh -tt."
NOT_STARTED = "The console could not be started. The log of the server says why."

logger = logging.getLogger(__name__)


class ConsoleSession(asyncssh.SSHServerSession[bytes]):
    """A session of an authorized key. `closed` is called at its end, once no process of it is left."""

    _channel: "asyncssh.SSHServerChannel[bytes]"  # from `connection_made` on, which may never be called

    def __init__(self, key: AuthorizedKey, server: str, closed: Callable[["ConsoleSession"], None]) -> None:
        self.key = key
        self.last_input = monotonic()
        self.task: asyncio.Task[None] | None = None  # while there is a console
        self._server = server
        self._closed = closed
        self._is_connected = False
        self._bridge: TerminalBridge | None = None
        self._console: ConsoleProcess | None = None
        self._has_command = False
        self._ending = asyncio.Event()
        self._end_reason: str | None = None

    def connection_made(self, chan: "asyncssh.SSHServerChannel[bytes]") -> None:
        """Called by asyncssh for a new channel."""
        self._channel = chan
        self._is_connected = True

    @property
    def variables_bytes(self) -> int:
        """The size of all variables that the client has sent."""
        sent = self._channel.get_environment_bytes() if self._is_connected else {}
        return sum(len(name) + len(value) for name, value in sent.items())

    def pty_requested(
        self, term_type: str, term_size: tuple[int, int, int, int], term_modes: Mapping[int, int]
    ) -> bool:
        """Accepts a terminal of any kind that has a name."""
        return TERMINAL_NAME.fullmatch(term_type) is not None

    def shell_requested(self) -> bool:
        """Accepts the requests of a client without a command, and opens the console instead of a shell."""
        return True

    def exec_requested(self, command: str) -> bool:
        """Accepts the request in order to answer it with a sentence. The command is not used."""
        self._has_command = True
        return True

    def session_started(self) -> None:
        """Starts the console."""
        terminal = self._channel.get_terminal_type()
        if self._has_command or terminal is None:
            self._refuse(ONLY_CONSOLE if self._has_command else NEEDS_TERMINAL)
            return
        columns, lines, *_ = self._channel.get_terminal_size()
        size = (columns, lines) if columns and lines else DEFAULT_SIZE
        try:
            self._console = ConsoleProcess(["--server", self._server], self._environment(terminal), size)
        except (OSError, EOFError) as error:  # no process, no descriptor, or no fork server
            logger.error("a console could not be started: %s", describe_error(error))  # noqa: TRY400 - no traceback
            self._refuse(NOT_STARTED)
            return
        logger.info("console of token %s: started", self.key.token_id)
        self._bridge = TerminalBridge(self._channel, self._console.terminal)
        self.task = asyncio.create_task(self._run(self._console, self._bridge))

    def _refuse(self, sentence: str) -> None:
        self._channel.write_stderr(f"shm ssh: {sentence}\r\n".encode())
        self._channel.exit(FAILED)

    def _environment(self, terminal: str) -> dict[str, str]:
        """The whole environment of the console. Of the client's variables it has those about the terminal."""
        sent = self._channel.get_environment()
        display = {name: sent[name] for name in DISPLAY_VARIABLES if DISPLAY_VALUE.fullmatch(sent.get(name, " "))}
        inherited = {name: os.environ[name] for name in INHERITED_VARIABLES if name in os.environ}
        return inherited | display | {"TERM": terminal, "SHM_TOKEN": self.key.token}

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        """Passes the new size of the client's terminal on."""
        if self._console is not None and width and height:
            self._console.resize(width, height)

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Passes keys on."""
        self.last_input = monotonic()
        if self._bridge is not None:
            self._bridge.write_input(data)

    def eof_received(self) -> bool:
        """Ends the console, which nobody can end any more. Its last output is still sent."""
        self._ending.set()
        return True

    def pause_writing(self) -> None:
        """Called by asyncssh while the client does not read."""
        if self._bridge is not None:
            self._bridge.pause_output()

    def resume_writing(self) -> None:
        """Called by asyncssh when the client reads again."""
        if self._bridge is not None:
            self._bridge.resume_output()

    def end(self, reason: str) -> None:
        """Ends the console, and shows the reason once the terminal is restored."""
        self._end_reason = self._end_reason or reason
        self._ending.set()
        if self._console is None and self._is_connected:
            self._channel.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncssh when the channel is closed, for whatever reason. The console loses its terminal."""
        self._is_connected = False
        self._ending.set()
        if self._console is None or self._bridge is None:
            self._closed(self)
        else:
            self._bridge.close()
            self._console.close_terminal()

    async def _run(self, console: ConsoleProcess, bridge: TerminalBridge) -> None:
        """Supervises the console. Afterwards neither the console nor the session is left, even after a fault."""
        try:
            await self._supervise(console, bridge)
        except Exception as error:  # a fault must not keep the place of the session
            rate_limited.exception("a console is ended by a fault of its supervision", error)
            if not console.exited.is_set():
                console.kill()
            self._channel.abort()
        finally:
            bridge.close()
            console.close_terminal()
            logger.info("console of token %s: ended", self.key.token_id)
            self._closed(self)

    async def _supervise(self, console: ConsoleProcess, bridge: TerminalBridge) -> None:
        """Waits for the end of the console or of the session, and ends the other one."""
        await _first_of(console.exited, self._ending)
        if not console.exited.is_set():
            console.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(console.exited.wait(), END_TIMEOUT_S)
        if not console.exited.is_set():
            logger.warning("a console did not end within %d s and is killed", END_TIMEOUT_S)
            console.kill()
            await console.exited.wait()
        if self._is_connected:
            bridge.drain()  # its last output, which restores the client's terminal
            with suppress(OSError):  # the client is closing the channel
                if self._end_reason is not None:
                    self._channel.write(f"shm ssh: {self._end_reason}\r\n".encode())
                self._channel.exit(console.status if console.status >= 0 else 128 - console.status)


async def _first_of(*events: asyncio.Event) -> None:
    """Waits until one of the events is set."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
