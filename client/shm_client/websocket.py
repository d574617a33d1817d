"""The websocket of the change feed: the token in a header, pings that detect a dead server, decoded messages."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from time import monotonic

from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.httputil import HTTPHeaders
from tornado.websocket import WebSocketClientConnection, WebSocketError

from .errors import ServerUnavailableError
from .http_errors import describe_cause, to_client_error
from .messages import Message, decode_message
from .model import Sanitizer

CONNECT_TIMEOUT_S = 5.0
ABANDON_TIMEOUT_S = 0.2  # for a cancelled connection, which Tornado cannot close before it is established
UPGRADE_TIMEOUT_S = 20.0  # a busy machine answers an upgrade within a few seconds
CLOSE_TIMEOUT_S = 0.5  # for the server's close frame; a dead server sends none
PING_INTERVAL_S = 2.0  # each answer is a sign of life; a ping costs a few bytes
SILENCE_LIMIT_S = 8.0  # without any answer the connection counts as lost; a busy server answers within a few seconds
MAX_MESSAGE_BYTES = 8 * 1024 * 1024  # the largest messages are one snapshot (64 KiB) and one application's KPIs


@asynccontextmanager
async def open_messages(
    server: str,
    path: str,
    headers: dict[str, str],
    tls: ssl.SSLContext | None,
    sanitize: Sanitizer,
    on_activity: Callable[[], None],
) -> AsyncIterator[AsyncIterator[Message]]:
    """The messages of one connection. Its end raises ServerUnavailableError.

    `on_activity` is called for each message and each pong.
    """
    request = HTTPRequest(
        f"ws{server.removeprefix('http')}{path}",  # http becomes ws, https becomes wss
        headers=HTTPHeaders(headers),
        connect_timeout=CONNECT_TIMEOUT_S,
        request_timeout=UPGRADE_TIMEOUT_S,
        follow_redirects=False,
        ssl_options=tls,
        validate_cert=True,  # Tornado's default, which only its `websocket_connect` applies
    )
    connection = await _connect(server, request, sanitize)
    try:
        async with aclosing(_read_messages(server, connection, sanitize, on_activity)) as messages:
            yield messages
    finally:
        await _close(connection)


async def _connect(server: str, request: HTTPRequest, sanitize: Sanitizer) -> WebSocketClientConnection:
    connection = WebSocketClientConnection(request, max_message_size=MAX_MESSAGE_BYTES)  # to close it at any moment
    connecting = connection.connect_future
    try:
        return await asyncio.shield(connecting)
    except asyncio.CancelledError:
        connecting.add_done_callback(_close_abandoned)
        if not hasattr(connection, "stream"):
            await asyncio.wait([connecting], timeout=ABANDON_TIMEOUT_S)
        if not connecting.done() and hasattr(connection, "stream"):  # the server has not answered the upgrade
            connection.stream.close()
        raise
    except HTTPClientError as error:
        response = error.response
        headers, body = (response.headers, response.body) if response is not None else ({}, b"")
        raise to_client_error(server, error.code, headers, body or b"", sanitize) from error
    except (OSError, WebSocketError, ValueError) as error:
        raise ServerUnavailableError(f"no feed from {server}: {describe_cause(error, sanitize)}") from error


def _close_abandoned(connecting: "asyncio.Future[WebSocketClientConnection]") -> None:
    """Closes a connection whose caller was cancelled. asyncio would log an exception that nobody has read."""
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().close()


async def _read_messages(
    server: str, connection: WebSocketClientConnection, sanitize: Sanitizer, on_activity: Callable[[], None]
) -> AsyncGenerator[Message, None]:
    keep_alive = _KeepAlive(connection, on_activity)
    pinging = asyncio.create_task(keep_alive.run())
    try:
        while (text := await connection.read_message()) is not None:
            keep_alive.record_activity()
            message = decode_message(text, sanitize)
            if message is not None:
                yield message
    finally:
        pinging.cancel()
    reason = f"has been silent for {SILENCE_LIMIT_S:.0f} seconds" if keep_alive.is_lost else "was closed"
    raise ServerUnavailableError(f"the feed of {server} {reason}")


class _KeepAlive:
    """Pings a server, and drops its connection if nothing arrives for `SILENCE_LIMIT_S`.

    Tornado's own pings wait for a close frame from a server that is silent, and take three times as long.
    """

    def __init__(self, connection: WebSocketClientConnection, on_activity: Callable[[], None]) -> None:
        self.is_lost = False
        self._connection = connection
        self._on_activity = on_activity
        self._last_activity_at = monotonic()
        connection.on_pong = self._on_pong  # type: ignore[method-assign]
        self.record_activity()

    def record_activity(self) -> None:
        """Records that data have arrived from the server."""
        self._last_activity_at = monotonic()
        self._on_activity()

    def _on_pong(self, data: bytes) -> None:
        self.record_activity()

    async def run(self) -> None:
        """Pings until the connection ends, or the server has been silent for too long."""
        with suppress(WebSocketError):
            while True:
                self._connection.ping()
                await asyncio.sleep(PING_INTERVAL_S)
                if monotonic() - self._last_activity_at > SILENCE_LIMIT_S:
                    self.is_lost = True
                    self._connection.on_connection_close()
                    return


async def _close(connection: WebSocketClientConnection) -> None:
    """Closes the connection and waits up to CLOSE_TIMEOUT_S for the server's close frame."""
    connection.close()
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            while connection.close_code is None and await connection.read_message() is not None:
                pass
