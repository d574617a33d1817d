"""Subscribers that cost little, since in truth they are on other machines: one process holds all of them.

A few, the sample, read every frame, and note which snapshot a message tells of and when it came: on the machine's
monotonic clock, as the sender does. Of the others the kernel counts the bytes and throws them away; they read the last
ones, to see that they were told everything. Those that are unread ask for the feed and never take anything.
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

CHUNK = 2**18  # read at a time
ROOM = 2**18  # for the part of a frame that came before
PATIENCE_S = 20  # for a handshake, and after the last snapshot until everybody was told
PONG_S = 10  # a ping is thrown away with all else, so each says unasked that it is alive; the server waits for 15 s
LOOK_S = 0.02  # between two looks whether everybody was told
SMALL_BUFFER = 4_096  # of the sockets that are unread: they stand in the way at once, and not only when 6 MB are full
COUNTER = re.compile(rb'"invoices_sent": ?(\d+)')
CURSOR_KEY = b'"cursor":'
CURSOR = re.compile(rb'"cursor":(\d+),')
MOST_CURSOR = 32
TEXT, CLOSE, PING = 0x81, 0x88, 0x89
PONG = b"\x8a\x80\0\0\0\0"  # a client masks; with zeros nothing changes
HEAD_ENDS = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Audience:
    """Who subscribes, and where."""

    port: int
    token: str
    readers: int
    sample: int  # of the readers
    unread: int = 0


@dataclass(frozen=True, slots=True)
class Told:
    """What they were told in all, by when, and what the sample noted."""

    messages: float  # counted by the sample, and by the length of its messages for the others
    octets: int
    behind: int  # readers that had not reached the cursor when time was up
    closed: int  # feeds that were closed on a reader
    by_ns: int
    notes: "list[array[int]]"  # of each of the sample: the snapshot's number, when it came, the next number, ...
    example: bytes  # the last message about an instance that one of the sample read, or empty


class Reader:
    """A subscriber that reads."""

    __slots__ = ("closed", "cursor", "messages", "notes", "octets", "part", "socket")

    def __init__(self, connection: socket.socket, part: bytes, notes: "array[int] | None") -> None:
        self.socket = connection
        self.part = part  # of a frame
        self.notes = notes
        self.cursor = self.messages = self.octets = 0
        self.closed = False


class Hall:
    """The one buffer that all are read into."""

    def __init__(self) -> None:
        self._buffer = bytearray(ROOM + CHUNK)
        self._free = memoryview(self._buffer)[ROOM:]
        self.example = b""  # the last message about an instance
        self.throws_away = True  # what those beyond the sample are told

    def read(self, reader: Reader) -> None:
        """What has come, up to a chunk."""
        flags = socket.MSG_TRUNC if reader.notes is None and self.throws_away else 0
        try:
            got = reader.socket.recv_into(self._free, CHUNK, flags)
        except BlockingIOError:
            return
        except ConnectionError:
            got = 0
        if not got:
            reader.closed = True
            return
        now = time.monotonic_ns()
        reader.octets += got
        if flags:
            return
        begins, end = ROOM - len(reader.part), ROOM + got
        self._buffer[begins:ROOM] = reader.part
        if reader.notes is not None:
            begins = self._walk(reader, reader.notes, begins, end, now)
        elif (newest := self._buffer.rfind(CURSOR_KEY, begins, end)) >= 0:
            self._see_cursor(reader, newest, end)
        reader.part = bytes(self._buffer[begins if reader.notes is not None else max(begins, end - MOST_CURSOR) : end])
        assert len(reader.part) <= ROOM, "a frame longer than any that the server sends"

    def _walk(self, reader: Reader, notes: "array[int]", at: int, end: int, now: int) -> int:
        """From frame to frame, up to one that is not there whole: where that begins."""
        buffer = self._buffer
        while at + 2 <= end:
            length, body = buffer[at + 1], at + 2
            if length == 126:
                length, body = buffer[at + 2] << 8 | buffer[at + 3], at + 4
            elif length == 127:
                length, body = int.from_bytes(buffer[at + 2 : at + 10]), at + 10
            after = body + length
            if after > end:
                break
            if buffer[at] == TEXT:
                reader.messages += 1
                self._note(notes, body, after, now)
                self._see_cursor(reader, body, after)
            else:
                _answer(reader, buffer[at])
            at = after
        return at

    def _see_cursor(self, reader: Reader, at: int, end: int) -> None:
        if found := CURSOR.search(self._buffer, at, end):
            reader.cursor = int(found[1])

    def _note(self, notes: "array[int]", body: int, after: int, now: int) -> None:
        if found := COUNTER.search(self._buffer, body, after):
            notes.extend((int(found[1]), now))
            self.example = bytes(self._buffer[body:after])


def subscribe(pipe: Connection, audience: Audience) -> None:
    """A process: says "open" when all have subscribed; told anything, it throws nothing away any more, and says so.

    Then it is told the cursor to be reached, and answers `Told`.
    """
    unread = [_subscribed(audience, SMALL_BUFFER) for _ in range(audience.unread)]
    readers: dict[int, Reader] = {}
    every = max(1, audience.readers // max(1, audience.sample))  # the sample is spread evenly among those that read
    for number in range(audience.readers):
        connection, part = _subscribed(audience)
        connection.setblocking(False)
        noting = number % every == 0 and number // every < audience.sample
        readers[connection.fileno()] = Reader(connection, part, array("q") if noting else None)
    hall = Hall()
    pipe.send("open")
    by_ns, goal = _listen(pipe, readers, hall)
    del unread
    all_of_them, sample = readers.values(), [reader for reader in readers.values() if reader.notes is not None]
    octets = sum(reader.octets for reader in all_of_them)
    told = Told(
        messages=octets * sum(each.messages for each in sample) / max(1, sum(each.octets for each in sample)),
        octets=octets,
        behind=sum(reader.cursor < goal for reader in all_of_them),
        closed=sum(reader.closed for reader in all_of_them),
        by_ns=by_ns,
        notes=[each.notes for each in sample if each.notes is not None],
        example=hall.example,
    )
    pipe.send(told)


def _listen(pipe: Connection, readers: dict[int, Reader], hall: Hall) -> tuple[int, int]:
    """Until all have reached the cursor that they are told of, or time is up; when that was, and the cursor."""
    poll = select.epoll()
    poll.register(pipe.fileno(), select.EPOLLIN)
    for descriptor in readers:
        poll.register(descriptor, select.EPOLLIN)
    goal, deadline, look = 0, float("inf"), float("inf")
    pongs = _Pongs(readers.values())
    while True:
        pongs.send()
        for descriptor, _ in poll.poll(LOOK_S):
            reader = readers.get(descriptor)
            if reader is None:
                heard = pipe.recv()
                if hall.throws_away:
                    hall.throws_away = False
                    pipe.send("reading")
                else:
                    goal, look, deadline = heard, 0.0, time.monotonic() + PATIENCE_S
                continue
            hall.read(reader)
            if reader.closed:
                poll.unregister(descriptor)
        now = time.monotonic()
        if now >= look:
            look = now + LOOK_S
            if now > deadline or all(reader.cursor >= goal or reader.closed for reader in readers.values()):
                return time.monotonic_ns(), goal


class _Pongs:
    """One from each in turn, in all of them every few seconds."""

    def __init__(self, readers: Iterable[Reader]) -> None:
        self._readers = list(readers)
        self._begun = time.monotonic()
        self._said = 0

    def send(self) -> None:
        """Those that are due."""
        due = int((time.monotonic() - self._begun) / PONG_S * len(self._readers))
        for number in range(self._said, due):
            with suppress(OSError):  # it was closed, which is found where it is read
                self._readers[number % len(self._readers)].socket.send(PONG)
        self._said = due


def _answer(reader: Reader, kind: int) -> None:
    if kind == PING:  # the server's are empty
        reader.socket.send(PONG)
    elif kind == CLOSE:
        reader.closed = True


def _subscribed(audience: Audience, buffer: int = 0) -> tuple[socket.socket, bytes]:
    """A connection on which the feed was asked for, and what came after the answer's head."""
    connection = socket.socket()
    if buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    connection.settimeout(PATIENCE_S)
    connection.connect(("127.0.0.1", audience.port))
    connection.sendall(
        f"GET /api/v1/admin/feed HTTP/1.1\r\nHost: 127.0.0.1:{audience.port}\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        f"Authorization: Bearer {audience.token}\r\n\r\n".encode()
    )
    answer = b""
    while HEAD_ENDS not in answer:
        more = connection.recv(CHUNK)
        assert more, f"the feed was refused: {answer!r}"
        answer += more
    head, _, part = answer.partition(HEAD_ENDS)
    assert head.startswith(b"HTTP/1.1 101 "), f"the feed was refused: {answer!r}"
    return connection, part
