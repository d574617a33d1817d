"""TLS for a PostgreSQL that has none: a proxy that ends TLS, as a PostgreSQL with `ssl = on`, and forwards the rest.

Clients without TLS are served too, as by a `host` line of pg_hba.conf.
"""

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path

from tests.support.tcp_proxy import TcpProxy, forward
from tests.support.tls import create_tls

SSL_REQUEST = bytes.fromhex("0000000804d2162f")
GSS_REQUEST = bytes.fromhex("0000000804d21630")


class PostgresTls(TcpProxy):
    """Counts the connections with and without TLS."""

    def __init__(self, socket: Path, folder: Path) -> None:
        super().__init__()
        self._socket = socket
        self._tls: ssl.SSLContext = create_tls(folder).context
        self.encrypted = 0
        self.plain = 0

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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
            await asyncio.gather(forward(reader, postgres_writer), forward(postgres_reader, writer))
        writer.transport.abort()
