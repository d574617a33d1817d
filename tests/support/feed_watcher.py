"""A subscriber as a console is one: it lists, watches, comes back after whatever ends its feed, lists again if told to.

It applies what comes, and keeps a log of all of it, which is held to the truth afterwards.
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
from tests.support.feed_history import Item, comparable

ADMIN = "/api/v1/admin"

LIMIT_S = 45  # for the next thing that a subscriber hears, as long as it waits for something to come true
ANSWER_LIMIT_S = 10
LOOK_S = 0.05  # without a message it looks so often whether what it waits for has come true
NAP_S = 0.05  # before it tries again
CLOSE_LIMIT_S = 0.5  # for a feed to end in peace
SERVERS_FAULT = 500  # HTTP statuses from here on: it tries again
PAGE = 1_000


@dataclass(slots=True)
class Watcher:
    """A subscriber of any of the servers at these ports, of one application (its slug) or of all."""

    ports: Sequence[int]
    headers: dict[str, str]
    chance: Random
    app: str | None = None
    page: int = PAGE  # how long the pages of its lists are
    exports: bool = False  # in place of listing
    leaves_after: int | None = None  # it leaves after so many messages at most, and comes back
    patience_s: float = LIMIT_S  # a feed that is silent for longer it takes for dead
    log: list[Event] = field(default_factory=list)
    mirror: dict[str, Item] = field(default_factory=dict)
    kpis: dict[str, Message] = field(default_factory=dict)
    cursor: int | None = None  # None: it has to list
    listed_at: int = 0
    heard: float = 0.0  # when the last message came, or the waiting began, of the monotonic clock
    feeds: int = 0
    resyncs: int = 0

    async def take_list(self) -> None:
        """Takes a list, page by page, or an export; where that begins, it watches from."""
        url = f"http://127.0.0.1:{self.chance.choice(self.ports)}"
        async with plain_http.AsyncClient(base_url=url, headers=self.headers, timeout=ANSWER_LIMIT_S) as client:
            listed = await (self._exported(client) if self.exports else self._listed(client))
        self.mirror = {item["instance_id"]: item for item in listed.items}
        self.cursor = self.listed_at = listed.cursor
        self.log.append(listed)

    async def _listed(self, client: httpx.AsyncClient) -> ListFetched:
        items: dict[str, Item] = {}
        cursors: list[int] = []
        address: str | None = f"{ADMIN}/instances?limit={self.page}" + (f"&app={self.app}" if self.app else "")
        while address is not None:
            answer = (await client.get(address)).raise_for_status()
            cursors.append(int(answer.headers["X-Feed-Cursor"]))
            items |= {item["instance_id"]: item for item in msgspec.json.decode(answer.content)}
            address = answer.links["next"]["url"] if "next" in answer.links else None
        return ListFetched(list(items.values()), cursors[0], cursors[-1])

    async def _exported(self, client: httpx.AsyncClient) -> ListFetched:
        """It is read while things go on, so it is whole at the cursor of whatever is listed after it."""
        answer = await client.get(f"{ADMIN}/export?format=jsonl" + (f"&app={self.app}" if self.app else ""))
        answer.raise_for_status()
        items: list[Item] = [msgspec.json.decode(line) for line in answer.content.splitlines()]
        after = (await client.get(f"{ADMIN}/instances?limit=1")).raise_for_status()
        return ListFetched(items, int(answer.headers["X-Feed-Cursor"]), int(after.headers["X-Feed-Cursor"]))

    @property
    def items(self) -> dict[str, Item]:
        """The mirror, as histories have it."""
        return {instance_id: comparable(item) for instance_id, item in self.mirror.items()}

    def said(self, app: str) -> dict[str, Any] | None:
        """What it was told last of an application's KPIs, as `plain` has it."""
        return plain(self.kpis[app]) if app in self.kpis else None

    @property
    def _may_wait(self) -> bool:
        return time.monotonic() < self.heard + LIMIT_S

    async def follow(self, goal: Callable[[], object]) -> None:
        """Lists if it has to, and watches until `goal` holds; comes back whenever its feed ends."""
        self.heard = time.monotonic()
        while not goal() or self.cursor is None:
            assert self._may_wait, f"never came, of {self.app or 'all'} at {self.cursor}: {self.log[-5:]}"
            try:
                if self.cursor is None:
                    await self.take_list()
                await self._watch(goal)
            except (HTTPClientError, httpx.HTTPStatusError) as error:
                status = error.code if isinstance(error, HTTPClientError) else error.response.status_code
                if status < SERVERS_FAULT:
                    raise
                await asyncio.sleep(NAP_S)
            except (OSError, StreamClosedError, httpx.TransportError):
                await asyncio.sleep(NAP_S)

    async def _watch(self, goal: Callable[[], object]) -> None:
        """One feed."""
        assert self.cursor is not None
        query = f"since={self.cursor}" + (f"&app={self.app}" if self.app else "")
        url = f"ws://127.0.0.1:{self.chance.choice(self.ports)}{ADMIN}/feed?{query}"
        limit_s = min(ANSWER_LIMIT_S, self.patience_s)
        request = HTTPRequest(url, headers=self.headers, connect_timeout=limit_s, request_timeout=limit_s)
        opened = FeedOpened(self.cursor, time.monotonic())
        socket = await websocket_connect(request)
        self.feeds += 1
        self.log.append(opened)
        try:
            await self._read(socket, goal)
        finally:
            await self._leave(socket)

    async def _leave(self, socket: WebSocketClientConnection) -> None:
        """With a word or without one."""
        stream = socket.protocol and socket.protocol.stream
        is_polite = self.chance.random() < 0.5
        if is_polite:
            socket.close()
            with suppress(TimeoutError):
                await asyncio.wait_for(_ended(socket), CLOSE_LIMIT_S)
        if stream is not None:
            stream.close()
        socket.close()

    async def _read(self, socket: WebSocketClientConnection, goal: Callable[[], object]) -> None:
        left = None if self.leaves_after is None else self.chance.randint(0, self.leaves_after)
        opened = time.monotonic()
        reading: asyncio.Future[Any] | None = None
        while self.cursor is not None and not goal() and self._may_wait:
            silent_s = time.monotonic() - max(opened, self.heard)
            if silent_s > self.patience_s or (left == 0 and self.leaves_after is not None):
                return
            reading = reading or asyncio.ensure_future(_next(socket))
            if not (await asyncio.wait({reading}, timeout=LOOK_S))[0]:
                continue
            text, reading = reading.result(), None
            if text is None:
                return
            self._apply(msgspec.json.decode(text))
            left = None if left is None else max(0, left - 1)

    def _apply(self, message: Message) -> None:
        self.heard = time.monotonic()
        self.log.append(Received(message, self.heard))
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
        """Whether it was told of everything up to these cursors, by application, and what came of it; not if none."""
        if self.app not in last or self.cursor is None or self.cursor < last[self.app]:
            return False
        return all(app in self.kpis and self.kpis[app]["cursor"] >= last[app] for app in self.awaited(last))

    def awaited(self, last: Mapping[str | None, int]) -> list[str]:
        """Applications whose KPIs it has to be told, because they changed after its list."""
        apps = [app for app in last if app is not None and self.app in (None, app)]
        return [app for app in apps if last[app] > self.listed_at]


async def _ended(socket: WebSocketClientConnection) -> None:
    while await socket.read_message() is not None:
        pass


async def _next(socket: WebSocketClientConnection) -> str | bytes | None:
    return await socket.read_message()


def plain(kpis: dict[str, Any]) -> dict[str, Any]:
    """KPIs without what tells when they were read."""
    return {key: value for key, value in kpis.items() if key not in ("type", "cursor", "as_of", "spread_as_of")}
