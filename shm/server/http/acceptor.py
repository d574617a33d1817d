"""Accepts connections from listening sockets. Tornado's own loop logs each failure and tries again at once."""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from shm.core.logs import RateLimitedLogger, describe_error

MAX_ACCEPTED_AT_ONCE = 128  # connections, before the loop serves others
MAX_UNSENT_BYTES = 128 * 1024  # that the kernel takes of a response; without a limit it may be megabytes a connection
PAUSE_S = 0.5  # before the next attempt when a resource is exhausted

# The process or the system has no free file descriptor or no memory for sockets.
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

rate_limited = RateLimitedLogger(logging.getLogger(__name__))


class Acceptor:
    """Calls `on_accept(connection, address)` for each connection.

    While file descriptors are exhausted it pauses and calls `free_descriptors`.
    """

    def __init__(self, on_accept: Callable[[socket.socket, Any], None], free_descriptors: Callable[[], None]) -> None:
        self._on_accept = on_accept
        self._free_descriptors = free_descriptors
        self._sockets: list[socket.socket] = []
        self._resumes: dict[socket.socket, asyncio.TimerHandle] = {}

    def start(self, sockets: list[socket.socket]) -> None:
        """Accepts connections from these sockets until `stop`."""
        for listening in sockets:
            with suppress(AttributeError, OSError):  # accepted connections inherit it; not every kernel has it
                listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT_BYTES)
            self._sockets.append(listening)
            self._listen(listening)

    def stop(self) -> None:
        """Closes the sockets."""
        loop = asyncio.get_running_loop()
        for pause in self._resumes.values():
            pause.cancel()
        for listening in self._sockets:
            loop.remove_reader(listening)
            listening.close()
        self._sockets.clear()
        self._resumes.clear()

    def _listen(self, listening: socket.socket) -> None:
        self._resumes.pop(listening, None)
        asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(MAX_ACCEPTED_AT_ONCE):
            try:
                connection, address = listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in EXHAUSTED:
                    rate_limited.warning("accepting connections pauses", describe_error(error))
                    self._pause(listening)
                    return
                if error.errno != errno.ECONNABORTED:  # else the client gave up before
                    rate_limited.warning("a connection could not be accepted", describe_error(error))
                continue
            self._on_accept(connection, address)

    def _pause(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening)
        self._resumes[listening] = loop.call_later(PAUSE_S, self._listen, listening)
        self._free_descriptors()
