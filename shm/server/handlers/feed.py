"""`GET /api/v1/admin/feed`: the websocket of the change feed."""

import asyncio
import logging
from http import HTTPStatus
from typing import Annotated, cast
from urllib.parse import urlsplit

import msgspec
import tornado.websocket
from tornado.iostream import StreamClosedError

from shm.analytics import applications
from shm.auth.tokens import Role
from shm.core.errors import BadRequest, DatabaseUnavailable, Forbidden, Overloaded, TooManyRequests
from shm.core.logs import RateLimitedLogger, describe_error
from shm.feed.hub import FeedFailed
from shm.server.handlers.base import Handler
from shm.server.http.operations import operation
from shm.server.http.stream import Stream
from shm.server.services import Services

GOING_AWAY = 1001
POLICY_VIOLATION = 1008
INTERNAL_ERROR = 1011
TRY_AGAIN_LATER = 1013
WEBSOCKET_VERSIONS = ("7", "8", "13")  # of the websocket protocol that Tornado supports

RETRY_WHEN_FULL_S = 10  # the Retry-After of a refusal for too many subscribers
MAX_KEPT_FOR_ADMINS = 20  # feeds that viewers cannot open, so that an admin can look at a full server
TOKEN_CHECK_INTERVAL_S = 5.0  # between two checks of the tokens of all open feeds, by one short statement

# A browser omits the default port of the scheme from both headers, other programs and proxies from either.
DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}

logger = logging.getLogger(__name__)
rate_limited = RateLimitedLogger(logger)


class FeedQuery(msgspec.Struct, frozen=True):
    """The query of the feed."""

    app: (
        Annotated[str, msgspec.Meta(description="An application's slug or name; without it, all applications.")] | None
    ) = None
    since: (
        Annotated[
            int,
            msgspec.Meta(ge=0, le=2**63 - 1, description="The cursor of a list; the feed sends the changes after it."),
        ]
        | None
    ) = None


class Feed(Handler, tornado.websocket.WebSocketHandler):
    """One subscriber. Its messages are ignored."""

    _stream_task: asyncio.Task[None] | None = None

    @operation(
        "subscribeToFeed",
        Role.VIEWER,
        status=HTTPStatus.SWITCHING_PROTOCOLS,
        refuses=[Forbidden, TooManyRequests, Overloaded],
    )
    async def get(self, query: FeedQuery) -> None:
        """The websocket that sends each change. A bad query is refused before the upgrade."""
        self._query = query
        headers = self.request.headers
        if headers.get("Upgrade", "").lower() != "websocket" or "Sec-WebSocket-Key" not in headers:
            raise BadRequest("upgrade_wanted", "This path is a websocket and requires an upgrade.")
        if headers.get("Sec-WebSocket-Version") not in WEBSOCKET_VERSIONS:
            raise BadRequest("websocket_version", f"Supported websocket versions: {', '.join(WEBSOCKET_VERSIONS)}.")
        origin = headers.get("Origin")
        if origin is not None and not self.check_origin(origin):
            raise Forbidden("foreign_origin", "The Origin header names another site than this server.")
        self._app = await self._slug()
        self._check_limits()
        self.services.websockets.add(self)
        try:
            await super().get()  # until the subscriber disconnects
        finally:
            self.services.websockets.discard(self)

    def check_origin(self, origin: str) -> bool:
        """Whether the Origin header names this server. Programs other than browsers send the same origin, or none."""
        try:
            site = urlsplit(origin)
            host = urlsplit(f"//{self.request.headers.get('Host', '')}")
            default_port = DEFAULT_PORTS.get(site.scheme)
            return bool(site.hostname) and (site.hostname, site.port or default_port) == (
                host.hostname,
                host.port or default_port,
            )
        except ValueError:  # a malformed port or address
            return False

    async def _slug(self) -> str | None:
        """The slug of the requested application, which need not exist yet."""
        app = self._query.app
        return None if app is None else await applications.resolve_slug(self.services.database, app)

    def _check_limits(self) -> None:
        """Raises Overloaded or TooManyRequests if the number of subscribers has reached its limit."""
        assert self.principal is not None  # noqa: S101 - a request without a valid token is refused before
        limits, feeds = self.services.settings, _open_feeds(self.services)
        is_full = len(feeds) >= limits.feed_subscribers
        if self.principal.role is not Role.ADMIN:
            kept = min(MAX_KEPT_FOR_ADMINS, limits.feed_subscribers // 2)
            of_viewers = sum(feed.principal is not None and feed.principal.role is not Role.ADMIN for feed in feeds)
            is_full = is_full or of_viewers >= limits.feed_subscribers - kept
        if is_full:
            detail = f"The maximum of {limits.feed_subscribers} feeds is open, those kept for admins included."
            raise Overloaded("too_many_subscribers", detail, RETRY_WHEN_FULL_S)
        feeds_of_token = sum(feed.principal == self.principal for feed in feeds)
        if feeds_of_token >= limits.feed_subscribers_of_token:
            detail = f"The maximum of {feeds_of_token} feeds is open with this token."
            raise TooManyRequests("too_many_subscribers", detail, RETRY_WHEN_FULL_S)

    async def open(self) -> None:
        """Starts the task that sends changes. `on_close` cancels it."""
        if self.ws_connection is not None and not self.ws_connection.is_closing():
            cast(Stream, self.ws_connection.stream).is_shared = True
            self._stream_task = asyncio.create_task(self._stream())

    async def _stream(self) -> None:
        try:
            await self.services.feed.serve_subscriber(self._app, self._query.since, self._send)
        except tornado.websocket.WebSocketClosedError:
            pass
        except DatabaseUnavailable:
            self.close(TRY_AGAIN_LATER, "the database is unavailable")
        except FeedFailed:
            self.close(INTERNAL_ERROR, "internal error")
        except Exception:  # an open feed that sends nothing hides the failure; a closed one is reopened
            rate_limited.exception("a feed failed")
            self.close(INTERNAL_ERROR, "internal error")

    async def _send(self, frames: bytes) -> None:
        """Sends frames and returns once the kernel has them, so one chunk is in flight. Pings are sent in between."""
        connection = self.ws_connection
        if connection is None or connection.stream is None or connection.is_closing():
            raise tornado.websocket.WebSocketClosedError
        try:
            await connection.stream.write(frames)
        except StreamClosedError:
            raise tornado.websocket.WebSocketClosedError from None

    def on_message(self, message: str | bytes) -> None:
        """Ignores a subscriber's message."""

    def on_close(self) -> None:
        """Stops sending: the client disconnected or did not answer a ping, or the server shuts down."""
        task, self._stream_task = self._stream_task, None  # else a reference cycle lasts until the GC runs
        if task is not None:  # the client may disconnect before `open`
            task.cancel()


def _open_feeds(services: Services) -> list[Feed]:
    return [socket for socket in services.websockets if isinstance(socket, Feed)]


async def close_revoked_feeds(services: Services) -> None:
    """Closes the feeds whose token was removed or has expired, until cancelled."""
    while True:
        await asyncio.sleep(TOKEN_CHECK_INTERVAL_S)
        tokens = {feed: feed.principal.token_hash for feed in _open_feeds(services) if feed.principal is not None}
        if not tokens:
            continue
        try:
            valid = await services.tokens.find_valid(set(tokens.values()))
        except Exception as error:  # a feed sends nothing either while the database is unreadable
            rate_limited.warning("the tokens of open feeds could not be checked", describe_error(error))
            continue
        for subscriber, token in tokens.items():
            if token not in valid:
                subscriber.close(POLICY_VIOLATION, "this token is no longer valid")
