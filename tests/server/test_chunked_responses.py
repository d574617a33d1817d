"""A chunked response: complete or visibly incomplete, and an error response if it fails before its first chunk."""

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

CHUNKS = 3
WAIT_TIMEOUT_S = 60


class FailureQuery(msgspec.Struct, frozen=True):
    """The number of chunks before a failure; `CHUNKS` for none."""

    after: int = CHUNKS


class Chunks(Handler):
    """A chunked response."""

    @operation("listChunks", Role.PUBLIC, media_types=["text/csv"], refuses=[NotFound])
    async def get(self, query: FailureQuery) -> Stream:
        """Some chunks, or a failure after some of them."""
        return Stream("text/csv", _chunks(query.after))


async def _chunks(after: int) -> AsyncGenerator[bytes, None]:
    for number in range(CHUNKS):
        if number == after:
            raise NotFound("gone", "It does not exist.")
        yield b"%d\n" % number


@asynccontextmanager
async def running_server(dsn: str) -> AsyncIterator[tuple[str, Services]]:
    """The URL of the chunked response, on a running server."""
    settings = Settings()
    async with (
        Database.connect(settings, dsn, 1) as database,
        running_services(settings, database, database, Instruments(WorkerSlots(1))) as services,
    ):
        server = make_server(services, tornado.web.Application([("/pieces", Chunks, {"services": services})]), {})
        (listening,) = tornado.netutil.bind_sockets(0, "127.0.0.1")
        server.add_sockets([listening])
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/pieces", services
        server.stop()
        await server.close_all_connections()


async def test_chunks_form_one_response(database: str) -> None:
    async with running_server(database) as (url, services), plain_http.AsyncClient() as client:
        response = await client.get(url)
        assert (response.status_code, response.text) == (200, "0\n1\n2\n")
        assert response.headers["Content-Type"] == "text/csv"
        assert (await client.head(url)).status_code == 200
        await asyncio.wait_for(services.idle.wait(), WAIT_TIMEOUT_S)


async def test_a_failure_before_the_first_chunk_gets_an_error_status(database: str) -> None:
    async with running_server(database) as (url, services), plain_http.AsyncClient() as client:
        response = await client.get(url, params={"after": 0})
        assert (response.status_code, response.json()["code"]) == (404, "gone")
        await asyncio.wait_for(services.idle.wait(), WAIT_TIMEOUT_S)


async def test_a_later_failure_makes_the_response_visibly_incomplete(database: str) -> None:
    async with running_server(database) as (url, services), plain_http.AsyncClient() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(url, params={"after": 2})
        await asyncio.wait_for(services.idle.wait(), WAIT_TIMEOUT_S)
