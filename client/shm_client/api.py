"""The server's admin API over HTTP, and one connection of its change feed.

The token travels in the Authorization header and nowhere else, and only to the server that was named: redirects are not
followed, and of a `next` link only its query is taken.
"""

import ssl
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import httpx

from .errors import AnswerError, UnreachableError
from .model import Application, Border, Instance, Kpis, Page, RankedVersion, Stats, as_it_is, decode
from .refusals import reason, refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .messages import Message

API = "/api/v1/admin"
CONNECT_TIMEOUT = 5.0
ANSWER_TIMEOUT = 20.0  # a first page of a large fleet on a busy machine, with room
APPLICATIONS_PAGE = 1000  # the largest that the server gives
MOST_APPLICATIONS = 5000  # a vendor with more has another problem than a long list
CLOCKS_AGREE = 2.0  # the Date header counts whole seconds; less than this says nothing

T = TypeVar("T")


class Api:
    """Requests to one server with one token. A context manager; or close it with `aclose`.

    `border` is applied to every JSON value of an answer before it is decoded.
    """

    def __init__(self, server: str, token: str, *, border: Border = as_it_is) -> None:
        self.server = server.rstrip("/")
        self._authorization = {"Authorization": f"Bearer {token}"}
        # One context for both protocols: the system's authorities, and SSL_CERT_FILE where a vendor has its own.
        self._tls = ssl.create_default_context() if server.startswith("https:") else None
        self._http = httpx.AsyncClient(
            base_url=self.server,
            headers={**self._authorization, "Accept": "application/json"},
            timeout=httpx.Timeout(ANSWER_TIMEOUT, connect=CONNECT_TIMEOUT),
            verify=self._tls or True,
            trust_env=False,
        )
        self.border = border
        self._ahead = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes its HTTP connections."""
        await self._http.aclose()

    def now(self) -> datetime:
        """The time by the server's clock, which is the one that its times were taken from."""
        return datetime.now(UTC) + timedelta(seconds=self._ahead)

    async def stats(self) -> Stats:
        """Counts over all applications."""
        return self._decoded(await self._get(f"{API}/stats"), Stats)

    async def applications(self) -> list[Application]:
        """All of them, up to MOST_APPLICATIONS."""
        found: list[Application] = []
        query: str | None = urlencode({"limit": APPLICATIONS_PAGE})
        while query is not None and len(found) < MOST_APPLICATIONS:
            response = await self._get(f"{API}/applications?{query}")
            found += self._decoded(response, list[Application])
            query = _next_query(response)
        return found

    async def kpis(self, slug: str) -> Kpis:
        """Raises UnknownApplicationError while nothing has arrived from it."""
        return self._decoded(await self._get(f"{API}/applications/{quote(slug, safe='')}/kpis"), Kpis)

    async def version_rank(self, version: str) -> str:
        """What `Instance.version_rank` of that version would be."""
        response = await self._get(f"{API}/version-rank?{urlencode({'version': version})}")
        return self._decoded(response, RankedVersion).version_rank

    async def instances(self, slug: str | None, limit: int) -> Page:
        """The first page of an application's instances, or of all."""
        return await self.next_page(urlencode({"limit": limit, **({"app": slug} if slug else {})}))

    async def next_page(self, query: str) -> Page:
        """The page that `Page.next` points to."""
        response = await self._get(f"{API}/instances?{query}")
        cursor = response.headers.get("X-Feed-Cursor", "")
        if not cursor.isdecimal():
            raise AnswerError("the server's list of instances has no X-Feed-Cursor that is a number")
        return Page(self._decoded(response, list[Instance]), int(cursor), _next_query(response))

    def messages(self, app: str | None, since: int) -> "AbstractAsyncContextManager[AsyncIterator[Message]]":
        """The feed's bare messages after `since`, of one connection; its end raises UnreachableError."""
        from .websocket import opened  # whoever only reads needs no Tornado

        query = urlencode({"since": since, **({"app": app} if app else {})})
        return opened(self.server, f"{API}/feed?{query}", self._authorization, self._tls, self.border)

    async def _get(self, path: str) -> httpx.Response:
        try:
            response = await self._http.get(path)
        except httpx.TimeoutException as error:
            raise UnreachableError(f"no answer from {self.server} in time") from error
        except httpx.HTTPError as error:
            raise UnreachableError(f"no answer from {self.server}: {reason(error, self.border)}") from error
        self._learn_clock(response)
        if response.status_code != httpx.codes.OK:
            raise refusal(self.server, response.status_code, response.headers, response.content, self.border)
        return response

    def _decoded(self, response: httpx.Response, shape: type[T] | Any) -> T:
        decoded: T = decode(response.content, shape, self.border)
        return decoded

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
