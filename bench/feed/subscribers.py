"""Subscribers that use little CPU, because in production they run on other machines: one process has all of them.

A few of them, the sample, read every frame and record the snapshot's number and the time of arrival on the machine's
monotonic clock, which the sender uses too. The kernel counts and discards the bytes of the others, which read only the
last messages, to verify that they received everything. Stalled subscribers subscribe and never read.
"""

import re
import select
import socket
import time
from array import array
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection

READ_BYTES = 2**18  # in one read
MAX_PARTIAL_BYTES = 2**18  # for an incomplete frame of the previous read
TIMEOUT_S = 20  # for a handshake, and from the last snapshot until all have received it
PONG_INTERVAL_S = 10  # pings are discarded, so pongs are sent unasked; the server waits 15 s for one
CHECK_INTERVAL_S = 0.02  # between two checks whether all have received everything
STALLED_BUFFER_BYTES = 4_096  # of the sockets of stalled subscribers, which then block at once and not after 6 MB
COUNTER = re.compile(rb'"invoices_sent": ?(\d+)')
CURSOR_KEY = b'"cursor":'
CURSOR = re.compile(rb'"cursor":(\d+),')
MAX_CURSOR_BYTES = 32
TEXT, CLOSE, PING = 0x81, 0x88, 0x89
PONG = b"\x8a\x80\0\0\0\0"  # a client masks; zeros change nothing
HEADER_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class SubscriberPlan:
    """The number of subscribers, and where they subscribe."""

    port: int
    token: str
    readers: int
    sample: int  # of the readers
    stalled: int = 0


@dataclass(frozen=True, slots=True)
class ReceiveResult:
    """Totals of all subscribers, and the arrivals that the sample recorded."""

    messages: float  # counted by the sample, and estimated from its mean message length for the others
    bytes_read: int
    behind: int  # readers that had not reached the last cursor at the time-out
    closed: int  # feeds that the server closed
    ended_ns: int  # when the last reader was done
    arrivals: "list[array[int]]"  # of each of the sample, pairs: a snapshot's number, and the time of its message
    example: bytes  # the last message about an instance that the sample read, or empty


class Reader:
    """A subscriber that reads."""

    __slots__ = ("arrivals", "bytes_read", "closed", "cursor", "messages", "partial", "socket")

    def __init__(self, connection: socket.socket, partial: bytes, arrivals: "array[int] | None") -> None:
        self.socket = connection
        self.partial = partial  # an incomplete frame
        self.arrivals = arrivals
        self.cursor = self.messages = self.bytes_read = 0
        self.closed = False


class ReadBuffer:
    """One buffer into which all connections are read."""

    def __init__(self) -> None:
        self._buffer = bytearray(MAX_PARTIAL_BYTES + READ_BYTES)
        self._free = memoryview(self._buffer)[MAX_PARTIAL_BYTES:]
        self.example = b""  # the last message about an instance
        self.discards = True  # the bytes of readers outside the sample

    def read(self, reader: Reader) -> None:
        """Reads what is available, up to READ_BYTES."""
        flags = socket.MSG_TRUNC if reader.arrivals is None and self.discards else 0
        try:
            count = reader.socket.recv_into(self._free, READ_BYTES, flags)
        except BlockingIOError:
            return
        except ConnectionError:
            count = 0
        if not count:
            reader.closed = True
            return
        now = time.monotonic_ns()
        reader.bytes_read += count
        if flags:
            return
        start, end = MAX_PARTIAL_BYTES - len(reader.partial), MAX_PARTIAL_BYTES + count
        self._buffer[start:MAX_PARTIAL_BYTES] = reader.partial
        if reader.arrivals is not None:
            start = self._read_frames(reader, reader.arrivals, start, end, now)
        elif (newest := self._buffer.rfind(CURSOR_KEY, start, end)) >= 0:
            self._update_cursor(reader, newest, end)
        reader.partial = bytes(
            self._buffer[start if reader.arrivals is not None else max(start, end - MAX_CURSOR_BYTES) : end]
        )
        assert len(reader.partial) <= MAX_PARTIAL_BYTES, "the frame is longer than any that the server sends"

    def _read_frames(self, reader: Reader, arrivals: "array[int]", position: int, end: int, now: int) -> int:
        """Handles each complete frame; returns the start of the first incomplete one."""
        buffer = self._buffer
        while position + 2 <= end:
            length, payload = buffer[position + 1], position + 2
            if length == 126:
                length, payload = buffer[position + 2] << 8 | buffer[position + 3], position + 4
            elif length == 127:
                length, payload = int.from_bytes(buffer[position + 2 : position + 10]), position + 10
            frame_end = payload + length
            if frame_end > end:
                break
            if buffer[position] == TEXT:
                reader.messages += 1
                self._record(arrivals, payload, frame_end, now)
                self._update_cursor(reader, payload, frame_end)
            else:
                _answer(reader, buffer[position])
            position = frame_end
        return position

    def _update_cursor(self, reader: Reader, position: int, end: int) -> None:
        if found := CURSOR.search(self._buffer, position, end):
            reader.cursor = int(found[1])

    def _record(self, arrivals: "array[int]", payload: int, frame_end: int, now: int) -> None:
        if found := COUNTER.search(self._buffer, payload, frame_end):
            arrivals.extend((int(found[1]), now))
            self.example = bytes(self._buffer[payload:frame_end])


