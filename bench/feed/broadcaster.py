"""The baseline of the feed: the same bytes to the same number of subscribers over plain sockets, without a server.

Messages are created at even intervals and written in batches, as the feed does. A subscriber gets the next batch when
the previous one is written, so a slow reader falls behind and uses no memory.
"""

import re
import select
import socket
import struct
import time
from array import array
from dataclasses import dataclass
from multiprocessing.connection import Connection

from bench.feed.sender import SendResult
from bench.feed.subscribers import COUNTER, CURSOR, HEADER_END, TEXT

WRITE_INTERVAL_S = 0.1  # between two batches
MAX_FRAMES_PER_WRITE = 1_000
HANDSHAKE_TIMEOUT_S = 20
MAX_HEADER_BYTES = 4_096
SWITCHING_PROTOCOLS = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


@dataclass(frozen=True, slots=True)
class BroadcastPlan:
    """Messages like `example` to that many subscribers."""

    example: bytes
    subscribers: int
    rate: float  # a second
    seconds: float


class _Subscriber:
    __slots__ = ("next_frame", "socket", "unsent")

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.next_frame = 0
        self.unsent = memoryview(b"")  # part of the last batch


class _Subscribers:
    """All subscribers, and the frames so far."""

    def __init__(self, connections: list[socket.socket]) -> None:
        self._subscribers = {each.fileno(): _Subscriber(each) for each in connections}
        self._poll = select.epoll()
        self.frames: list[bytes] = []

    def write_next(self) -> None:
        """Starts the next batch of each subscriber whose last one is written; equal positions share the same bytes."""
        payloads: dict[int, memoryview] = {}
        for subscriber in self._subscribers.values():
            if subscriber.unsent or subscriber.next_frame == len(self.frames):
                continue
            first, end = subscriber.next_frame, min(len(self.frames), subscriber.next_frame + MAX_FRAMES_PER_WRITE)
            if first not in payloads:
                payloads[first] = memoryview(b"".join(self.frames[first:end]))
            subscriber.next_frame, subscriber.unsent = end, payloads[first]
            if not _write(subscriber):
                self._poll.register(subscriber.socket.fileno(), select.EPOLLOUT)

    def flush_until(self, deadline: float) -> None:
        """Continues incomplete writes."""
        while (left := deadline - time.monotonic()) > 0:
            for descriptor, _ in self._poll.poll(left):
                if _write(self._subscribers[descriptor]):
                    self._poll.unregister(descriptor)


def broadcast(pipe: Connection, plan: BroadcastPlan) -> None:
    """The main function of a process: sends its port, starts at the first message, and sends `SendResult` at the end.

    `SendResult` has the time at which each message was created. At the next message it creates one more and sends
    the cursor of that one.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=1_024) as listener:
        pipe.send(listener.getsockname()[1])
        subscribers = _Subscribers([_accept_subscriber(listener) for _ in range(plan.subscribers)])
    pipe.recv()
    created = array("q")
    started_ns, number = time.monotonic_ns(), int(plan.rate * plan.seconds)
    next_write = time.monotonic()
    while True:
        if pipe.poll():
            pipe.recv()
            number += 1
            subscribers.frames.append(_frame(plan.example, number - 1))
            pipe.send(number)
        due = min(number, int((time.monotonic_ns() - started_ns) * plan.rate / 1e9))
        for each in range(len(subscribers.frames), due):
            subscribers.frames.append(_frame(plan.example, each))
            created.extend((each, started_ns + int((each + 1) / plan.rate * 1e9)))
        subscribers.write_next()
        if created and due == number:
            pipe.send(SendResult(started_ns, time.monotonic_ns(), created, array("q")))
            created = array("q")
        next_write = max(next_write + WRITE_INTERVAL_S, time.monotonic())
        subscribers.flush_until(next_write)


def _accept_subscriber(listener: socket.socket) -> socket.socket:
    """Accepts a connection and completes its handshake."""
    listener.settimeout(HANDSHAKE_TIMEOUT_S)
    connection, _ = listener.accept()
    connection.settimeout(HANDSHAKE_TIMEOUT_S)
    request = b""
    while HEADER_END not in request:
        received = connection.recv(MAX_HEADER_BYTES)
        assert received, "a subscriber closed its connection"
        request += received
    connection.sendall(SWITCHING_PROTOCOLS)
    connection.setblocking(False)
    return connection


def _write(subscriber: _Subscriber) -> bool:
    """Whether the batch is written completely."""
    try:
        sent = subscriber.socket.send(subscriber.unsent)
    except BlockingIOError:
        return False
    subscriber.unsent = subscriber.unsent[sent:]
    return not subscriber.unsent


def _frame(example: bytes, number: int) -> bytes:
    """The example with `number` as its counter; its cursor is one higher."""
    payload = _replace_number(COUNTER, _replace_number(CURSOR, example, number + 1), number)
    head = struct.pack("!BBH", TEXT, 126, len(payload)) if len(payload) > 125 else bytes((TEXT, len(payload)))
    return head + payload


def _replace_number(pattern: re.Pattern[bytes], text: bytes, number: int) -> bytes:
    """Keeps the length by leading zeros, which the subscribers of this bench accept."""
    found = pattern.search(text)
    assert found is not None, "each message about an instance has a counter and a cursor"
    digits = str(number).encode().rjust(found.end(1) - found.start(1), b"0")
    return text[: found.start(1)] + digits + text[found.end(1) :]
