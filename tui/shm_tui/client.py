"""The server's admin API over HTTP, and its change feed over a websocket. Everything that comes back has been cleaned.

The token travels in the Authorization header and nowhere else, and only to the server that was named: redirects are not
followed, and of a `next` link only its query is taken.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import httpx
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import WebSocketClientConnection, WebSocketError, websocket_connect

from .clean import clean
from .errors import AnswerError, ConsoleError, RefusedError, UnknownApplicationError, UnreachableError
from .model import Application, Event, Instance, Kpis, Stats, decode, decode_event

API = "/api/v1/admin"
CONNECT_TIMEOUT = 5.0
APPLICATIONS_PAGE = 1000  # the largest that the server gives
MOST_APPLICATIONS = 5000  # a vendor with more has another problem than a long list
CLOSE_TIMEOUT = 0.5  # for the server to say goodbye; a dead one is left behind
ANSWER_TIMEOUT = 20.0  # a first page of a large fleet on a busy machine, with room
PING_INTERVAL = 5.0  # a server that died without a word is noticed within two of them
MAX_MESSAGE = 8 * 1024 * 1024  # an event is at most one snapshot (64 KiB) or one application's KPIs
CLOCKS_AGREE = 2.0  # the Date header counts whole seconds; less than this says nothing


@dataclass(frozen=True, slots=True)
class Page:
    """Some instances, newest seen first; the feed cursor they are true at; the query of the next page, if any."""

    instances: list[Instance]
    cursor: int
    next: str | None


class Client:
    """One server, one token. Close it with `aclose`."""

    def __init__(self, server: str, token: str) -> None:
        self.server = server
        self._authorization = {"Authorization": f"Bearer {token}"}
        # One context for both protocols: the system's authorities, and SSL_CERT_FILE where a vendor has its own.
        self._tls = ssl.create_default_context() if server.startswith("https:") else None
        self._http = httpx.AsyncClient(
            base_url=server,
            headers={**self._authorization, "Accept": "application/json"},
            timeout=httpx.Timeout(ANSWER_TIMEOUT, connect=CONNECT_TIMEOUT),
            verify=self._tls or True,
            trust_env=False,
        )
        self._ahead = 0.0

    async def aclose(self) -> None:
        await self._http.aclose()

    def now(self) -> datetime:
        """The time by the server's clock, which is the one that its times were taken from."""
        return datetime.now(UTC) + timedelta(seconds=self._ahead)

    async def stats(self) -> Stats:
        return decode((await self._get(f"{API}/stats")).content, Stats)

    async def applications(self) -> list[Application]:
        """All of them, up to MOST_APPLICATIONS."""
        found: list[Application] = []
        query: str | None = urlencode({"limit": APPLICATIONS_PAGE})
        while query is not None and len(found) < MOST_APPLICATIONS:
            response = await self._get(f"{API}/applications?{query}")
            found += decode(response.content, list[Application])
            query = _next_query(response)
        return found

    async def kpis(self, slug: str) -> Kpis:
        """Raises UnknownApplicationError while nothing has arrived from it."""
        return decode((await self._get(f"{API}/applications/{quote(slug, safe='')}/kpis")).content, Kpis)

    async def instances(self, slug: str | None, limit: int) -> Page:
        """The first page of an application's instances, or of all."""
        return await self.next_page(urlencode({"limit": limit, **({"app": slug} if slug else {})}))

    async def next_page(self, query: str) -> Page:
        """The page that `Page.next` points to."""
        response = await self._get(f"{API}/instances?{query}")
        cursor = response.headers.get("X-Feed-Cursor", "0")
        if not cursor.isdecimal():
            raise AnswerError("the server's list of instances has no X-Feed-Cursor that is a number")
        return Page(decode(response.content, list[Instance]), int(cursor), _next_query(response))

    @asynccontextmanager
    async def feed(self, slug: str | None, since: int) -> AsyncIterator[AsyncIterator[Event]]:
        """The changes after `since`, for as long as the server is there; its end raises UnreachableError."""
        query = urlencode({"since": since, **({"app": slug} if slug else {})})
        # http becomes ws, https becomes wss.
        request = HTTPRequest(
            f"ws{self.server.removeprefix('http')}{API}/feed?{query}",
            headers=self._authorization,
            connect_timeout=CONNECT_TIMEOUT,
            request_timeout=ANSWER_TIMEOUT,
            follow_redirects=False,
            ssl_options=self._tls,
        )
        connection = await self._connect(request)
        try:
            yield self._events(connection)
        finally:
            await _close(connection)

    async def _connect(self, request: HTTPRequest) -> WebSocketClientConnection:
        opening = asyncio.ensure_future(
            websocket_connect(
                request, ping_interval=PING_INTERVAL, ping_timeout=PING_INTERVAL, max_message_size=MAX_MESSAGE
            )
        )
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            with suppress(Exception):  # it failed, or took too long; either way nobody waits for it any more
                await _close(await asyncio.wait_for(opening, CLOSE_TIMEOUT))
            raise
        except HTTPClientError as error:
            raise self._refusal(error.code, error.message or "") from error
        except (OSError, WebSocketError, ValueError) as error:
            raise UnreachableError(f"no feed from {self.server}: {_reason(error)}") from error

    async def _events(self, connection: WebSocketClientConnection) -> AsyncIterator[Event]:
        while (message := await connection.read_message()) is not None:
            event = decode_event(message)
            if event is not None:
                yield event
        raise UnreachableError(f"{self.server} closed the feed")

    async def _get(self, path: str) -> httpx.Response:
        try:
            response = await self._http.get(path)
        except httpx.TimeoutException as error:
            raise UnreachableError(f"no answer from {self.server} in time") from error
        except httpx.HTTPError as error:
            raise UnreachableError(f"no answer from {self.server}: {_reason(error)}") from error
        self._learn_clock(response)
        if response.status_code != httpx.codes.OK:
            raise self._refusal(response.status_code, _detail(response))
        return response

    def _refusal(self, status: int, detail: str) -> ConsoleError:
        said = f": {clean(detail)}" if detail else ""
        if status == httpx.codes.UNAUTHORIZED:
            return RefusedError(f"{self.server} does not accept the token{said}")
        if status == httpx.codes.FORBIDDEN:
            return RefusedError(f"the token's role is too small for {self.server}{said}")
        if status == httpx.codes.NOT_FOUND:
            return UnknownApplicationError(f"{self.server} does not know it{said}")
        if status in {429, 502, 503, 504, 599}:  # 599 is Tornado's own word for no answer
            return UnreachableError(f"{self.server} is not ready{said}")
        return AnswerError(f"{self.server} answered {status}{said}")

    def _learn_clock(self, response: httpx.Response) -> None:
        try:
            ahead = (parsedate_to_datetime(response.headers["Date"]) - datetime.now(UTC)).total_seconds()
        except (KeyError, ValueError, TypeError):
            return
        self._ahead = ahead if abs(ahead) > CLOCKS_AGREE else 0.0


def _next_query(response: httpx.Response) -> str | None:
    """The query of the page behind this one."""
    link = response.links.get("next", {}).get("url")
    return urlsplit(link).query if link else None


async def _close(connection: WebSocketClientConnection) -> None:
    """Says goodbye and waits for the answer, but not for long."""
    connection.close()
    with suppress(TimeoutError):
        await asyncio.wait_for(_ended(connection), CLOSE_TIMEOUT)


async def _ended(connection: WebSocketClientConnection) -> None:
    """Returns when a connection that was told to close has."""
    while connection.close_code is None and await connection.read_message() is not None:
        pass


def _detail(response: httpx.Response) -> str:
    """What a problem document says; another kind of page says nothing worth repeating."""
    if "json" not in response.headers.get("Content-Type", ""):
        return ""
    try:
        problem: dict[str, Any] = decode(response.content, dict[str, Any])
    except AnswerError:
        return ""
    return str(problem.get("detail") or problem.get("title") or "")


def _reason(error: Exception) -> str:
    """The innermost cause in a few words: libraries wrap `connection refused` three times."""
    cause: BaseException = error
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__ or cause
    text = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
    return clean(text or type(cause).__name__, 200)
