"""A TCP proxy that injects faults: it cuts, refuses and delays connections, and holds and changes responses."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

CHUNK_BYTES = 65536


class FaultProxy:
    """A proxy to a local server, on a free port and in this process."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None] | None] = set()
        self._server: asyncio.Server | None = None
        self.url = ""
        self.refuses_connections = False
        self.response_delay_s = 0.0
        self.may_respond = asyncio.Event()  # responses are held while it is not set
        self.may_respond.set()
        self.held_request: bytes | None = None  # requests with these bytes are held for ever, or
        self.cut_request: bytes | None = None  # their connections are closed
        self.replacement: tuple[bytes, bytes] | None = None  # old and new, of the same length; applied once
        self.replacements: dict[bytes, bytes] = {}  # the same, applied to all responses

    @property
    def is_replacement_pending(self) -> bool:
        """Whether no response has contained the bytes to replace yet."""
        return self.replacement is not None

    async def start(self) -> None:
        """Starts to listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def cut_connections(self) -> None:
        """Aborts all connections, without a close frame."""
        for writer in self._writers:
            writer.transport.abort()

    async def stop(self) -> None:
        """Stops listening and ends all connections."""
        assert self._server is not None
        self._server.close()
        self.cut_connections()
        await asyncio.gather(*(task for task in self._tasks if task is not None), return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            if self.refuses_connections:
                return
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._port)
            self._writers.add(server_writer)
            directions = (self._forward_request(reader, server_writer), self._forward_response(server_reader, writer))
            forwarders = [asyncio.create_task(direction) for direction in directions]
            await asyncio.wait(forwarders, return_when=asyncio.FIRST_COMPLETED)
            for forwarder in forwarders:
                forwarder.cancel()
            await asyncio.gather(*forwarders, return_exceptions=True)
            server_writer.transport.abort()
            self._writers.discard(server_writer)
        finally:
            writer.transport.abort()
            self._writers.discard(writer)
            self._tasks.discard(task)

    async def _forward_request(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while chunk := await source.read(CHUNK_BYTES):
                if self.cut_request is not None and self.cut_request in chunk:
                    return
                if self.held_request is not None and self.held_request in chunk:
                    await asyncio.Event().wait()
                target.write(chunk)
                await target.drain()

    async def _forward_response(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while chunk := await source.read(CHUNK_BYTES):
                if self.replacement is not None and self.replacement[0] in chunk:
                    chunk, self.replacement = chunk.replace(*self.replacement), None
                for old, new in self.replacements.items():
                    chunk = chunk.replace(old, new)
                await asyncio.sleep(self.response_delay_s)
                await self.may_respond.wait()
                target.write(chunk)
                await target.drain()


@asynccontextmanager
async def run_fault_proxy(port: int) -> AsyncIterator[FaultProxy]:
    """A proxy to a server's port within the context."""
    proxy = FaultProxy(port)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
