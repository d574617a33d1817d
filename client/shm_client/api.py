"""The server's admin API over HTTP, and one connection of its change feed.

The token is sent in the Authorization header only, and only to the configured server: redirects are not followed, and
only the query of a `next` link is used.
"""

import asyncio
import re
import ssl
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, date, datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from .errors import IncompatibleServerError, InvalidResponseError, ServerUnavailableError
from .figures import AuditEntry, Breakdown, Histogram, Lifecycle, MetricSeries, Period, StoredSnapshot, Token, Versions
from .http_errors import describe_cause, parse_date, to_client_error
from .http_request import HttpRequest
from .httpx_without_cli import httpx
from .model import (
    Application,
    Event,
    EventPage,
    Instance,
    InstanceCount,
    Kpis,
    MetricKey,
    Page,
    PastKpis,
    RankedVersion,
    Restorer,
    Sanitizer,
    Stats,
    decode,
    keep_unchanged,
)
from .request_texts import RequestTexts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .messages import Message

API_PATH = "/api/v1/admin"
API_LEVEL = 1  # of the server that this client works with; the server has the same number
API_LEVEL_HEADER = "X-API-Level"
CONNECT_TIMEOUT_S = 5.0
RESPONSE_TIMEOUT_S = 20.0  # the first page of a large fleet on a busy machine takes a few seconds
APPLICATIONS_PAGE_SIZE = 1000  # the server's maximum
INSTANCES_PAGE_SIZE = 1000  # the server's maximum
MAX_APPLICATIONS = 5000  # bounds memory and requests; no list of applications is readable beyond it
MIN_CLOCK_OFFSET_S = 2.0  # the Date header has whole seconds, so smaller offsets are noise

T = TypeVar("T")


