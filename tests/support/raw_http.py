"""A small HTTP client on a raw socket. It sends any bytes, and reads responses with limits of time and size.

An ordinary client library corrects or refuses malformed requests.
"""

import json
import re
import select
import socket
import struct
from dataclasses import dataclass
from types import TracebackType

TIMEOUT_S = 60.0  # of one read or write
MAX_RESPONSE_BYTES = 4 * 1024 * 1024  # more than any test requests
STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) [^\r\n]*\r\n")
PROBLEM_FIELDS = {"type", "title", "status", "detail", "code"}


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete response. Names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, str]:
        """Code and detail of a refusal. Asserts that it has the shape of RFC 9457."""
        assert self.headers.get("content-type") == "application/problem+json", self
        problem = json.loads(self.body)
        assert problem.keys() - {"server_time"} == PROBLEM_FIELDS, problem  # a refused timestamp has the server's time
        assert problem["status"] == self.status, problem
        assert problem["type"] == f"urn:shm:problem:{problem['code']}", problem
        return {"code": problem["code"], "detail": problem["detail"]}

    @property
    def verdict(self) -> tuple[int, str | None]:
        """The status, and the code of a refusal."""
        return self.status, self.problem["code"] if self.status >= 400 else None


class RawConnection:
    """One TCP connection to a server on this machine, from an address of it."""

    def __init__(self, port: int, source: str = "127.0.0.1") -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), TIMEOUT_S, (source, 0))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""

    def __enter__(self) -> "RawConnection":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    def send(self, data: bytes) -> bool:
        """Sends `data`. Returns False if the server closed the connection before all of it was sent."""
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def half_close(self) -> None:
        """Closes the connection for sending. Responses can still be read."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:  # the server has closed the connection already
            return

    def reset(self) -> None:
        """Closes the connection with RST."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def has_more(self, within_s: float) -> bool:
        """Whether data or the end of the connection arrives within that time."""
        return bool(self._received) or bool(select.select([self._socket], [], [], within_s)[0])

    def answer(self) -> Answer | None:
        """Reads the next response. Returns None if the connection ends before it begins. Raises TimeoutError."""
        while True:
            head = self._read_until(b"\r\n\r\n")
            if head is None:
                return None
            status = STATUS_LINE.match(head)
            assert status, head
            if not status[1].startswith(b"1"):  # 100 Continue precedes the response
                break
        fields = [line.split(": ", 1) for line in head.decode("latin1").split("\r\n")[1:-2]]
        headers = {name.lower(): value for name, value in fields}
        length = headers.get("content-length")
        body = self._read_exactly(int(length)) if length is not None else self._read_to_end()
        return Answer(int(status[1]), headers, body)

    def verdict(self) -> tuple[int, str | None] | None:
        """Reads the next response. Returns its verdict, or None if the connection ends before. Raises TimeoutError."""
        answer = self.answer()
        return None if answer is None else answer.verdict

    def answers(self) -> list[Answer]:
        """Reads all responses until the server closes the connection. Raises TimeoutError."""
        answers = []
        while (answer := self.answer()) is not None:
            answers.append(answer)
        return answers

    def starts_with(self, start: bytes) -> bool:
        """Reads until the response can be compared with `start`. Returns whether it begins so. Raises TimeoutError."""
        while len(self._received) < len(start) and self._receive():
            pass
        return self._received.startswith(start)

    def ended(self) -> bool:
        """Waits until the server closes the connection. Returns False if data arrives first. Raises TimeoutError."""
        return not self._received and not self._receive()

    def _read_until(self, delimiter: bytes) -> bytes | None:
        while delimiter not in self._received:
            if not self._receive():
                assert not self._received, f"the connection ended in the middle of a response: {self._received!r}"
                return None
        head, _, self._received = self._received.partition(delimiter)
        return head + delimiter

    def _read_exactly(self, length: int) -> bytes:
        while len(self._received) < length:
            assert self._receive(), f"the connection ended in the middle of a response: {self._received!r}"
        body, self._received = self._received[:length], self._received[length:]
        return body

    def _read_to_end(self) -> bytes:
        while self._receive():
            pass
        body, self._received = self._received, b""
        return body

    def _receive(self) -> bool:
        try:
            data = self._socket.recv(65536)
        except ConnectionResetError:
            return False
        self._received += data
        assert len(self._received) < MAX_RESPONSE_BYTES, "the response exceeds the limit"
        return bool(data)
