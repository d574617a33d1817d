"""A subscriber of the change feed with a mirror of the instances."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from tests.support.server_process import ServerProcess

TIMEOUT_S = 60


class Subscriber:
    """Reads messages and applies them to `instances`, a dict by ID."""

    def __init__(self, socket: WebSocketClientConnection) -> None:
        self._socket = socket
        self._ended = False
        self.instances: dict[str, dict[str, Any]] = {}
        self.kpis: dict[str, dict[str, Any]] = {}
        self.cursor = 0
        self.cursors: list[int] = []

    async def message(self) -> dict[str, Any]:
        """Reads and applies the next message."""
        text = await asyncio.wait_for(self._socket.read_message(), TIMEOUT_S)
        self._ended = text is None
        assert text is not None, f"the feed was closed: {self._socket.close_code} {self._socket.close_reason}"
        message: dict[str, Any] = msgspec.json.decode(text)
        if message["type"] == "instance":
            self.instances[message["instance"]["instance_id"]] = message["instance"]
            self.cursors.append(message["cursor"])
        elif message["type"] == "removed":
            self.instances.pop(message["instance_id"], None)
            self.cursors.append(message["cursor"])
        elif message["type"] == "kpis":
            self.kpis[message["app"]] = message
        self.cursor = max(self.cursor, message.get("cursor", 0))
        return message

    async def until(self, kind: str, cursor: int = 0) -> dict[str, Any]:
        """Reads up to a message of this type with this cursor or a larger one, and returns it."""
        while True:
            message = await self.message()
            if message["type"] == kind and message.get("cursor", 0) >= cursor:
                return message

    async def closed(self) -> int | None:
        """Reads until the feed is closed; returns the close code."""
        while not self._ended:
            self._ended = await asyncio.wait_for(self._socket.read_message(), TIMEOUT_S) is None
        return self._socket.close_code


@asynccontextmanager
async def subscribe(
    server: ServerProcess, query: str = "", headers: dict[str, str] | None = None
) -> AsyncIterator[Subscriber]:
    """A subscription with the admin token, or with these headers. Closed at the end of the context."""
    url = f"ws://127.0.0.1:{server.port}/api/v1/admin/feed{query}"
    socket = await websocket_connect(HTTPRequest(url, headers=headers or server.headers))
    subscriber = Subscriber(socket)
    try:
        yield subscriber
    finally:
        socket.close()
        await subscriber.closed()
