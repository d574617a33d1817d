"""The floor that the feed is held to: the same bytes to as many subscribers, by plain sockets and no server at all.

A message is made at even intervals and written at the next look, as the feed gathers what changed. A subscriber gets
the next write when it has taken the last one, so one that reads slowly is behind, and costs no memory.
"""

import re
import select
import socket
import struct
import time
from array import array
from dataclasses import dataclass
from multiprocessing.connection import Connection

from bench.feed.sender import Sent
from bench.feed.subscribers import COUNTER, CURSOR, HEAD_ENDS, TEXT

LOOK_S = 0.1  # between two looks at what there is to be told
MOST_AT_ONCE = 1_000  # messages in a write
PATIENCE_S = 20  # for a handshake
MOST_HEAD = 4_096
UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Programme:
    """What is broadcast, to how many: messages like the example."""

    example: bytes
    subscribers: int
    rate: float  # a second
    seconds: float


class _Subscriber:
    __slots__ = ("rest", "socket", "told")

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.told = 0
        self.rest = memoryview(b"")  # of a write that was not taken whole


class _Hall:
    """All subscribers, and the messages so far."""

    def __init__(self, connections: list[socket.socket]) -> None:
        self._subscribers = {each.fileno(): _Subscriber(each) for each in connections}
        self._poll = select.epoll()
        self.frames: list[bytes] = []

    def tell(self) -> None:
        """All who have taken the last write; those at the same place are told the same bytes."""
        joined: dict[int, memoryview] = {}
        for subscriber in self._subscribers.values():
            if subscriber.rest or subscriber.told == len(self.frames):
                continue
            first, after = subscriber.told, min(len(self.frames), subscriber.told + MOST_AT_ONCE)
            if first not in joined:
                joined[first] = memoryview(b"".join(self.frames[first:after]))
            subscriber.told, subscriber.rest = after, joined[first]
            if not _write(subscriber):
                self._poll.register(subscriber.socket.fileno(), select.EPOLLOUT)

    def until(self, moment: float) -> None:
        """Goes on with the writes that were not taken whole."""
        while (left := moment - time.monotonic()) > 0:
            for descriptor, _ in self._poll.poll(left):
                if _write(self._subscribers[descriptor]):
                    self._poll.unregister(descriptor)


def broadcast(pipe: Connection, programme: Programme) -> None:
    """A process: says its port, begins when it is told anything, and answers `Sent`: when each was made.

    Told again, it makes one more, and says its cursor.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=1_024) as listening:
        pipe.send(listening.getsockname()[1])
        hall = _Hall([_upgraded(listening) for _ in range(programme.subscribers)])
    pipe.recv()
    notes = array("q")
    begun_ns, number = time.monotonic_ns(), int(programme.rate * programme.seconds)
    look = time.monotonic()
    while True:
        if pipe.poll():
            pipe.recv()
            number += 1
            hall.frames.append(_frame(programme.example, number - 1))
            pipe.send(number)
        made = min(number, int((time.monotonic_ns() - begun_ns) * programme.rate / 1e9))
        for each in range(len(hall.frames), made):
            hall.frames.append(_frame(programme.example, each))
            notes.extend((each, begun_ns + int((each + 1) / programme.rate * 1e9)))
        hall.tell()
        if notes and made == number:
            pipe.send(Sent(begun_ns, time.monotonic_ns(), notes, array("q")))
            notes = array("q")
        look = max(look + LOOK_S, time.monotonic())
        hall.until(look)


def _upgraded(listening: socket.socket) -> socket.socket:
    """The next subscriber, answered."""
    listening.settimeout(PATIENCE_S)
    connection, _ = listening.accept()
    connection.settimeout(PATIENCE_S)
    asked = b""
    while HEAD_ENDS not in asked:
        more = connection.recv(MOST_HEAD)
        assert more, "a subscriber left"
        asked += more
    connection.sendall(UPGRADED)
    connection.setblocking(False)
    return connection


def _write(subscriber: _Subscriber) -> bool:
    """Whether the write was taken whole."""
    try:
        taken = subscriber.socket.send(subscriber.rest)
    except BlockingIOError:
        return False
    subscriber.rest = subscriber.rest[taken:]
    return not subscriber.rest


def _frame(example: bytes, number: int) -> bytes:
    """The example with another number; its cursor is one more."""
    payload = _replaced(COUNTER, _replaced(CURSOR, example, number + 1), number)
    head = struct.pack("!BBH", TEXT, 126, len(payload)) if len(payload) > 125 else bytes((TEXT, len(payload)))
    return head + payload


def _replaced(pattern: re.Pattern[bytes], text: bytes, number: int) -> bytes:
    """As long as it was: small numbers get zeros, which none of our subscribers minds."""
    found = pattern.search(text)
    assert found is not None, "every message about an install has it"
    digits = str(number).encode().rjust(found.end(1) - found.start(1), b"0")
    return text[: found.start(1)] + digits + text[found.end(1) :]
