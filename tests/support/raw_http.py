"""A small HTTP client on a raw socket: sends exactly the bytes it is given, and reads what comes back, with limits.

A client library would mend or refuse what a hostile client sends. This one sends it.
"""

import json
import re
import select
import socket
import struct
from dataclasses import dataclass
from types import TracebackType

WAIT_LIMIT_S = 20.0  # for any one read or write
MAX_RESPONSE_BYTES = 4 * 1024 * 1024  # bytes: more than any test asks for
STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) [^\r\n]*\r\n")
PROBLEM = {"type", "title", "status", "detail", "code"}


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer. Names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, str]:
        """The refusal, whose shape is checked on the way."""
        assert self.headers.get("content-type") == "application/problem+json", self
        said = json.loads(self.body)
        assert said.keys() - {"server_time"} == PROBLEM, said  # for a refused timestamp
        assert said["status"] == self.status, said
        assert said["type"] == f"urn:shm:problem:{said['code']}", said
        return {"code": said["code"], "detail": said["detail"]}

    @property
    def verdict(self) -> tuple[int, str | None]:
        """The status, and a refusal's code."""
        return self.status, self.problem["code"] if self.status >= 400 else None


class RawConnection:
    """One TCP connection to a server on this machine."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), WAIT_LIMIT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._read = b""

    def __enter__(self) -> "RawConnection":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    def send(self, data: bytes) -> bool:
        """Sends `data`; False if the server closed the connection before it was out."""
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def half_close(self) -> None:
        """Nothing more is sent; answers are still read."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:  # the server was faster and has closed it
            return

    def reset(self) -> None:
        """Goes away without a word: the other side's system is told that nobody is there."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def has_more(self, within_s: float) -> bool:
        """Whether there is something to read within that time, the end of the connection too."""
        return bool(self._read) or bool(select.select([self._socket], [], [], within_s)[0])

    def answer(self) -> Answer | None:
        """The next answer; None if the connection ended in place of one. Raises TimeoutError."""
        while True:
            head = self._until(b"\r\n\r\n")
            if head is None:
                return None
            status = STATUS_LINE.match(head)
            assert status, head
            if not status[1].startswith(b"1"):  # 100 Continue comes before the answer
                break
        fields = [line.split(": ", 1) for line in head.decode("latin1").split("\r\n")[1:-2]]
        headers = {name.lower(): value for name, value in fields}
        length = headers.get("content-length")
        body = self._exactly(int(length)) if length is not None else self._to_the_end()
        return Answer(int(status[1]), headers, body)

    def verdict(self) -> tuple[int, str | None] | None:
        """The next answer's verdict; None if the connection ended in place of one. Raises TimeoutError."""
        answer = self.answer()
        return None if answer is None else answer.verdict

    def answers(self) -> list[Answer]:
        """All answers until the server ends the connection. Raises TimeoutError."""
        found = []
        while (answer := self.answer()) is not None:
            found.append(answer)
        return found

    def starts_with(self, start: bytes) -> bool:
        """Whether the next bytes are these. Raises TimeoutError."""
        while len(self._read) < len(start) and self._receive():
            pass
        return self._read.startswith(start)

    def ended(self) -> bool:
        """Waits for the server to end the connection; False if it said something else first. Raises TimeoutError."""
        return not self._read and not self._receive()

    def _until(self, mark: bytes) -> bytes | None:
        while mark not in self._read:
            if not self._receive():
                assert not self._read, f"the connection ended in the middle of an answer: {self._read!r}"
                return None
        head, _, self._read = self._read.partition(mark)
        return head + mark

    def _exactly(self, length: int) -> bytes:
        while len(self._read) < length:
            assert self._receive(), f"the connection ended in the middle of an answer: {self._read!r}"
        body, self._read = self._read[:length], self._read[length:]
        return body

    def _to_the_end(self) -> bytes:
        while self._receive():
            pass
        body, self._read = self._read, b""
        return body

    def _receive(self) -> bool:
        try:
            data = self._socket.recv(65536)
        except ConnectionResetError:
            return False
        self._read += data
        assert len(self._read) < MAX_RESPONSE_BYTES, "an answer without an end"
        return bool(data)