def subscribe(pipe: Connection, plan: SubscriberPlan) -> None:
    """The main function of a process: sends "open" when all have subscribed.

    At the first message it stops discarding and sends "reading". The second message is the last cursor; when all have
    reached it, or at the time-out, it sends `ReceiveResult`.
    """
    stalled = [_connect(plan, STALLED_BUFFER_BYTES) for _ in range(plan.stalled)]
    readers: dict[int, Reader] = {}
    every = max(1, plan.readers // max(1, plan.sample))  # the sample is spread evenly among the readers
    for number in range(plan.readers):
        connection, partial = _connect(plan)
        connection.setblocking(False)
        is_sampled = number % every == 0 and number // every < plan.sample
        readers[connection.fileno()] = Reader(connection, partial, array("q") if is_sampled else None)
    buffer = ReadBuffer()
    pipe.send("open")
    ended_ns, last_cursor = _read_until(pipe, readers, buffer)
    del stalled
    everyone, sample = readers.values(), [reader for reader in readers.values() if reader.arrivals is not None]
    bytes_read = sum(reader.bytes_read for reader in everyone)
    result = ReceiveResult(
        messages=bytes_read * sum(each.messages for each in sample) / max(1, sum(each.bytes_read for each in sample)),
        bytes_read=bytes_read,
        behind=sum(reader.cursor < last_cursor for reader in everyone),
        closed=sum(reader.closed for reader in everyone),
        ended_ns=ended_ns,
        arrivals=[each.arrivals for each in sample if each.arrivals is not None],
        example=buffer.example,
    )
    pipe.send(result)


def _read_until(pipe: Connection, readers: dict[int, Reader], buffer: ReadBuffer) -> tuple[int, int]:
    """Reads until all have reached the last cursor, or the time-out; returns the time and the cursor."""
    poll = select.epoll()
    poll.register(pipe.fileno(), select.EPOLLIN)
    for descriptor in readers:
        poll.register(descriptor, select.EPOLLIN)
    last_cursor, deadline, next_check = 0, float("inf"), float("inf")
    pongs = _Pongs(readers.values())
    while True:
        pongs.send()
        for descriptor, _ in poll.poll(CHECK_INTERVAL_S):
            reader = readers.get(descriptor)
            if reader is None:
                message = pipe.recv()
                if buffer.discards:
                    buffer.discards = False
                    pipe.send("reading")
                else:
                    last_cursor, next_check, deadline = message, 0.0, time.monotonic() + TIMEOUT_S
                continue
            buffer.read(reader)
            if reader.closed:
                poll.unregister(descriptor)
        now = time.monotonic()
        if now >= next_check:
            next_check = now + CHECK_INTERVAL_S
            if now > deadline or all(reader.cursor >= last_cursor or reader.closed for reader in readers.values()):
                return time.monotonic_ns(), last_cursor


class _Pongs:
    """Pongs of each reader every PONG_INTERVAL_S, spread evenly over time."""

    def __init__(self, readers: Iterable[Reader]) -> None:
        self._readers = list(readers)
        self._started = time.monotonic()
        self._sent = 0

    def send(self) -> None:
        """Sends those that are due."""
        due = int((time.monotonic() - self._started) / PONG_INTERVAL_S * len(self._readers))
        for number in range(self._sent, due):
            with suppress(OSError):  # the server closed it, which `read` reports
                self._readers[number % len(self._readers)].socket.send(PONG)
        self._sent = due


def _answer(reader: Reader, kind: int) -> None:
    if kind == PING:  # the server's pings are empty
        reader.socket.send(PONG)
    elif kind == CLOSE:
        reader.closed = True


def _connect(plan: SubscriberPlan, rcvbuf: int = 0) -> tuple[socket.socket, bytes]:
    """A subscribed connection, and the bytes after the response's head."""
    connection = socket.socket()
    if rcvbuf:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
    connection.settimeout(TIMEOUT_S)
    connection.connect(("127.0.0.1", plan.port))
    connection.sendall(
        f"GET /api/v1/admin/feed HTTP/1.1\r\nHost: 127.0.0.1:{plan.port}\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        f"Authorization: Bearer {plan.token}\r\n\r\n".encode()
    )
    response = b""
    while HEADER_END not in response:
        received = connection.recv(READ_BYTES)
        assert received, f"the feed was refused: {response!r}"
        response += received
    head, _, partial = response.partition(HEADER_END)
    assert head.startswith(b"HTTP/1.1 101 "), f"the feed was refused: {response!r}"
    return connection, partial
