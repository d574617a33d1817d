"""Sends signed snapshots at a fixed rate, whatever the server does, and notes when each was answered 202.

wrk does not say which request an answer belongs to. An answer that comes late delays no other snapshot while there are
connections left; what could not be sent in time is not sent.
"""

import select
import socket
import time
from array import array
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from bench.feed.subscribers import COUNTER, HEAD_ENDS

CONNECTIONS = 128
PATIENCE_S = 60  # an answer that took longer will not come
MOST_ANSWER = 2**16
SHORTEST_S = 0.001  # that epoll waits
INSTANCE_ID_ENDS, SIGNATURE_ENDS = 36, 36 + 1 + 128  # of a line, as in replay.lua


@dataclass(frozen=True, slots=True)
class Load:
    """Signed snapshots in a file, and how fast they are to be sent to which port; the last one when it is asked for."""

    port: int
    file: Path
    rate: float  # a second
    seconds: float


@dataclass(frozen=True, slots=True)
class Sent:
    """What was answered, and when."""

    begun_ns: int
    ended_ns: int
    notes: "array[int]"  # the number of a snapshot, the time of its 202, the next number, ...
    took_ns: "array[int]"  # each of the 202s
    refused: int = 0

    @property
    def acknowledged(self) -> int:
        """How many were answered 202."""
        return len(self.notes) // 2


class _Sender:
    def __init__(self, load: Load) -> None:
        self._load = load
        *self._requests, self._last = [_request(load.port, line) for line in load.file.read_bytes().splitlines()]
        self._idle = [socket.create_connection(("127.0.0.1", load.port), PATIENCE_S) for _ in range(CONNECTIONS)]
        self._connections = {each.fileno(): each for each in self._idle}
        self._under_way: dict[int, tuple[int, int]] = {}  # by descriptor: the snapshot's number, and when it was sent
        self._came: dict[int, bytes] = {}
        self._poll = select.epoll()
        for descriptor in self._connections:
            self._poll.register(descriptor, select.EPOLLIN)
        self._notes: array[int] = array("q")
        self._took_ns: array[int] = array("q")
        self._refused = 0

    def run(self) -> Sent:
        """Sends, and waits for every answer."""
        begun_ns, begun, sent = time.monotonic_ns(), time.monotonic(), 0
        ends = begun + self._load.seconds
        while (now := time.monotonic()) < ends or self._under_way:
            assert now < ends + PATIENCE_S, "an answer did not come"
            due = int((min(now, ends) - begun) * self._load.rate) if now < ends else 0
            while sent < min(due, len(self._requests)) and self._idle:
                self._send(*self._requests[sent])
                sent += 1
            for descriptor, _ in self._poll.poll(SHORTEST_S):
                self._hear(descriptor)
        return Sent(begun_ns, time.monotonic_ns(), self._notes, self._took_ns, self._refused)

    def run_last(self) -> None:
        """The one that was left."""
        self._send(*self._last)
        while self._under_way:
            for descriptor, _ in self._poll.poll(PATIENCE_S):
                self._hear(descriptor)

    def _send(self, number: int, request: bytes) -> None:
        connection = self._idle.pop()
        self._under_way[connection.fileno()] = (number, time.monotonic_ns())
        connection.sendall(request)

    def _hear(self, descriptor: int) -> None:
        """An answer, or a part of it."""
        more = self._connections[descriptor].recv(MOST_ANSWER)
        assert more, "the server closed a connection"
        answer = self._came.pop(descriptor, b"") + more
        if not _is_whole(answer):
            self._came[descriptor] = answer
            return
        number, sent_ns = self._under_way.pop(descriptor)
        if answer.startswith(b"HTTP/1.1 202 "):
            now_ns = time.monotonic_ns()
            self._notes.extend((number, now_ns))
            self._took_ns.append(now_ns - sent_ns)
        else:
            self._refused += 1
        self._idle.append(self._connections[descriptor])


def send(pipe: Connection, load: Load) -> None:
    """A process: says "ready", begins when it is told anything, and answers `Sent`; told again, sends the last one."""
    sender = _Sender(load)
    pipe.send("ready")
    pipe.recv()
    pipe.send(sender.run())
    pipe.recv()
    sender.run_last()
    pipe.send("sent")
    pipe.recv()


def _request(port: int, line: bytes) -> tuple[int, bytes]:
    """The snapshot's number and the request, as the Go client writes it."""
    body = line[SIGNATURE_ENDS + 1 :]
    found = COUNTER.search(body)
    assert found is not None, "every snapshot of the fleet has a number"
    head = (
        f"POST /v1/snapshot HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: Go-http-client/1.1\r\n"
        f"Content-Type: application/json\r\nAccept-Encoding: gzip\r\nContent-Length: {len(body)}\r\n"
        f"X-Instance-Id: {line[:INSTANCE_ID_ENDS].decode()}\r\n"
        f"X-Signature: {line[INSTANCE_ID_ENDS + 1 : SIGNATURE_ENDS].decode()}\r\n\r\n"
    )
    return int(found[1]), head.encode() + body


def _is_whole(answer: bytes) -> bool:
    head, ended, body = answer.partition(HEAD_ENDS)
    if not ended:
        return False
    _, _, length = head.lower().partition(b"content-length:")
    return len(body) >= int(length.partition(b"\r\n")[0])
