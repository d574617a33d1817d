"""Copies between a client's channel and the terminal of a console.

Memory is bounded: while one side does not read, the other one is not read either.
"""

import asyncio
import os
from contextlib import suppress

import asyncssh

CHUNK_BYTES = 65_536  # of one read


class TerminalBridge:
    """The connection of `channel` with the non-blocking descriptor `terminal`, until `close`."""

    def __init__(self, channel: "asyncssh.SSHServerChannel[bytes]", terminal: int) -> None:
        self._channel = channel
        self._terminal = terminal
        self._loop = asyncio.get_running_loop()
        self._input = bytearray()  # what the console has not read yet
        self._is_input_paused = False
        self._is_open = True
        self.resume_output()

    def pause_output(self) -> None:
        """The client does not read. The console then waits for its terminal."""
        self._loop.remove_reader(self._terminal)

    def resume_output(self) -> None:
        """The client reads again."""
        if self._is_open:
            self._loop.add_reader(self._terminal, self._copy_output)

    def drain(self) -> None:
        """Copies the output that an ended console left on its terminal."""
        while self._copy_output():
            pass

    def _copy_output(self) -> bool:
        """Copies some output. Returns whether there was any."""
        try:
            output = os.read(self._terminal, CHUNK_BYTES)
        except BlockingIOError:
            return False
        except OSError:  # the console has closed the terminal
            output = b""
        if not output:
            self.pause_output()
            return False
        with suppress(BrokenPipeError):  # the client is closing the channel
            self._channel.write(output)
        return True

    def write_input(self, data: bytes) -> None:
        """Copies input to the console. What it does not read yet is kept, and the channel is not read meanwhile."""
        if self._is_open:
            self._input += data
            self._copy_input()

    def _copy_input(self) -> None:
        try:
            del self._input[: os.write(self._terminal, self._input)]
        except BlockingIOError:
            pass
        except OSError:  # the console has closed the terminal
            self._input.clear()
        if bool(self._input) == self._is_input_paused:
            return
        self._is_input_paused = not self._is_input_paused
        if self._is_input_paused:
            self._channel.pause_reading()
            self._loop.add_writer(self._terminal, self._copy_input)
        else:
            self._loop.remove_writer(self._terminal)
            self._channel.resume_reading()

    def close(self) -> None:
        """Ends the copying. The terminal may then be closed."""
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self._terminal)
            self._loop.remove_writer(self._terminal)
