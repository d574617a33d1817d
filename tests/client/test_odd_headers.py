"""Headers of a response that are no numbers or dates: of a proxy, or of a server that is not SHM's."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from shm_client import Client
from shm_client.errors import InvalidResponseError, ServerUnavailableError
from tests.support.scripted_server import reply, run_scripted_server

MANY_DIGITS = "9" * 5_000  # more than Python converts to an integer
ODD_DATES = [
    "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
    "Mon, 01 Jan 2001 99999999999999999999:00:00 GMT",
    "Mon, 01 Jan 2001 00:00:00 +99999999999999999999",
    "Fri, 31 Dec 9999 23:59:59 -2359",
    f"Mon, 01 Jan {MANY_DIGITS} 00:00:00 GMT",
    MANY_DIGITS,
]


@asynccontextmanager
async def answering(status: int, **headers: str) -> AsyncIterator[Client]:
    """A client of a server that answers a request for instances with these headers and an empty list."""
    with run_scripted_server() as server:
        server.script("/api/v1/admin/instances?limit=10", reply(status, b"[]", **{"X_Feed_Cursor": "1", **headers}))
        async with Client(server.url, "token") as client:
            yield client


@pytest.mark.parametrize("date", ODD_DATES)
async def test_an_odd_date_does_not_move_the_clock(date: str) -> None:
    async with answering(200, Date=date) as client:
        assert (await client.instances(None, 10)).instances == []
        assert abs(client.server_time() - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize("date", ODD_DATES)
async def test_an_odd_retry_after_is_an_outage(date: str) -> None:
    async with answering(503, Retry_After=date) as client:
        with pytest.raises(ServerUnavailableError):
            await client.instances(None, 10)


@pytest.mark.parametrize("level", [MANY_DIGITS, "²", "-1", ""])
async def test_an_api_level_that_is_no_number_is_none(level: str) -> None:
    async with answering(200, X_API_Level=level) as client:
        assert (await client.instances(None, 10)).instances == []


@pytest.mark.parametrize("cursor", [MANY_DIGITS, "²", "-1", ""])
async def test_a_cursor_that_is_no_number_is_refused(cursor: str) -> None:
    async with answering(200, X_Feed_Cursor=cursor) as client:
        with pytest.raises(InvalidResponseError):
            await client.instances(None, 10)