class Api:
    """Requests to one server with one token. A context manager; without one, close it with `aclose`.

    `sanitize` is applied to every JSON value of a response before it is decoded, `restore` to the keys and values in
    requests that read. Changes name the instances and metrics that the caller named, never a text of an install.
    """

    def __init__(
        self, server: str, token: str, *, sanitize: Sanitizer = keep_unchanged, restore: Restorer = str
    ) -> None:
        self._former: list[httpx.AsyncClient] = []  # of connections before; requests may still wait for their answers
        self._open_requests: Counter[httpx.AsyncClient] = Counter()
        self._requests: set[HttpRequest] = set()  # ended by `aclose`
        self.is_closed = False
        self.sanitize = sanitize
        self._texts = RequestTexts(restore)
        self._connect(server, token)

    def connect(self, server: str, token: str) -> None:
        """Sends all further requests to another server, or with another token. A feed has to be opened again.

        Requests that are open end as they began. A later request closes the connections that none of them needs.
        """
        self._former.append(self._http)
        self._connect(server, token)

    def _connect(self, server: str, token: str) -> None:
        self.server = server.rstrip("/")
        self._authorization = {"Authorization": f"Bearer {token}"}
        # HTTP and websocket share one context: the system's authorities, or those of SSL_CERT_FILE.
        self._tls = ssl.create_default_context() if server.startswith("https:") else None
        without_certificates = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # to read all of them takes 40 ms of CPU time
        self._http = httpx.AsyncClient(
            base_url=self.server,
            headers={**self._authorization, "Accept": "application/json"},
            timeout=httpx.Timeout(RESPONSE_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            verify=self._tls or without_certificates,
            trust_env=False,
        )
        self._clock_offset_s = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes all connections, also if it is cancelled. Open requests raise ServerUnavailableError."""
        self.is_closed = True  # a feed whose reader has just got an event does not start again
        await asyncio.shield(self._close())

    async def _close(self) -> None:
        while self._requests:
            for request in self._requests:
                request.cancel()
            await asyncio.wait([request.task for request in self._requests])
        await _close_all((self._http, *self._former))  # the first one before anything else can send a request with it

    async def _close_former(self) -> None:
        idle = [http for http in self._former if not self._open_requests[http]]
        self._former = [http for http in self._former if http not in idle]
        for http in idle:
            del self._open_requests[http]
        if idle:
            await asyncio.shield(_close_all(idle))

    def server_time(self) -> datetime:
        """The current time by the server's clock, for comparison with the times in its responses."""
        return datetime.now(UTC) + timedelta(seconds=self._clock_offset_s)

    async def stats(self) -> Stats:
        """Counts over all applications."""
        return self._decode(await self._get(f"{API_PATH}/stats"), Stats)

    async def applications(self) -> list[Application]:
        """All applications, up to MAX_APPLICATIONS."""
        applications: list[Application] = []
        query: str | None = urlencode({"limit": APPLICATIONS_PAGE_SIZE})
        while query is not None and len(applications) < MAX_APPLICATIONS:
            response = await self._get(f"{API_PATH}/applications?{query}")
            applications += self._decode(response, list[Application])
            query = _next_page_query(response)
        return applications

    async def kpis(self, slug: str) -> Kpis:
        """One application's KPIs. Raises UnknownApplicationError while none of its instances has reported."""
        return self._decode(await self._get(f"{application_path(slug)}/kpis"), Kpis)

    async def filtered_kpis(self, slug: str, conditions: Sequence[str]) -> Kpis:
        """The KPIs over the instances that match conditions. The server reads all of these: not for every key press."""
        query = urlencode({"where": self._texts.conditions(conditions)}, doseq=True)
        return self._decode(await self._get(f"{application_path(slug)}/kpis?{query}"), Kpis)

    async def past_kpis(self, slug: str, at: date) -> PastKpis:
        """The KPIs as they were at the beginning of a day, in UTC."""
        return self._decode(await self._get(f"{application_path(slug)}/kpis?{urlencode(_past(at))}"), PastKpis)

    async def version_rank(self, version: str) -> str:
        """The rank that the server computes for this version, as in `Instance.version_rank`."""
        response = await self._get(f"{API_PATH}/version-rank?{urlencode({'version': self._texts.restore(version)})}")
        ranked: RankedVersion = self._decode(response, RankedVersion)
        return ranked.version_rank

    async def metric_keys(self, slug: str | None, keys: Iterable[str] | None = None) -> list[MetricKey]:
        """Descriptions of these keys, or of the keys that most instances send; over all applications without `slug`."""
        parameters = {"app": slug} if slug else {}
        queries = (
            [parameters] if keys is None else [parameters | {"keys": batch} for batch in self._texts.key_batches(keys)]
        )
        descriptions: list[MetricKey] = []
        for query in queries:
            response = await self._get(f"{API_PATH}/metric-keys?{urlencode(query, doseq=True)}")
            descriptions += self._decode(response, list[MetricKey])
        return descriptions

    async def instances(self, slug: str | None, limit: int) -> Page:
        """The first page of an application's instances, or of all instances (None)."""
        return await self.next_page(urlencode({"limit": limit, **({"app": slug} if slug else {})}))

    async def find_instances(self, text: str, limit: int) -> list[Instance]:
        """Up to `limit` instances of all applications with this text in ID, version, environment or mode."""
        return (await self.next_page(urlencode({"q": self._texts.restore(text), "limit": limit}))).instances

    async def count_instances(self, slug: str | None, conditions: Sequence[str]) -> int:
        """The exact number of instances of an application, or of all, that match conditions, as in docs/api.md."""
        query = self._list_query(slug, conditions)
        counted: InstanceCount = self._decode(await self._get(f"{API_PATH}/instances/count?{query}"), InstanceCount)
        return counted.instances

    async def matching(self, slug: str | None, conditions: Sequence[str], limit: int) -> list[Instance]:
        """Up to `limit` instances that match conditions, the last seen ones first."""
        matches: list[Instance] = []
        page_size = min(limit, INSTANCES_PAGE_SIZE)
        query: str | None = self._list_query(slug, conditions, limit=page_size)
        while query is not None and len(matches) < limit:
            page = await self.next_page(query)
            matches += page.instances
            query = page.next
        return matches[:limit]

    async def events(self, slug: str | None, limit: int) -> EventPage:
        """The newest events of an application, or of all and of the server (None), at most 1,000."""
        return await self.next_events(urlencode({"limit": limit, **({"app": slug} if slug else {})}))

    async def next_events(self, query: str) -> EventPage:
        """The page of older events with the query `EventPage.next`."""
        response = await self._get(f"{API_PATH}/events?{query}")
        return EventPage(self._decode(response, list[Event]), _next_page_query(response))

    async def versions(self, slug: str, period: Period, at: date | None = None) -> Versions:
        """Instances by release over a period up to now or `at`, the adoption of releases, and outdated ones."""
        query = urlencode({"period": period, **_past(at)})
        return self._decode(await self._get(f"{application_path(slug)}/versions?{query}"), Versions)

    async def lifecycle(self, slug: str, period: Period) -> Lifecycle:
        """New, active, lost and returned instances by day, and the survival of weekly cohorts."""
        response = await self._get(f"{application_path(slug)}/lifecycle?{urlencode({'period': period})}")
        return self._decode(response, Lifecycle)

    async def breakdown(self, slug: str, by: str, metric: str | None = None, *, with_spread: bool = False) -> Breakdown:
        """Instances by the values of a column or metric, and another metric's aggregate and spread for each value."""
        spread = {"spread": "true"} if with_spread else {}
        query = urlencode(
            {"by": self._texts.name(by), **({"metric": self._texts.restore(metric)} if metric else {}), **spread}
        )
        return self._decode(await self._get(f"{application_path(slug)}/breakdown?{query}"), Breakdown)

    async def histogram(self, slug: str, metric: str) -> Histogram:
        """Instances of an application by the size of their value of a number."""
        path = f"{application_path(slug)}/histogram?{urlencode({'metric': self._texts.restore(metric)})}"
        return self._decode(await self._get(path), Histogram)

    async def series(self, slug: str, period: Period, keys: Iterable[str], at: date | None = None) -> MetricSeries:
        """Metrics of an application over a period up to now or `at`."""
        query = urlencode({"period": period, "keys": self._texts.keys(keys), **_past(at)}, doseq=True)
        return self._decode(await self._get(f"{API_PATH}/metrics/{quote(slug, safe='')}?{query}"), MetricSeries)

    async def instance(self, instance_id: str) -> Instance:
        """One instance, by its ID or the first digits of it."""
        return self._decode(await self._get(f"{API_PATH}/instances/{quote(instance_id, safe='')}"), Instance)

    async def snapshots(self, instance_id: str, limit: int) -> list[StoredSnapshot]:
        """The newest snapshots of an instance, at most 1,000, the newest first."""
        path = f"{API_PATH}/instances/{quote(instance_id, safe='')}/snapshots"
        return self._decode(await self._get(f"{path}?{urlencode({'limit': limit})}"), list[StoredSnapshot])

    async def audit(self, limit: int) -> list[AuditEntry]:
        """The newest changes by admins. Raises RefusedError for a viewer's token."""
        return self._decode(await self._get(f"{API_PATH}/audit?{urlencode({'limit': limit})}"), list[AuditEntry])

    async def tokens(self, limit: int) -> list[Token]:
        """The newest tokens. Raises RefusedError for a viewer's token."""
        return self._decode(await self._get(f"{API_PATH}/tokens?{urlencode({'limit': limit})}"), list[Token])

    async def is_admin(self) -> bool:
        """Whether the token may decide on instances: only an admin may read the list of tokens."""
        response = await self._send("GET", f"{API_PATH}/tokens?limit=1")
        if response.status_code == httpx.codes.FORBIDDEN:
            return False
        self._require(response, httpx.codes.OK)
        return True

    async def read_page(
        self, slug: str | None, conditions: Sequence[str], sorting: tuple[str, str], limit: int, **place: str | int
    ) -> Page:
        """A page of an application's instances, or of all (None), that match conditions.

        `sorting`: a field of the API or `metrics.` and a key, and `asc` or `desc`. `place`: `before="end"` is the last
        page, `around` the page around the place of an instance, `offset` a number of rows to skip.
        """
        sort, order = sorting
        return await self.next_page(
            self._list_query(slug, conditions, sort=self._texts.name(sort), order=order, limit=limit, **place)
        )

    async def next_page(self, query: str) -> Page:
        """The page with the query `Page.next` or `Page.previous`."""
        response = await self._get(f"{API_PATH}/instances?{query}")
        cursor = _number_of(response, "X-Feed-Cursor")
        if cursor is None:
            raise InvalidResponseError("the server's list of instances has no numeric X-Feed-Cursor header")
        return Page(
            self._decode(response, list[Instance]),
            cursor,
            _next_page_query(response),
            _next_page_query(response, "prev"),
            _number_of(response, "X-Rows-Before"),
        )

    def open_messages(
        self, app: str | None, since: int, on_activity: Callable[[], None] = lambda: None
    ) -> "AbstractAsyncContextManager[AsyncIterator[Message]]":
        """The feed's raw messages after the cursor `since`, from one connection.

        `on_activity` is called for every sign of life: a message, or the answer to a ping, sent every two seconds. The
        end of the connection raises ServerUnavailableError.
        """
        from .websocket import open_messages  # imports Tornado, which plain API requests do not need

        query = urlencode({"since": since, **({"app": app} if app else {})})
        path = f"{API_PATH}/feed?{query}"
        return open_messages(self.server, path, self._authorization, self._tls, self.sanitize, on_activity)

    def _list_query(self, slug: str | None, conditions: Sequence[str], **parameters: object) -> str:
        """The query of a list of an application's instances, or of all (None), that match conditions."""
        where = self._texts.conditions(conditions)
        return urlencode({**parameters, "where": where, **({"app": slug} if slug else {})}, doseq=True)

    async def _get(self, path: str) -> httpx.Response:
        response = await self._send("GET", path)
        self._require(response, httpx.codes.OK)
        return response

    def _require(self, response: httpx.Response, status: int) -> None:
        if response.status_code != status:
            server = str(response.url).partition(API_PATH)[0]  # which the client may have left since
            raise to_client_error(server, response.status_code, response.headers, response.content, self.sanitize)

    async def _send(self, method: str, path: str, body: Mapping[str, object] | None = None) -> httpx.Response:
        await self._close_former()
        http, server = self._http, self.server  # `connect` may replace both before the answer
        self._open_requests[http] += 1
        try:
            response = await self._request(http, method, path, body)
        except httpx.TimeoutException as error:
            raise ServerUnavailableError(f"no answer from {server} in time") from error
        except httpx.HTTPError as error:
            cause = describe_cause(error, self.sanitize)
            raise ServerUnavailableError(f"no answer from {server}: {cause}") from error
        finally:
            self._open_requests[http] -= 1
        if http is self._http:
            self._update_clock_offset(response)
        _check_api_level(server, response)
        return response

    async def _request(
        self, http: httpx.AsyncClient, method: str, path: str, body: Mapping[str, object] | None
    ) -> httpx.Response:
        request = HttpRequest(http, method, path, body)
        self._requests.add(request)
        request.task.add_done_callback(lambda _: self._requests.discard(request))
        try:
            response = await asyncio.shield(request.task)
        except asyncio.CancelledError:
            request.cancel()
            raise
        if response is None:
            raise ServerUnavailableError(f"no answer from {http.base_url}: the client was closed")
        return response

    def _decode(self, response: httpx.Response, expected_type: type[T] | Any) -> T:
        decoded: T = decode(response.content, expected_type, self.sanitize)
        return decoded

    def _update_clock_offset(self, response: httpx.Response) -> None:
        date = parse_date(response.headers.get("Date", ""))
        if date is not None:
            offset_s = (date - datetime.now(UTC)).total_seconds()
            self._clock_offset_s = offset_s if abs(offset_s) > MIN_CLOCK_OFFSET_S else 0.0


async def _close_all(clients: Iterable[httpx.AsyncClient]) -> None:
    """Closes connections. To be shielded: httpx forgets all of a client's before it closes the first."""
    for http in clients:
        await http.aclose()


def _number_of(response: httpx.Response, header: str) -> int | None:
    """The number in a header; None without one, or with one that is no number of 64 bits."""
    digits = response.headers.get(header, "")
    return int(digits) if re.fullmatch(r"[0-9]{1,18}", digits) else None


def _check_api_level(server: str, response: httpx.Response) -> None:
    """Raises IncompatibleServerError. A proxy's own answer has no level, and is refused for its status or its body."""
    level = _number_of(response, API_LEVEL_HEADER)
    if level is None:
        return
    if level < API_LEVEL:
        reason = f"{server} is too old: upgrade SHM on the server, from API level {level} to {API_LEVEL} or later"
        raise IncompatibleServerError(reason, is_too_old=True)
    if level > API_LEVEL:
        reason = f"{server} is too new: upgrade SHM on this machine, from API level {API_LEVEL} to {level}"
        raise IncompatibleServerError(reason, is_too_old=False)


def _past(at: date | None) -> dict[str, str]:
    """The query of figures as of a day; empty for the present ones."""
    return {} if at is None else {"at": at.isoformat()}


def application_path(slug: str) -> str:
    """The path of an application."""
    return f"{API_PATH}/applications/{quote(slug, safe='')}"


def _next_page_query(response: httpx.Response, relation: str = "next") -> str | None:
    """The query of the link to an adjoining page, None if there is none."""
    link = response.links.get(relation, {}).get("url")
    return urlsplit(link).query if link else None
