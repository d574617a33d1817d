"""A TCP load balancer before several servers: each new connection goes to the next one that accepts it."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from tests.support.tcp_proxy import TcpProxy, forward


class TcpBalancer(TcpProxy):
    """Balances between the servers at these ports."""

    def __init__(self, ports: Sequence[int]) -> None:
        super().__init__()
        self._ports = list(ports)
        self._next = 0

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self._next = (self._next + 1) % len(self._ports)
            for port in (*self._ports[self._next :], *self._ports[: self._next]):
                with suppress(OSError):
                    server = await asyncio.open_connection("127.0.0.1", port)
                    await asyncio.gather(forward(reader, server[1]), forward(server[0], writer))
                    return
        finally:
            writer.transport.abort()
