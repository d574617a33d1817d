"""A subscriber that behaves like a console: it lists, follows the feed, reconnects, and lists again after a resync.

It applies each message to a mirror and keeps a log, which `feed_checker` compares with the history afterwards.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

import httpx
import msgspec
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketClientConnection, websocket_connect

from tests.support import plain_http
from tests.support.feed_checker import Event, FeedOpened, ListFetched, Message, Received
from tests.support.feed_history import Item, with_parsed_times

ADMIN = "/api/v1/admin"

MESSAGE_TIMEOUT_S = 60  # between two messages while it waits for its goal
RESPONSE_TIMEOUT_S = 60
POLL_INTERVAL_S = 0.05  # between two checks of the goal while no message comes
RETRY_DELAY_S = 0.05  # before it reconnects
CLOSE_TIMEOUT_S = 0.5  # for the close handshake of a feed
MIN_SERVER_ERROR = 500  # the lowest HTTP status after which it retries
PAGE_SIZE = 1_000


@dataclass(slots=True)
class Watcher:
    """A subscriber of the servers at these ports, of one application (its slug) or of all."""

    ports: Sequence[int]
    headers: dict[str, str]
    rng: Random
    app: str | None = None
    page_size: int = PAGE_SIZE  # of its lists
    exports: bool = False  # whether it reads an export instead of a list
    max_messages: int | None = None  # it closes a feed after at most this many messages, and reconnects
    silence_timeout_s: float = MESSAGE_TIMEOUT_S  # it reconnects if no message comes for this long
    log: list[Event] = field(default_factory=list)
    mirror: dict[str, Item] = field(default_factory=dict)
    kpis: dict[str, Message] = field(default_factory=dict)
    cursor: int | None = None  # None if it has to list
    listed_at: int = 0
    last_message_at: float = 0.0  # monotonic time of the last message or of the start of the wait
    feeds: int = 0
    resyncs: int = 0

    async def fetch_list(self) -> None:
        """Reads all pages of a list, or an export. The feed continues from the cursor of its first page."""
        url = f"http://127.0.0.1:{self.rng.choice(self.ports)}"
        async with plain_http.AsyncClient(base_url=url, headers=self.headers, timeout=RESPONSE_TIMEOUT_S) as client:
            listed = await (self._read_export(client) if self.exports else self._read_list(client))
        self.mirror = {item["instance_id"]: item for item in listed.items}
        self.cursor = self.listed_at = listed.cursor
        self.log.append(listed)

    async def _read_list(self, client: httpx.AsyncClient) -> ListFetched:
        items: dict[str, Item] = {}
        cursors: list[int] = []
        address: str | None = f"{ADMIN}/instances?limit={self.page_size}" + (f"&app={self.app}" if self.app else "")
        while address is not None:
            response = (await client.get(address)).raise_for_status()
            cursors.append(int(response.headers["X-Feed-Cursor"]))
            items |= {item["instance_id"]: item for item in msgspec.json.decode(response.content)}
            address = str(response.url.join(response.links["next"]["url"])) if "next" in response.links else None
        return ListFetched(list(items.values()), cursors[0], cursors[-1])

    async def _read_export(self, client: httpx.AsyncClient) -> ListFetched:
        """The fleet changes during an export. The export is complete at the cursor of a list that is read after it."""
        response = await client.get(f"{ADMIN}/export?format=jsonl" + (f"&app={self.app}" if self.app else ""))
        response.raise_for_status()
        items: list[Item] = [msgspec.json.decode(line) for line in response.content.splitlines()]
        after = (await client.get(f"{ADMIN}/instances?limit=1")).raise_for_status()
        return ListFetched(items, int(response.headers["X-Feed-Cursor"]), int(after.headers["X-Feed-Cursor"]))

    @property
    def items(self) -> dict[str, Item]:
        """The mirror with parsed timestamps, as in a `History`."""
        return {instance_id: with_parsed_times(item) for instance_id, item in self.mirror.items()}

    def latest_kpis(self, app: str) -> dict[str, Any] | None:
        """The last received KPIs of an application, without the times at which they were read."""
        return without_read_times(self.kpis[app]) if app in self.kpis else None

    @property
    def _is_within_limit(self) -> bool:
        return time.monotonic() < self.last_message_at + MESSAGE_TIMEOUT_S

    async def follow(self, goal: Callable[[], object]) -> None:
        """Lists if necessary and follows the feed until `goal` is true; reconnects whenever the feed ends."""
        self.last_message_at = time.monotonic()
        while not goal() or self.cursor is None:
            assert self._is_within_limit, f"goal not reached: {self.app or 'all'} at {self.cursor}: {self.log[-5:]}"
            try:
                if self.cursor is None:
                    await self.fetch_list()
                await self._follow_one_feed(goal)
            except (HTTPClientError, httpx.HTTPStatusError) as error:
                status = error.code if isinstance(error, HTTPClientError) else error.response.status_code
                if status < MIN_SERVER_ERROR:
                    raise
                await asyncio.sleep(RETRY_DELAY_S)
            except (OSError, StreamClosedError, httpx.TransportError):
                await asyncio.sleep(RETRY_DELAY_S)

    async def _follow_one_feed(self, goal: Callable[[], object]) -> None:
        """Follows one feed."""
        assert self.cursor is not None
        query = f"since={self.cursor}" + (f"&app={self.app}" if self.app else "")
        url = f"ws://127.0.0.1:{self.rng.choice(self.ports)}{ADMIN}/feed?{query}"
        limit_s = min(RESPONSE_TIMEOUT_S, self.silence_timeout_s)
        request = HTTPRequest(url, headers=self.headers, connect_timeout=limit_s, request_timeout=limit_s)
        opened = FeedOpened(self.cursor, time.monotonic())
        socket = await websocket_connect(request)
        self.feeds += 1
        self.log.append(opened)
        try:
            await self._read(socket, goal)
        finally:
            await self._close(socket)

    async def _close(self, socket: WebSocketClientConnection) -> None:
        """Closes the feed, in half of the cases without a close handshake."""
        stream = socket.protocol and socket.protocol.stream
        has_handshake = self.rng.random() < 0.5
        if has_handshake:
            socket.close()
            with suppress(TimeoutError):
                await asyncio.wait_for(_read_to_end(socket), CLOSE_TIMEOUT_S)
        if stream is not None:
            stream.close()
        socket.close()

    async def _read(self, socket: WebSocketClientConnection, goal: Callable[[], object]) -> None:
        messages_left = None if self.max_messages is None else self.rng.randint(0, self.max_messages)
        opened = time.monotonic()
        reading: asyncio.Future[Any] | None = None
        while self.cursor is not None and not goal() and self._is_within_limit:
            silent_s = time.monotonic() - max(opened, self.last_message_at)
            if silent_s > self.silence_timeout_s or (messages_left == 0 and self.max_messages is not None):
                return
            reading = reading or asyncio.ensure_future(_next(socket))
            if not (await asyncio.wait({reading}, timeout=POLL_INTERVAL_S))[0]:
                continue
            text, reading = reading.result(), None
            if text is None:
                return
            self._apply(msgspec.json.decode(text))
            messages_left = None if messages_left is None else max(0, messages_left - 1)

    def _apply(self, message: Message) -> None:
        self.last_message_at = time.monotonic()
        self.log.append(Received(message, self.last_message_at))
        if message["type"] == "resync":
            self.resyncs += 1
            self.cursor = None
            return
        if message["type"] == "instance":
            self.mirror[message["instance"]["instance_id"]] = message["instance"]
        elif message["type"] == "removed":
            self.mirror.pop(message["instance_id"], None)
        elif message["type"] == "kpis":
            self.kpis[message["app"]] = message
        self.cursor = max(self.cursor or 0, message["cursor"])

    def has_reached(self, last: Mapping[str | None, int]) -> bool:
        """Whether it received all changes up to these cursors by application, and their KPIs; false without cursors."""
        if self.app not in last or self.cursor is None or self.cursor < last[self.app]:
            return False
        return all(app in self.kpis and self.kpis[app]["cursor"] >= last[app] for app in self.changed_apps(last))

    def changed_apps(self, last: Mapping[str | None, int]) -> list[str]:
        """Applications whose KPIs it has to receive, because they changed after its list."""
        apps = [app for app in last if app is not None and self.app in (None, app)]
        return [app for app in apps if last[app] > self.listed_at]


async def _read_to_end(socket: WebSocketClientConnection) -> None:
    while await socket.read_message() is not None:
        pass


async def _next(socket: WebSocketClientConnection) -> str | bytes | None:
    return await socket.read_message()


def without_read_times(kpis: dict[str, Any]) -> dict[str, Any]:
    """KPIs without the times at which they were read."""
    return {key: value for key, value in kpis.items() if key not in ("type", "cursor", "as_of", "spread_as_of")}
