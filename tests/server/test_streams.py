"""An answer in pieces: whole or visibly broken off, and refused properly where it fails before its first piece."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import httpx
import msgspec
import pytest
import tornado.netutil
import tornado.web

from shm.auth.tokens import Role
from shm.core.errors import NotFound
from shm.core.instruments import Instruments
from shm.core.settings import Settings
from shm.core.shared_memory import WorkerSlots
from shm.db.database import Database
from shm.server.app import running_services
from shm.server.handlers.base import Handler
from shm.server.http.dispatcher import make_server
from shm.server.http.operations import Stream, operation
from shm.server.services import Services
from tests.support import plain_http

PIECES = 3
WAIT_LIMIT_S = 10


class Failing(msgspec.Struct, frozen=True):
    """After how many pieces it fails, if it does."""

    after: int = PIECES


class Pieces(Handler):
    """Some pieces."""

    @operation("listPieces", Role.PUBLIC, media=["text/csv"], refuses=[NotFound])
    async def get(self, query: Failing) -> Stream:
        """Some pieces, or a failure among them."""
        return Stream("text/csv", _pieces(query.after))


async def _pieces(after: int) -> AsyncGenerator[bytes, None]:
    for number in range(PIECES):
        if number == after:
            raise NotFound("gone", "It is gone.")
        yield b"%d\n" % number


@asynccontextmanager
async def served(dsn: str) -> AsyncIterator[tuple[str, Services]]:
    """The address of a server with these pieces."""
    settings = Settings()
    async with (
        Database.connect(settings, dsn, 1) as database,
        running_services(settings, database, database, Instruments(WorkerSlots(1))) as services,
    ):
        server = make_server(services, tornado.web.Application([("/pieces", Pieces, {"services": services})]), {})
        (listening,) = tornado.netutil.bind_sockets(0, "127.0.0.1")
        server.add_sockets([listening])
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/pieces", services
        server.stop()
        await server.close_all_connections()


async def test_pieces_come_as_one_answer(database: str) -> None:
    async with served(database) as (address, services), plain_http.AsyncClient() as client:
        response = await client.get(address)
        assert (response.status_code, response.text) == (200, "0\n1\n2\n")
        assert response.headers["Content-Type"] == "text/csv"
        assert (await client.head(address)).status_code == 200
        await asyncio.wait_for(services.idle.wait(), WAIT_LIMIT_S)


async def test_what_fails_before_its_first_piece_is_refused(database: str) -> None:
    async with served(database) as (address, services), plain_http.AsyncClient() as client:
        response = await client.get(address, params={"after": 0})
        assert (response.status_code, response.json()["code"]) == (404, "gone")
        await asyncio.wait_for(services.idle.wait(), WAIT_LIMIT_S)


async def test_what_fails_later_is_not_mistaken_for_a_whole_answer(database: str) -> None:
    async with served(database) as (address, services), plain_http.AsyncClient() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(address, params={"after": 2})
        await asyncio.wait_for(services.idle.wait(), WAIT_LIMIT_S)
