"""The base of proxies for TCP, which run in a thread of their own, so that clients may block."""

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

MAX_READ_BYTES = 65_536
START_TIMEOUT_S = 60


class TcpProxy(ABC):
    """Listens at a port that the system chooses."""

    def __init__(self) -> None:
        self._listening = threading.Event()
        self.port = 0

    @abstractmethod
    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection."""

    @contextmanager
    def running(self) -> Iterator[Self]:
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
        server = await asyncio.start_server(self.accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._ended.wait()
        server.close()


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Forwards data until one side closes, and then closes the other one."""
    try:
        while data := await reader.read(MAX_READ_BYTES):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
