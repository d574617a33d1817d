"""One request of an install and its answer, directly on Tornado's HTTP connection.

Installs are thousands to one reader and ask for seven things, so what RequestHandler offers beyond that is left out:
it would cost as much as checking the signature. A body is read up to its limit and within its time, and is in flight,
so that a drain waits for it, once it is there: whoever sends slowly or goes away in the middle holds up nothing.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import cast

import msgspec
from tornado import httputil
from tornado.http1connection import HTTP1Connection
from tornado.iostream import StreamClosedError

from shm.core.errors import MethodNotAllowed, Overloaded, Refusal, TooLarge, TooSlow
from shm.core.settings import Settings
from shm.server.http import problems
from shm.server.http.stream import Stream, whole
from shm.server.services import Rooms

MOST_DROPPED = 1024 * 1024  # bytes of an oversized body that are read, so that its sender hears the answer
LOOK_S = 0.5  # between two looks at those whose body is on its way
LENGTH = re.compile(r"[0-9]{1,18}")
WRITE_TIMEOUT_S = 30.0  # for a peer to take a piece of a long answer

JSON = {"Content-Type": "application/json"}
PROBLEM = {"Content-Type": problems.CONTENT_TYPE}

_encoder = msgspec.json.Encoder(decimal_format="number")


@dataclass(slots=True)
class Request:
    """What an install asks. `body` is the exact bytes that came; `told` are headers that the answer will have."""

    headers: httputil.HTTPHeaders
    body: bytes = b""
    told: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What an install is answered: JSON, whole or in pieces."""

    body: bytes | AsyncIterator[bytes]
    status: HTTPStatus = HTTPStatus.OK


Accept = Callable[[Rooms, Request], Awaitable[Answer]]


SIGNED = ("X-Instance-ID", "X-Signature")


@dataclass(frozen=True, slots=True)
class Post:
    """What a POST does, how large its body may be, and whether its address's budget is taken from.

    The rest is for the OpenAPI document: what `accept` reads and answers, the headers that prove it, and what it may
    refuse beside what any of them may. No `body`: any JSON object.
    """

    accept: Accept
    most: Callable[[Settings], int]
    takes_from_address: bool
    body: type[msgspec.Struct] | None
    answers: type
    statuses: tuple[HTTPStatus, ...] = (HTTPStatus.OK,)
    proof: tuple[str, ...] = SIGNED
    proof_wanted: bool = True
    refuses: tuple[type[Refusal], ...] = ()


def json(body: object) -> bytes:
    """The JSON of an answer."""
    return _encoder.encode(body)


async def hold_to_time(rooms: Rooms) -> None:
    """Ends those whose body does not come, until cancelled. One look at all: a timer for each would cost each."""
    while True:
        await asyncio.sleep(LOOK_S)
        for exchange in list(rooms.reading):
            exchange.hold_to_time(time.monotonic())


