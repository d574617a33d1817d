"""aiopg: connection settings, the start of a pool, and the execution of one statement.

Only this module, `shm.db.connection` and `shm.db.database` import aiopg. Numbers are returned as Decimal with all their
digits, jsonb as `msgspec.Raw` (unparsed text), bytea as memoryview, times in UTC.
"""

import asyncio
import errno
import logging
import os
import select
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiopg
import aiopg.connection
import msgspec
import psycopg2
from psycopg2.extensions import parse_dsn
from psycopg2.extras import register_default_jsonb

from shm.core.errors import DatabaseUnavailable
from shm.core.settings import Settings
from shm.db.connect_errors import check_dsn, describe_connect_error
from shm.db.driver_errors import CONNECTION_ERRORS
from shm.db.session import PIN_SESSION, SESSION_OPTIONS
from shm.db.statement_runner import Parameters, Result
from shm.db.statements import Statement

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 5.0  # aiopg's wait_closed can hang
START_RETRY_DELAY_S = 1.0  # between two attempts to connect at the start
LISTEN_CHECK_INTERVAL_S = 30.0  # without a notification for this long, a listener checks its connection

ACQUIRE_ERRORS = (*CONNECTION_ERRORS, AssertionError)  # aiopg's pool raises the latter when many connections are lost


class _Poll:
    """For aiopg in place of the module `select`: its function of that name refuses file descriptors from 1,024 on."""

    @staticmethod
    def select(descriptors: list[int], _writable: list[int], _exceptional: list[int], timeout_s: float) -> None:
        """Raises OSError (EBADF) for a descriptor that is not open. aiopg uses nothing else of the result."""
        poller = select.poll()
        for descriptor in descriptors:
            poller.register(descriptor, 0)
        if any(events & select.POLLNVAL for _, events in poller.poll(timeout_s * 1000)):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))


setattr(aiopg.connection, "select", _Poll)  # noqa: B010  # no type declares the name
register_default_jsonb(globally=True, loads=lambda text: msgspec.Raw(text.encode()))


async def connect_pool(settings: Settings, dsn: str, size: int) -> aiopg.Pool:
    """A pool of `size` connections. Waits up to `SHM_START_PATIENCE` for a database that is still starting."""
    check_dsn(dsn, settings.dsn_source)
    deadline = time.monotonic() + settings.start_patience.total_seconds()
    logged_problem = ""
    while True:
        try:
            return await aiopg.create_pool(
                dsn, minsize=size, maxsize=size, on_connect=_pin_session, **connect_options(settings, dsn)
            )
        except ACQUIRE_ERRORS as error:
            problem = describe_connect_error(error, settings.dsn_source)
            if time.monotonic() > deadline:
                raise DatabaseUnavailable(
                    f"PostgreSQL could not be reached within {settings.start_patience.total_seconds():.0f} s: {problem}"
                ) from None
            if problem != logged_problem:
                logger.info("waiting for PostgreSQL: %s", problem)
                logged_problem = problem
            await asyncio.sleep(START_RETRY_DELAY_S)


async def connect(dsn: str, **options: Any) -> aiopg.Connection:
    """A connection outside the pool. Raises the exceptions of `CONNECTION_ERRORS` and psycopg2.Error."""
    raw = await aiopg.connect(dsn, **options)
    await _pin_session(raw)
    return raw


async def _pin_session(raw: aiopg.Connection) -> None:
    try:
        async with open_cursor(raw) as cursor:
            await cursor.execute(PIN_SESSION)
    except BaseException:
        await raw.close()
        raise


def connect_options(settings: Settings, dsn: str) -> dict[str, Any]:
    """The arguments of aiopg.connect: time limits, keepalives and the session's parameters.

    The DSN's own `options` come first, so that they can name a schema (`-c search_path=...`) but change nothing else.
    """
    own_options = str(parse_dsn(dsn).get("options", ""))
    statement_ms = int(settings.statement_timeout.total_seconds() * 1000)
    return {
        # PostgreSQL's own time limit expires first.
        "timeout": settings.statement_timeout.total_seconds() + CLOSE_TIMEOUT_S,
        "enable_json": False,
        "enable_hstore": False,
        "enable_uuid": False,
        "application_name": "shm",
        "client_encoding": "UTF8",  # before PGCLIENTENCODING and the role's own
        "connect_timeout": 5,
        "tcp_user_timeout": 10_000,
        "keepalives_idle": 15,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "options": (
            f"{own_options} {SESSION_OPTIONS} -c statement_timeout={statement_ms} "
            "-c client_connection_check_interval=2000 -c idle_in_transaction_session_timeout=30000 -c jit=off "
            # PostgreSQL ends the session of a machine that lost power, and its advisory locks with it.
            "-c tcp_keepalives_idle=15 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
        ),
    }


@asynccontextmanager
async def open_cursor(raw: aiopg.Connection) -> AsyncIterator[aiopg.Cursor]:
    """A cursor that is freed with the context.

    aiopg's cursor is part of a reference cycle, which would keep the statement and its result until a collection.
    """
    async with raw.cursor() as cursor:
        try:
            yield cursor
        finally:
            cursor.__dict__.pop("_transaction", None)


async def execute(
    raw: aiopg.Connection, statement: Statement, parameters: Parameters | None, prepared: set[str], prefix: str = ""
) -> Result:
    """Runs a statement, after its preparation unless that is in `prepared`, the preparations of this connection."""
    async with open_cursor(raw) as cursor:
        if statement.preparation is not None and statement.preparation not in prepared:
            await cursor.execute(statement.preparation)
            prepared.add(statement.preparation)
        try:
            await cursor.execute(prefix + statement.sql, parameters)
        except ValueError as error:  # psycopg2 cannot represent a parameter, such as a text with NUL
            raise psycopg2.DataError(type(error).__name__) from None
        columns = [column.name for column in cursor.description or ()]
        rows = await cursor.fetchall() if columns else []
        return Result(columns, rows, max(0, cursor.rowcount))


async def wait_for_notifications(raw: aiopg.Connection, cursor: aiopg.Cursor) -> None:
    """Waits for notifications and discards all that are queued. Checks the connection while there are none."""
    while True:
        try:
            await asyncio.wait_for(raw.notifies.get(), LISTEN_CHECK_INTERVAL_S)
        except TimeoutError:
            await cursor.execute("SELECT 1")
            continue
        while not raw.notifies.empty():
            raw.notifies.get_nowait()
        return
