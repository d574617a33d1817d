"""A bad network between subscribers and a server: it carries bytes, and delays, splits, cuts and loses them.

In the test's own loop, by its own chance. What it does is told by its attributes, which may change at any time.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from random import Random

LARGEST_READ = 65_536
CLOSE_LIMIT_S = 5


class ByteProxy:
    """Listens on `port` and carries to and from another one."""

    def __init__(self, target: int, chance: Random) -> None:
        self._target = target
        self._chance = chance
        self._open: set[asyncio.StreamWriter] = set()
        self._mute: set[asyncio.StreamWriter] = set()
        self._carrying: set[asyncio.Task[None]] = set()
        self.port = 0
        self.largest_piece = LARGEST_READ  # bytes go on in pieces of one byte up to so many
        self.longest_delay_s = 0.0  # of a piece
        self.cut_after: tuple[int, int] | None = None  # a connection ends after so many bytes to the client, about
        self.flows = asyncio.Event()  # while it is not set, nothing goes on and nothing is lost
        self.flows.set()
        self.cuts = 0
        self.hung_up = 0  # connections that the server ended

    def mute_all(self) -> None:
        """From now on all that is sent on the connections of now is lost, and nobody is told."""
        self._mute |= self._open

    def cut_all(self) -> None:
        """Ends all connections on both sides, in the middle of whatever they carry."""
        for writer in self._open:
            writer.transport.abort()
            self.cuts += 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ByteProxy"]:
        """Listens as long as the context lasts."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut_all()
            for task in self._carrying:
                task.cancel()
            await asyncio.gather(*self._carrying, return_exceptions=True)
            await asyncio.wait_for(server.wait_closed(), CLOSE_LIMIT_S)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._carrying.add(task)
        try:
            with suppress(OSError):
                there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
                await self._carry_both((reader, writer), (there_reader, there_writer))
        finally:
            self._carrying.discard(task)
            writer.transport.abort()

    async def _carry_both(
        self,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        writers = {client[1], server[1]}
        self._open |= writers
        left = None if self.cut_after is None else self._chance.randint(*self.cut_after)
        there = asyncio.create_task(self._carry(client[0], server[1], None))
        back = asyncio.create_task(self._carry(server[0], client[1], left))
        try:
            await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
            self.hung_up += server[0].at_eof()
        finally:
            self._open -= writers
            self._mute -= writers
            for task in (there, back):
                task.cancel()
            await asyncio.gather(there, back, return_exceptions=True)
            for writer in writers:
                writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: int | None) -> None:
        with suppress(OSError):
            while content := await reader.read(LARGEST_READ):
                while content:
                    piece = content[: self._chance.randint(1, self.largest_piece)]
                    content = content[len(piece) :]
                    if left is not None:
                        piece = piece[:left]
                        left -= len(piece)
                    await asyncio.sleep(self._chance.uniform(0, self.longest_delay_s))
                    await self.flows.wait()
                    if writer not in self._mute:
                        writer.write(piece)
                        await writer.drain()
                    if left == 0:
                        self.cuts += 1
                        return