class Exchange(httputil.HTTPMessageDelegate):
    """One request on a connection; Tornado calls its methods in the order in which they stand here."""

    def __init__(self, rooms: Rooms, connection: HTTP1Connection, post: Post) -> None:
        self._rooms = rooms
        self._connection = connection
        self._stream = cast(Stream, connection.stream)
        self._post = post
        self._most = post.most(rooms.settings)
        self._body = bytearray()
        self._got = 0
        self._answered = False
        self._began = time.monotonic()

    def headers_received(
        self, start_line: httputil.RequestStartLine | httputil.ResponseStartLine, headers: httputil.HTTPHeaders
    ) -> None:
        """Refuses at once what may not come in."""
        self._request = Request(headers)
        self._rooms.reading.add(self)
        start_line = cast(httputil.RequestStartLine, start_line)
        self._is_old = start_line.version != "HTTP/1.1"
        self._closes = self._is_old or headers.get("Connection", "").lower() == "close"
        self._is_head = start_line.method == "HEAD"
        announced = headers.get("Content-Length", "")
        length = int(announced) if LENGTH.fullmatch(announced) else 0  # of any other Tornado says so, at the body
        try:
            self._admit(start_line.method, length)
        except Refusal as refusal:
            self._refuse_early(refusal, closing=length > MOST_DROPPED or "Expect" in headers)

    def data_received(self, chunk: bytes) -> None:
        """A piece of the body."""
        self._got += len(chunk)
        if self._answered:
            if self._got > MOST_DROPPED:
                self._connection.finish()
            return
        self._body += chunk
        self._rooms.bytes_read += len(chunk)
        if self._got > self._most:  # it was not announced
            self._refuse_early(self._too_large(), closing=self._got > MOST_DROPPED)
        elif self._rooms.bytes_read > self._rooms.settings.max_reading:
            sentence = "More is being sent than can be held; try again shortly."
            self._refuse_early(Overloaded("queue_full", sentence), closing=False)

    def finish(self) -> None:
        """The whole body is there."""
        if self._answered:
            self._let_go()
            self._stream.answered_early = False
            self._connection.finish()
            return
        self._request.body = bytes(self._body)
        self._let_go()
        self._began = time.monotonic()  # from here on the time is ours and not the sender's
        self._stream.answering = True
        self._rooms.start(self._run())

    def on_connection_close(self) -> None:
        """The client went away before its body was there, or sent something that is no HTTP."""
        self._let_go()

    def _let_go(self) -> None:
        """Nothing is read any more, and what was is held no longer."""
        self._rooms.reading.discard(self)
        self._rooms.bytes_read -= len(self._body)
        self._body.clear()

    def _refuse_early(self, refusal: Refusal, *, closing: bool) -> None:
        """Answers before the body is there. The rest of it is read and dropped; `closing` ends the connection instead,
        which its sender may notice before it reads the answer.
        """
        self._rooms.bytes_read -= len(self._body)
        self._body.clear()
        if closing:
            self._rooms.reading.discard(self)
            refusal.headers["Connection"] = "close"
        if not self._answered:
            problems.log(self._post.accept.__name__, refusal)
            self._rooms.instruments.refusals.increment(refusal.code)
            self._write(refusal.status, PROBLEM | refusal.headers, problems.body_of(refusal))
        self._stream.answered_early = not closing
        if closing:
            self._connection.finish()

    def _admit(self, method: str, length: int) -> None:
        rooms = self._rooms
        rooms.hold_open()
        if method != "POST":
            raise MethodNotAllowed("method_not_allowed", "This address does not know that method.", {"Allow": "POST"})
        if self._post.takes_from_address:
            headers = self._request.headers
            peer = self._connection.context.remote_ip  # type: ignore[attr-defined]  # set by Tornado's HTTPServer
            address = rooms.limits.address(peer, headers.get_list("X-Forwarded-For"))
            allowance = rooms.limits.take_address(address)
            if allowance is not None:
                self._request.told = allowance.headers()
        if length > self._most:
            raise self._too_large()

    def _too_large(self) -> Refusal:
        return TooLarge("body_too_large", f"The body is larger than {self._most} bytes.")

    def hold_to_time(self, now: float) -> None:
        """Ends it where its body has not come in time."""
        timeout_s = self._rooms.settings.body_timeout.total_seconds()
        if now - self._began > timeout_s:
            self._refuse_early(TooSlow("too_slow", f"The body did not come within {timeout_s:g} s."), closing=True)

    async def _run(self) -> None:
        try:
            answer = await self._post.accept(self._rooms, self._request)
            if isinstance(answer.body, bytes):
                await self._finish(answer.status, {**JSON, **self._request.told}, answer.body)
            else:
                await self._write_pieces(answer.status, answer.body, self._request.told)
        except StreamClosedError:  # the client has gone, which is no error
            self._connection.close()  # or Tornado would wait for the end of this answer for ever
        except asyncio.CancelledError:  # a drain's time is over
            self._connection.close()
            raise
        except Exception as error:
            problems.log(self._post.accept.__name__, error)
            if self._answered:  # in the middle of a long answer: cut off, it cannot be mistaken for a whole one
                self._connection.close()
            else:
                refusal = problems.refusal_for(error)
                self._rooms.instruments.refusals.increment(refusal.code)
                await self._finish(refusal.status, PROBLEM | refusal.headers, problems.body_of(refusal))

    async def _write_pieces(self, status: HTTPStatus, pieces: AsyncIterator[bytes], told: dict[str, str]) -> None:
        async for piece in pieces:
            if self._answered:
                written = self._connection.write(piece)
            else:  # only now, so that what fails at once is refused properly
                self._begin_answer(status)
                line = httputil.ResponseStartLine("HTTP/1.1", status.value, status.phrase)
                head = httputil.HTTPHeaders({**problems.FIXED_HEADERS, **JSON, **told})
                written = self._connection.write_headers(line, head, piece)
            if not await self._taken(written):
                return
        self._connection.finish()
        if self._is_old:  # without chunks nothing but the connection's end tells where the answer ends
            self._connection.close()

    async def _finish(self, status: HTTPStatus, headers: dict[str, str], body: bytes) -> None:
        written = self._write(status, headers, body)
        self._connection.finish()
        if not written.done():
            await self._taken(written)

    async def _taken(self, written: "asyncio.Future[None]") -> bool:
        """Whether the client took what was written; one that does not read is let go, which is no error."""
        try:
            await asyncio.wait_for(written, WRITE_TIMEOUT_S)
        except TimeoutError:
            self._connection.close()
            return False
        return True

    def _write(self, status: HTTPStatus, headers: dict[str, str], body: bytes) -> "asyncio.Future[None]":
        self._begin_answer(status)
        if self._closes:
            headers["Connection"] = "close"
        return self._connection.write(whole(status, headers, b"" if self._is_head else body, len(body)))

    def _begin_answer(self, status: HTTPStatus) -> None:
        """Its answer begins to go out."""
        self._answered = True
        self._stream.answering = False
        self._rooms.instruments.record_response(
            self._post.accept.__name__, status.value, time.monotonic() - self._began
        )
