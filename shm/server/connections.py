"""The open connections of a server process: their limits, and the time limits of a request's head and of a response.

At a limit a new connection replaces the one that has waited the longest for bytes of its client, or else for its client
to read, so that neither idle connections nor unread responses exclude anybody. A connection whose request is being
handled is never replaced, so one address has at most half of all connections. Unread responses share one budget of
memory. Addresses are held in memory only, as keyed hashes.
"""

import asyncio
import logging
import math
import time
from collections import OrderedDict
from typing import Protocol

from shm.core.errors import Overloaded, Refusal, TooManyRequests
from shm.core.file_limit import max_open_connections
from shm.core.logs import RateLimitedLogger
from shm.core.settings import Settings

CHECK_INTERVAL_S = 0.5  # between two checks of the connections that wait for their client
RETRY_AFTER_S = 10  # of a refused connection: by then a slow request has reached its time limit
WRITE_TIMEOUT_S = 30.0  # for a client to read any part of a response
MAX_CLOSED_AT_ONCE = 64  # waiting connections that are closed when the process has no free file descriptor

rate_limited = RateLimitedLogger(logging.getLogger(__name__))


class Connection(Protocol):
    """A connection, as this module uses it."""

    waiting_since: float
    deadline: float  # the time by which the client has to send what the connection waits for
    write_deadline: float  # the time by which the client has to read some of what waits to be sent

    def close_waiting(self) -> None:
        """Closes the connection while it waits for its client."""

    def close(self) -> None:
        """Closes the connection without a response."""


class Connections:
    """The open connections of one process. `address` is a keyed hash, and None for a trusted proxy."""

    def __init__(self, settings: Settings) -> None:
        self._header_timeout_s = settings.header_timeout.total_seconds()
        self._idle_timeout_s = settings.idle_timeout.total_seconds()
        self._max = min(settings.max_connections, max_open_connections() or settings.max_connections)
        self._max_per_address = min(settings.max_connections_per_address, max(1, self._max // 2))
        self._addresses: dict[Connection, bytes | None] = {}
        self._by_address: dict[bytes, set[Connection]] = {}
        self._waiting: OrderedDict[Connection, None] = OrderedDict()  # the longest waiting first
        self._max_unread = settings.max_unread
        self._unread: OrderedDict[Connection, int] = OrderedDict()  # bytes whose client reads slowly, the longest first
        self.unread_bytes = 0  # of all of them

    def __len__(self) -> int:
        return len(self._addresses)

    def admit(self, address: bytes | None) -> Refusal | None:
        """Admits a new connection; at a limit, closes a waiting one for it. Returns a refusal if none waits."""
        of_address = self._by_address.get(address, set()) if address is not None else set()
        if len(of_address) >= self._max_per_address:
            rate_limited.warning(
                "an address has reached its limit of connections",
                f"SHM_MAX_CONNECTIONS_PER_ADDRESS is {self._max_per_address}",
            )
            waiting = of_address & self._waiting.keys() or of_address & self._unread.keys()
            if not waiting:
                return TooManyRequests(
                    "too_many_connections", "This address has too many open connections.", RETRY_AFTER_S
                )
            min(waiting, key=lambda connection: connection.waiting_since).close_waiting()
        if len(self) >= self._max:
            rate_limited.warning("the server has reached its limit of connections", str(self._max))
            if not (self._waiting or self._unread):
                return Overloaded("too_many_connections", "The server has too many connections.", RETRY_AFTER_S)
            self.close_longest_waiting()
        return None

    def add(self, connection: Connection, address: bytes | None) -> None:
        """Adds an accepted connection. A trusted proxy may open connections before it has requests."""
        self._addresses[connection] = address
        if address is not None:
            self._by_address.setdefault(address, set()).add(connection)
        limit_s = self._idle_timeout_s if address is None else self._header_timeout_s
        self._start_waiting(connection, limit_s)

    def remove(self, connection: Connection) -> None:
        """Removes a closed connection."""
        self._waiting.pop(connection, None)
        self.write_complete(connection)
        address = self._addresses.pop(connection, None)
        if address is not None:
            self._by_address[address].discard(connection)
            if not self._by_address[address]:
                del self._by_address[address]

    def expect_request(self, connection: Connection) -> None:
        """The connection waits for its next request. The first request has been expected since `add`."""
        if connection in self._addresses and connection not in self._waiting:
            self._start_waiting(connection, self._idle_timeout_s)

    def _start_waiting(self, connection: Connection, limit_s: float) -> None:
        connection.waiting_since = time.monotonic()
        connection.deadline = connection.waiting_since + limit_s
        self._waiting[connection] = None

    def head_started(self, connection: Connection) -> None:
        """The first byte of a request has arrived, so its head has to be complete soon."""
        connection.deadline = min(connection.deadline, time.monotonic() + self._header_timeout_s)

    def head_complete(self, connection: Connection) -> None:
        """The head has arrived. The body has a time limit of its own."""
        connection.deadline = math.inf

    def request_complete(self, connection: Connection) -> None:
        """The connection does not wait for its client any more."""
        self._waiting.pop(connection, None)

    def write_blocked(self, connection: Connection, length: int) -> None:
        """The client has not read all of the last `length` bytes yet. They stay in memory until it has.

        Beyond the budget, connections are closed whose clients have read nothing for the longest, but not the last one:
        a response may be larger than the budget.
        """
        if connection not in self._addresses:
            return
        if connection not in self._unread:
            if connection not in self._waiting:
                connection.waiting_since = time.monotonic()
            self._unread[connection] = 0
            self.write_progressed(connection)
        self._unread[connection] += length
        self.unread_bytes += length
        while self.unread_bytes > self._max_unread and len(self._unread) > 1:
            rate_limited.warning("unread responses have reached their limit", f"SHM_MAX_UNREAD is {self._max_unread}")
            longest = next(iter(self._unread))
            self.write_complete(longest)
            longest.close()

    def write_progressed(self, connection: Connection) -> None:
        """The client has read a part of a response."""
        connection.write_deadline = time.monotonic() + WRITE_TIMEOUT_S
        if connection in self._unread:
            self._unread.move_to_end(connection)

    def write_complete(self, connection: Connection) -> None:
        """The client has read all of its responses."""
        self.unread_bytes -= self._unread.pop(connection, 0)

    def close_longest_waiting(self, number: int = 1) -> None:
        """Closes the connections that have waited the longest for their clients."""
        for connection in [*self._waiting, *self._unread][:number]:
            connection.close_waiting()

    async def run(self) -> None:
        """Closes connections with a late head, idle ones, and those of unread responses, until cancelled."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            now = time.monotonic()
            for connection in [each for each in self._waiting if each.deadline < now]:
                connection.close_waiting()
            for connection in [each for each in self._unread if each.write_deadline < now]:
                connection.close()
