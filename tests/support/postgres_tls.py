"""TLS for a PostgreSQL that has none: a proxy that ends TLS, as a PostgreSQL with `ssl = on`, and forwards the rest.

Clients without TLS are served too, as by a `host` line of pg_hba.conf.
"""

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.tls import create_tls

SSL_REQUEST = bytes.fromhex("0000000804d2162f")
GSS_REQUEST = bytes.fromhex("0000000804d21630")
MAX_READ_BYTES = 65_536
START_TIMEOUT_S = 60


class PostgresTls:
    """Runs in a thread of its own, so that clients may block. Counts the connections of either kind."""

    def __init__(self, socket: Path, folder: Path) -> None:
        self._socket = socket
        self._tls: ssl.SSLContext = create_tls(folder).context
        self._listening = threading.Event()
        self.port = 0
        self.encrypted = 0
        self.plain = 0

    @contextmanager
    def running(self) -> Iterator["PostgresTls"]:
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
        with suppress(OSError, asyncio.IncompleteReadError):
            first = await reader.readexactly(8)
            while first == GSS_REQUEST:
                writer.write(b"N")
                first = await reader.readexactly(8)
            if first == SSL_REQUEST:
                writer.write(b"S")
                await writer.start_tls(self._tls)
                first = b""
            postgres_reader, postgres_writer = await asyncio.open_unix_connection(self._socket)
            self.encrypted, self.plain = self.encrypted + (not first), self.plain + bool(first)
            postgres_writer.write(first)
            await asyncio.gather(_forward(reader, postgres_writer), _forward(postgres_reader, writer))
        writer.transport.abort()


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Forwards data until one side closes, and then closes the other one."""
    with suppress(OSError):
        while data := await reader.read(MAX_READ_BYTES):
            writer.write(data)
            await writer.drain()
    writer.close()
