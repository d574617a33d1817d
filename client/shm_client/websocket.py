"""The websocket of the change feed: opened with the token in a header, kept alive by pings, read message by message."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress

from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import WebSocketClientConnection, WebSocketError, websocket_connect

from .errors import UnreachableError
from .messages import Message, decode_message
from .model import Border
from .refusals import reason, refusal

CONNECT_TIMEOUT = 5.0
UPGRADE_TIMEOUT = 20.0  # for the answer of a busy machine, with room
CLOSE_TIMEOUT = 0.5  # for the server to say goodbye; a dead one is left behind
PING_INTERVAL = 5.0  # a server that died without a word is noticed within two of them
MAX_MESSAGE = 8 * 1024 * 1024  # a message is at most one snapshot (64 KiB) or one application's KPIs


@asynccontextmanager
async def opened(
    server: str, path: str, headers: dict[str, str], tls: ssl.SSLContext | None, border: Border
) -> AsyncIterator[AsyncIterator[Message]]:
    """The messages for as long as the server is there; their end raises UnreachableError."""
    request = HTTPRequest(
        f"ws{server.removeprefix('http')}{path}",  # http becomes ws, https becomes wss
        headers=headers,
        connect_timeout=CONNECT_TIMEOUT,
        request_timeout=UPGRADE_TIMEOUT,
        follow_redirects=False,
        ssl_options=tls,
    )
    connection = await _connect(server, request, border)
    try:
        async with aclosing(_messages(server, connection, border)) as messages:
            yield messages
    finally:
        await _close(connection)


async def _connect(server: str, request: HTTPRequest, border: Border) -> WebSocketClientConnection:
    opening = asyncio.ensure_future(
        websocket_connect(
            request, ping_interval=PING_INTERVAL, ping_timeout=PING_INTERVAL, max_message_size=MAX_MESSAGE
        )
    )
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        await asyncio.wait({opening}, timeout=CLOSE_TIMEOUT)
        if not opening.done():
            opening.add_done_callback(_let_go)
        elif opening.exception() is None:
            await _close(opening.result())
        raise
    except HTTPClientError as error:
        answer = error.response
        headers, body = (answer.headers, answer.body) if answer is not None else ({}, b"")
        raise refusal(server, error.code, headers, body or b"", border) from error
    except (OSError, WebSocketError, ValueError) as error:
        raise UnreachableError(f"no feed from {server}: {reason(error, border)}") from error


def _let_go(opening: "asyncio.Future[WebSocketClientConnection]") -> None:
    """Closes a connection that came when nobody waited for it any more."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


async def _messages(
    server: str, connection: WebSocketClientConnection, border: Border
) -> AsyncGenerator[Message, None]:
    while (text := await connection.read_message()) is not None:
        message = decode_message(text, border)
        if message is not None:
            yield message
    raise UnreachableError(f"the feed of {server} was closed")


async def _close(connection: WebSocketClientConnection) -> None:
    """Says goodbye and waits for the answer, but not for long."""
    connection.close()
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT):
            while connection.close_code is None and await connection.read_message() is not None:
                pass
