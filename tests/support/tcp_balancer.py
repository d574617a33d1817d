"""A TCP load balancer before several servers: each new connection goes to the next one that accepts it."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

MAX_READ_BYTES = 65_536
START_TIMEOUT_S = 60


class TcpBalancer:
    """Runs in a thread of its own, so that clients may block."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = list(ports)
        self._next = 0
        self._listening = threading.Event()
        self.port = 0

    @contextmanager
    def running(self) -> Iterator["TcpBalancer"]:
        """Listens during the context."""
        thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        thread.start()
        assert self._listening.wait(START_TIMEOUT_S)
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._ended.set)
            thread.join()

    async def _serve(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._ended.wait()
        server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self._next = (self._next + 1) % len(self._ports)
            for port in (*self._ports[self._next :], *self._ports[: self._next]):
                with suppress(OSError):
                    server = await asyncio.open_connection("127.0.0.1", port)
                    await asyncio.gather(_forward(reader, server[1]), _forward(server[0], writer))
                    return
        finally:
            writer.transport.abort()


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Forwards data until one side closes, and then closes the other one."""
    try:
        while data := await reader.read(MAX_READ_BYTES):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
