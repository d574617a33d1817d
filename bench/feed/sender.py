"""Sends signed snapshots at a fixed rate, independent of the server (an open loop), and records the time of each 202.

wrk does not report which request a response belongs to. A late response delays no other snapshot while there are idle
connections; a snapshot that cannot be sent in time is not sent.
"""

import select
import socket
import time
from array import array
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from bench.feed.subscribers import COUNTER, HEADER_END

CONNECTIONS = 128
RESPONSE_TIMEOUT_S = 60  # a later response will not come
MAX_RESPONSE_BYTES = 2**16
POLL_TIMEOUT_S = 0.001  # of epoll
INSTANCE_ID_END, SIGNATURE_END = 36, 36 + 1 + 128  # of a line, as in replay.lua


@dataclass(frozen=True, slots=True)
class Load:
    """Signed snapshots in a file, their rate and the server's port; the last snapshot is sent on request."""

    port: int
    file: Path
    rate: float  # a second
    seconds: float


@dataclass(frozen=True, slots=True)
class SendResult:
    """The responses, and their times."""

    started_ns: int
    ended_ns: int
    acknowledgements: "array[int]"  # pairs: a snapshot's number, and the time of its 202
    latencies_ns: "array[int]"  # of each 202, from sending
    refused: int = 0

    @property
    def acknowledged(self) -> int:
        """The number of 202s."""
        return len(self.acknowledgements) // 2


class _Sender:
    def __init__(self, load: Load) -> None:
        self._load = load
        *self._requests, self._last = [_request(load.port, line) for line in load.file.read_bytes().splitlines()]
        self._idle = [
            socket.create_connection(("127.0.0.1", load.port), RESPONSE_TIMEOUT_S) for _ in range(CONNECTIONS)
        ]
        self._connections = {each.fileno(): each for each in self._idle}
        self._in_flight: dict[int, tuple[int, int]] = {}  # by descriptor: a snapshot's number, and when it was sent
        self._partial: dict[int, bytes] = {}
        self._poll = select.epoll()
        for descriptor in self._connections:
            self._poll.register(descriptor, select.EPOLLIN)
        self._acknowledgements: array[int] = array("q")
        self._latencies_ns: array[int] = array("q")
        self._refused = 0

    def run(self) -> SendResult:
        """Sends, and waits for all responses."""
        started_ns, started, sent = time.monotonic_ns(), time.monotonic(), 0
        deadline = started + self._load.seconds
        while (now := time.monotonic()) < deadline or self._in_flight:
            assert now < deadline + RESPONSE_TIMEOUT_S, "a response did not arrive"
            due = int((min(now, deadline) - started) * self._load.rate) if now < deadline else 0
            while sent < min(due, len(self._requests)) and self._idle:
                self._send(*self._requests[sent])
                sent += 1
            for descriptor, _ in self._poll.poll(POLL_TIMEOUT_S):
                self._receive(descriptor)
        return SendResult(started_ns, time.monotonic_ns(), self._acknowledgements, self._latencies_ns, self._refused)

    def run_last(self) -> None:
        """Sends the last snapshot."""
        self._send(*self._last)
        while self._in_flight:
            for descriptor, _ in self._poll.poll(RESPONSE_TIMEOUT_S):
                self._receive(descriptor)

    def _send(self, number: int, request: bytes) -> None:
        connection = self._idle.pop()
        self._in_flight[connection.fileno()] = (number, time.monotonic_ns())
        connection.sendall(request)

    def _receive(self, descriptor: int) -> None:
        """Receives a response or a part of it."""
        received = self._connections[descriptor].recv(MAX_RESPONSE_BYTES)
        if not received:
            self._remove(descriptor)
            return
        response = self._partial.pop(descriptor, b"") + received
        if not _is_complete(response):
            self._partial[descriptor] = response
            return
        number, sent_ns = self._in_flight.pop(descriptor)
        if response.startswith(b"HTTP/1.1 202 "):
            now_ns = time.monotonic_ns()
            self._acknowledgements.extend((number, now_ns))
            self._latencies_ns.append(now_ns - sent_ns)
        else:
            self._refused += 1
        self._idle.append(self._connections[descriptor])

    def _remove(self, descriptor: int) -> None:
        """Removes a connection that the server has closed because it sent no request: the rate needs fewer of them."""
        assert descriptor not in self._in_flight, "the server closed a connection during a request"
        connection = self._connections.pop(descriptor)
        self._idle.remove(connection)
        self._poll.unregister(descriptor)
        connection.close()


def send(pipe: Connection, load: Load) -> None:
    """The main function of a process: sends "ready", starts at the first message, sends `SendResult` at the end.

    At the next message it sends the last snapshot.
    """
    sender = _Sender(load)
    pipe.send("ready")
    pipe.recv()
    pipe.send(sender.run())
    pipe.recv()
    sender.run_last()
    pipe.send("sent")
    pipe.recv()


def _request(port: int, line: bytes) -> tuple[int, bytes]:
    """The snapshot's number, and the request in the format of the Go client."""
    body = line[SIGNATURE_END + 1 :]
    counter = COUNTER.search(body)
    assert counter is not None, "each snapshot of the fleet has a counter"
    head = (
        f"POST /v1/snapshot HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: Go-http-client/1.1\r\n"
        f"Content-Type: application/json\r\nAccept-Encoding: gzip\r\nContent-Length: {len(body)}\r\n"
        f"X-Instance-Id: {line[:INSTANCE_ID_END].decode()}\r\n"
        f"X-Signature: {line[INSTANCE_ID_END + 1 : SIGNATURE_END].decode()}\r\n\r\n"
    )
    return int(counter[1]), head.encode() + body


def _is_complete(response: bytes) -> bool:
    head, ended, body = response.partition(HEADER_END)
    if not ended:
        return False
    _, _, length = head.lower().partition(b"content-length:")
    return len(body) >= int(length.partition(b"\r\n")[0])
