"""A request can be cancelled at any moment, and its client closed: no connection stays open, and requests go on."""

import asyncio
import gc
import ssl
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from pathlib import Path

import pytest

from shm_client import Client, ClientError, FeedEvent, Listed, ServerUnavailableError, Subscription
from shm_client.model import keep_unchanged
from shm_client.websocket import UPGRADE_TIMEOUT_S, open_messages
from tests.support.clients import make_client
from tests.support.feed_mirror import TIMEOUT_S
from tests.support.parameters import long_rows_after
from tests.support.scripted_server import run_scripted_server, silence
from tests.support.server_process import ServerProcess
from tests.support.tls import create_tls

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"
MOMENTS = range(25)  # iterations of the loop: a request to a server in this process takes about twenty
CONNECTIONS = 5


@pytest.mark.parametrize(
    ("left_by", "scheme"),
    long_rows_after(2, [("aclose", "http"), ("cancel", "https"), ("aclose", "https"), ("cancel", "http")]),
)
async def test_a_client_left_at_any_moment_of_a_request_leaves_nothing(
    server: ServerProcess, left_by: str, scheme: str
) -> None:
    """The moments are iterations of the loop. With https some of them are within the handshake."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for moment in (*range(20), 30, 50, 100, 200):
            sockets, tasks = count_sockets(), asyncio.all_tasks()
            client = make_client(server, server.url.replace("http", scheme))
            requests = [asyncio.create_task(outcome(request)) for request in (client.stats, client.applications)]
            async with aclosing(client):
                for _ in range(moment):
                    await asyncio.sleep(0)
                if left_by == "cancel":
                    for request in requests:
                        request.cancel()
                    await asyncio.wait(requests)
            await asyncio.wait(requests)
            for _ in range(2):  # a closed transport closes its socket in the next iteration
                await asyncio.sleep(0)
            assert (count_sockets(), asyncio.all_tasks()) == (sockets, tasks), f"after {moment} iterations"
        gc.collect()
    assert not [str(warning.message) for warning in caught]


async def outcome(request: Callable[[], Awaitable[object]]) -> str:
    """What a request ended with. Another exception fails the test at the end of the loop."""
    try:
        await request()
    except ClientError as error:
        return str(error)
    return ""


def count_sockets() -> int:
    """The open sockets of this process."""
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            count += str(descriptor.readlink()).startswith("socket:")
    return count


@pytest.mark.parametrize(("scheme", "cancellations"), long_rows_after(1, [("http", 2), ("http", 101), ("https", 101)]))
async def test_requests_cancelled_at_any_moment_keep_no_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, cancellations: int
) -> None:
    """Nor a place in the pool, which has 100: a request afterwards is answered."""
    tls = create_tls(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", tls.authority)
    async with (
        asyncio.timeout(4 * TIMEOUT_S),
        answering_server(HEAD + b"Connection: close\r\n", tls.context if scheme == "https" else None) as server,
        Client(f"{scheme}://localhost:{server.port}", "token") as client,
    ):
        for moment in MOMENTS:
            for _ in range(cancellations):
                await cancel_after(moment, client.applications())
        await wait_until(lambda: not server.connections)
        assert await client.applications() == []


async def test_a_request_cancelled_while_it_closes_connections_closes_all() -> None:
    """Those that the server has closed meanwhile, which the next request finds."""
    sockets = count_sockets()
    for moment in MOMENTS:
        async with (
            asyncio.timeout(TIMEOUT_S),
            answering_server(HEAD) as server,
            Client(f"http://127.0.0.1:{server.port}", "token") as client,
        ):
            await asyncio.gather(*(client.applications() for _ in range(CONNECTIONS)))
            assert len(server.connections) == CONNECTIONS
            server.cut_connections()
            await wait_until(lambda: not server.connections)
            await cancel_after(moment, client.applications())
        await wait_until(lambda: count_sockets() == sockets)


async def test_a_client_whose_close_is_cancelled_closes_all_connections() -> None:
    sockets = count_sockets()
    for moment in MOMENTS[1:]:  # a task that is cancelled before it starts does nothing
        async with asyncio.timeout(TIMEOUT_S), answering_server(HEAD) as server:
            client = Client(f"http://127.0.0.1:{server.port}", "token")
            await asyncio.gather(*(client.applications() for _ in range(CONNECTIONS)))
            request = asyncio.create_task(outcome(client.applications))
            await cancel_after(moment, client.aclose())
            await request
            await wait_until(lambda: not server.connections)
        await wait_until(lambda: count_sockets() == sockets)


async def test_a_cancelled_upgrade_closes_its_connection() -> None:
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    with run_scripted_server() as server:
        server.script("/api/v1/admin/feed?since=0", silence)
        async with asyncio.timeout(TIMEOUT_S), Client(server.url, "token") as client:
            feed = asyncio.create_task(enter(client.open_messages(None, 0)))
            await asyncio.to_thread(server.wait_for, "/api/v1/admin/feed?since=0")
            feed.cancel()
            await asyncio.gather(feed, return_exceptions=True)
            await asyncio.to_thread(server.threads[-1].join, UPGRADE_TIMEOUT_S / 2)
            assert not server.threads[-1].is_alive()  # it waits for the end of the connection
            del feed
    gc.collect()
    assert not reported  # asyncio would write it to standard error, over the screen of a console


async def test_a_feed_without_a_tls_context_refuses_an_unknown_authority(tmp_path: Path) -> None:
    requests: list[bytes] = []

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.read(1))
        writer.close()

    async with await asyncio.start_server(read, "127.0.0.1", 0, ssl=create_tls(tmp_path).context) as server:
        url = f"https://localhost:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(ServerUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            async with open_messages(url, "/", {"Authorization": "Bearer token"}, None, keep_unchanged, lambda: None):
                pass
    assert not requests


async def test_a_client_whose_close_is_cancelled_closes_its_feeds() -> None:
    sockets = count_sockets()
    for moment in MOMENTS[1:]:
        async with asyncio.timeout(TIMEOUT_S), answering_server(HEAD + b"X-Feed-Cursor: 1\r\n") as server:
            client = Client(f"http://127.0.0.1:{server.port}", "token")
            waiting = asyncio.create_task(read_all(client.feed()))
            await wait_until(lambda: bool(server.connections))
            await cancel_after(moment, client.aclose())
            await waiting
            await wait_until(lambda: not server.connections)
        await wait_until(lambda: count_sockets() == sockets)


async def test_a_feed_ends_whose_reader_gets_an_event_while_the_client_is_closed() -> None:
    """It does not start again: every request of a closed client fails."""
    async with asyncio.timeout(TIMEOUT_S), answering_server(HEAD + b"X-Feed-Cursor: 1\r\n") as server:
        client = Client(f"http://127.0.0.1:{server.port}", "token")
        feed = client.feed()
        await anext(feed)
        await client.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(feed)


async def test_a_feed_that_is_closed_while_its_reader_handles_an_event_ends() -> None:
    async with (
        asyncio.timeout(TIMEOUT_S),
        answering_server(HEAD + b"X-Feed-Cursor: 1\r\n") as server,
        Client(f"http://127.0.0.1:{server.port}", "token") as client,
    ):
        feed = client.feed()
        for _ in range(2):  # a new iteration starts it again
            events = [event async for event in closed_at_once(feed)]
            assert [type(event) for event in events] == [Listed]


async def closed_at_once(feed: Subscription) -> AsyncIterator[FeedEvent]:
    """The events of a feed, which is closed while its reader handles the first one."""
    async for event in feed:
        await feed.aclose()
        yield event


async def read_all(subscription: Subscription) -> None:
    """Reads events until the subscription is closed."""
    async for _ in subscription:
        pass


async def enter(context: AbstractAsyncContextManager[object]) -> None:
    """Enters a context and leaves it."""
    async with context:
        pass


class AnsweringServer:
    """Answers each request with an empty list, and knows the connections that are open."""

    port = 0

    def __init__(self, head: bytes) -> None:
        self._answer = head + b"Content-Type: application/json\r\n\r\n[]"
        self.connections: set[asyncio.StreamWriter] = set()

    def cut_connections(self) -> None:
        """Closes all connections."""
        for writer in self.connections:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection until it is closed."""
        self.connections.add(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(self._answer)
        writer.transport.abort()
        self.connections.discard(writer)


@asynccontextmanager
async def answering_server(head: bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[AnsweringServer]:
    """A server in this process, on a free port of localhost."""
    answering = AnsweringServer(head)
    async with await asyncio.start_server(answering.serve, "127.0.0.1", 0, ssl=tls) as server:
        answering.port = server.sockets[0].getsockname()[1]
        yield answering
    await wait_until(lambda: not answering.connections)


async def cancel_after(moment: int, request: Awaitable[object]) -> None:
    """Starts a request, and cancels it after some iterations of the loop."""
    task = asyncio.ensure_future(request)
    for _ in range(moment):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def wait_until(condition: Callable[[], bool]) -> None:
    """Waits until something is true."""
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():  # noqa: ASYNC110 - of sockets
            await asyncio.sleep(0.001)
