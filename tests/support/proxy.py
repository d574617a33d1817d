"""What stands between a client and its server and does harm: it cuts connections, refuses them, and changes bytes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

CHUNK = 65536


class Proxy:
    """A TCP proxy on a port of its own, in this process."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None] | None] = set()
        self._server: asyncio.Server | None = None
        self.url = ""
        self.closed = False
        self.late_s = 0.0  # whatever the server says comes so late
        self.swap: tuple[bytes, bytes] | None = None  # of the same length, in what the server says; once

    @property
    def pending(self) -> bool:
        """Whether the swap is yet to be done."""
        return self.swap is not None

    async def start(self) -> None:
        """Listens."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def cut(self) -> None:
        """Every connection ends without a goodbye."""
        for writer in self._writers:
            writer.transport.abort()

    async def stop(self) -> None:
        """Ends all."""
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.gather(*(task for task in self._serving if task is not None), return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        task = asyncio.current_task()
        self._serving.add(task)
        try:
            if self.closed:
                return
            there, back = await asyncio.open_connection("127.0.0.1", self._port)
            self._writers.add(back)
            pumps = [asyncio.create_task(pump) for pump in (self._pump(reader, back), self._swapped(there, writer))]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            back.transport.abort()
            self._writers.discard(back)
        finally:
            writer.transport.abort()
            self._writers.discard(writer)
            self._serving.discard(task)

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while chunk := await source.read(CHUNK):
                target.write(chunk)
                await target.drain()

    async def _swapped(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while chunk := await source.read(CHUNK):
                if self.swap is not None and self.swap[0] in chunk:
                    chunk, self.swap = chunk.replace(*self.swap), None
                await asyncio.sleep(self.late_s)
                target.write(chunk)
                await target.drain()


@asynccontextmanager
async def between(port: int) -> AsyncIterator[Proxy]:
    """A proxy before a server's port."""
    proxy = Proxy(port)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
