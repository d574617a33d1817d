"""An unreliable network between subscribers and a server: a TCP proxy that splits, delays, cuts and drops data.

It runs in the test's event loop and uses the test's random numbers. Its attributes set its behaviour; a test may change
them at any time.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from random import Random

MAX_READ_BYTES = 65_536
CLOSE_TIMEOUT_S = 5


class ByteProxy:
    """Listens on `port` and forwards data to and from another port."""

    def __init__(self, target_port: int, rng: Random) -> None:
        self._target_port = target_port
        self._rng = rng
        self._open_writers: set[asyncio.StreamWriter] = set()
        self._muted_writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.max_chunk_bytes = MAX_READ_BYTES  # data is forwarded in chunks of one byte up to this size
        self.max_delay_s = 0.0  # before each chunk
        self.cut_after: tuple[int, int] | None = None  # a connection is cut after this range of bytes to the client
        self.forwarding = asyncio.Event()  # while it is not set, data waits and none is lost
        self.forwarding.set()
        self.cuts = 0
        self.closed_by_server = 0  # connections

    def mute_all(self) -> None:
        """Drops all further data of the connections that are open now, without closing them."""
        self._muted_writers |= self._open_writers

    def cut_all(self) -> None:
        """Aborts all connections on both sides."""
        for writer in self._open_writers:
            writer.transport.abort()
            self.cuts += 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ByteProxy"]:
        """Listens during the context."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut_all()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.wait_for(server.wait_closed(), CLOSE_TIMEOUT_S)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(OSError):
                server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
                await self._forward_both((reader, writer), (server_reader, server_writer))
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _forward_both(
        self,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        writers = {client[1], server[1]}
        self._open_writers |= writers
        bytes_left = None if self.cut_after is None else self._rng.randint(*self.cut_after)
        requests = asyncio.create_task(self._forward(client[0], server[1], None))
        responses = asyncio.create_task(self._forward(server[0], client[1], bytes_left))
        try:
            await asyncio.wait({requests, responses}, return_when=asyncio.FIRST_COMPLETED)
            self.closed_by_server += server[0].at_eof()
        finally:
            self._open_writers -= writers
            self._muted_writers -= writers
            for writer in writers:  # before a wait, which the end of the context may cancel
                writer.transport.abort()
            for task in (requests, responses):
                task.cancel()
            await asyncio.gather(requests, responses, return_exceptions=True)

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, bytes_left: int | None
    ) -> None:
        with suppress(OSError):
            while content := await reader.read(MAX_READ_BYTES):
                while content:
                    chunk = content[: self._rng.randint(1, self.max_chunk_bytes)]
                    content = content[len(chunk) :]
                    if bytes_left is not None:
                        chunk = chunk[:bytes_left]
                        bytes_left -= len(chunk)
                    await asyncio.sleep(self._rng.uniform(0, self.max_delay_s))
                    await self.forwarding.wait()
                    if writer not in self._muted_writers:
                        writer.write(chunk)
                        await writer.drain()
                    if bytes_left == 0:
                        self.cuts += 1
                        return
