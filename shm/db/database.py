"""A pool of connections to PostgreSQL, for asyncio.

After a lost connection a statement is retried for `SHM_DB_PATIENCE`, so every statement must be idempotent; then
DatabaseUnavailable is raised. At most `SHM_QUEUE` statements wait, which bounds the memory while PostgreSQL is
unavailable. Column types are described in `shm.db.driver`, exceptions are translated by `shm.db.driver_errors`.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar
from weakref import WeakKeyDictionary

import aiopg
import psycopg2

from shm.core.errors import DatabaseBusy, DatabaseFull, DatabaseUnavailable, PartitionMissing, QueryTooSlow
from shm.core.logs import RateLimitedLogger
from shm.core.settings import Settings
from shm.db.advisory_locks import Lock
from shm.db.clock import DatabaseClock
from shm.db.connect_errors import describe_connect_error
from shm.db.connection import Connection
from shm.db.driver import (
    ACQUIRE_ERRORS,
    CLOSE_TIMEOUT_S,
    connect,
    connect_options,
    connect_pool,
    execute,
    wait_for_notifications,
)
from shm.db.driver_errors import CONNECTION_ERRORS, READ_ONLY, is_cancelled, translate_errors
from shm.db.statement_runner import Parameters, Reader, Result, StatementRunner
from shm.db.statements import Statement, statements

logger = logging.getLogger(__name__)
rate_limited = RateLimitedLogger(logger)

T = TypeVar("T")

MIN_RETRY_DELAY_S = 0.05  # a restarted PostgreSQL accepts connections after some tens of milliseconds
MAX_RETRY_DELAY_S = 1.0
DEDICATED_TIMEOUT_S = 86_400.0  # enough for a migration of a large table
LOCK_POLL_INTERVAL_S = 5.0  # between two attempts to get a lock; also the time limit of a check that it is held
LOCK_TIMEOUT_MS = 2_000  # how long a schema change waits for a table; all other statements on it wait behind
LISTEN_BACKOFF_S = (0.1, 10.0)  # first and longest delay

# All statements of such a transaction see the same snapshot, taken by the first one.
BEGIN_READ_TRANSACTION = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; "


@dataclass(frozen=True, slots=True)
class PoolUsage:
    """The numbers of used connections (including those being opened), free connections and waiting statements."""

    used: int
    free: int
    waiting: int


class Database(StatementRunner):
    """A pool of connections to one database. Each statement is a transaction."""

    def __init__(self, settings: Settings, dsn: str, pool: aiopg.Pool) -> None:
        self._max_statements = settings.queue
        self._running_statements = 0
        self._retry_timeout_s = settings.database_patience.total_seconds()
        self._options = connect_options(settings, dsn)
        self._dsn = dsn
        self.dsn_source = settings.dsn_source
        self._pool = pool
        self._prepared: WeakKeyDictionary[aiopg.Connection, set[str]] = WeakKeyDictionary()
        self.clock = DatabaseClock(self._read_clock)

    @classmethod
    @asynccontextmanager
    async def connect(cls, settings: Settings, dsn: str, size: int | None = None) -> AsyncIterator["Database"]:
        """Connects, waiting up to `SHM_START_PATIENCE` for a database that is still starting.

        The pool has `SHM_DB_POOL` connections, or `size`.
        """
        pool = await connect_pool(settings, dsn, size or settings.pool)
        try:
            database = cls(settings, dsn, pool)
            await database.clock.measure()
            yield database
        finally:
            pool.terminate()
            try:
                await asyncio.wait_for(pool.wait_closed(), CLOSE_TIMEOUT_S)
            except TimeoutError:
                logger.warning("the connection pool did not close within %d s", CLOSE_TIMEOUT_S)

    @property
    def usage(self) -> PoolUsage:
        """The current usage of the pool."""
        free: int = self._pool.freesize
        used = self._pool.size - free
        return PoolUsage(used, free, max(0, self._running_statements - used))

    async def read_consistently(self, read: Callable[[Reader], Awaitable[T]], limit_s: float | None = None) -> T:
        """Calls `read` in a transaction in which all statements see one snapshot of the database and the same `now()`.

        For responses that need several statements, which would otherwise see different states. After a lost connection
        `read` is called again. It must await only its statements, because it occupies a connection of the pool.
        Raises as `fetch`: also QueryTooSlow if the statements together take longer than `limit_s`.
        """
        deadline = None if limit_s is None else time.monotonic() + limit_s

        async def in_transaction(raw: aiopg.Connection) -> T:
            transaction = _ReadTransaction(raw, self._execute, deadline)
            try:
                value = await read(transaction)
                await transaction.end()
            except BaseException:
                await raw.close()  # ends the transaction, whatever its state
                raise
            return value

        return await self._with_connection(in_transaction)

    async def _run(self, name: str, parameters: Parameters) -> Result:
        return await self._with_connection(lambda raw: self._execute(raw, name, parameters))

    async def _read_clock(self) -> tuple[datetime, datetime, datetime]:
        """PostgreSQL's time, between this machine's times before and after the statement."""

        async def read(raw: aiopg.Connection) -> tuple[datetime, datetime, datetime]:
            before = datetime.now(UTC)
            ((database_time,),) = (await self._execute(raw, "health.read_clock", {})).rows
            assert isinstance(database_time, datetime)  # noqa: S101 - the type of clock_timestamp()
            return before, database_time, datetime.now(UTC)

        return await self._with_connection(read)

    async def _with_connection(self, action: Callable[[aiopg.Connection], Awaitable[T]]) -> T:
        """Runs `action` on a connection of the pool; after a lost connection again, on another one."""
        if self._running_statements >= self._max_statements:
            raise DatabaseBusy(f"{self._max_statements} statements wait for a connection")
        self._running_statements += 1
        try:
            return await self._retry(action)
        finally:
            self._running_statements -= 1

    async def _retry(self, action: Callable[[aiopg.Connection], Awaitable[T]]) -> T:
        deadline = time.monotonic() + self._retry_timeout_s
        delay_s = MIN_RETRY_DELAY_S
        while True:
            try:
                return await self._attempt(action)
            except (DatabaseFull, PartitionMissing, QueryTooSlow):  # a retry would not help
                raise
            except DatabaseUnavailable:
                if time.monotonic() + delay_s > deadline:
                    raise
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, MAX_RETRY_DELAY_S)

    async def _attempt(self, action: Callable[[aiopg.Connection], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(self._retry_timeout_s):  # unlike wait_for, it never loses a cancellation
                raw = await self._pool.acquire()
        except ACQUIRE_ERRORS as error:
            raise DatabaseUnavailable(describe_connect_error(error, self.dsn_source)) from None
        try:
            return await action(raw)
        finally:
            await self._pool.release(raw)

    async def _execute(self, raw: aiopg.Connection, name: str, parameters: Parameters, prefix: str = "") -> Result:
        """Runs a named statement. `prefix` is SQL that is sent in front of it in the same message."""
        prepared = self._prepared.setdefault(raw, set())
        with translate_errors(name, has_parameters=bool(parameters)):
            try:
                return await execute(raw, statements()[name], parameters, prepared, prefix)
            except READ_ONLY:
                await raw.close()  # a new connection may reach the primary
                raise

    @asynccontextmanager
    async def dedicated_connection(self) -> AsyncIterator[Connection]:
        """A connection outside the pool, without statement_timeout, closed at the end of the context."""
        try:
            options = f"{self._options['options']} -c statement_timeout=0"
            raw = await connect(self._dsn, **self._options | {"timeout": DEDICATED_TIMEOUT_S, "options": options})
        except CONNECTION_ERRORS as error:
            raise DatabaseUnavailable(describe_connect_error(error, self.dsn_source)) from None
        try:
            yield Connection(raw)
        finally:
            await raw.close()

    @asynccontextmanager
    async def leader_lock(self, lock: Lock) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """Waits until no other process on this database holds `lock`, then holds it on a dedicated connection.

        Yields a function that returns while the lock is held, and raises DatabaseUnavailable once it is lost.
        """
        async with self.dedicated_connection() as connection:
            try_lock = f"SELECT pg_try_advisory_lock({lock})"
            while await connection.execute_sql(try_lock, f"lock {lock.name}") != [(True,)]:  # noqa: ASYNC110
                await asyncio.sleep(LOCK_POLL_INTERVAL_S)

            async def check_held() -> None:
                description = f"check of lock {lock.name}"
                with translate_errors(description, has_parameters=False):
                    await asyncio.wait_for(connection.execute_sql("SELECT 1", description), LOCK_POLL_INTERVAL_S)

            yield check_held

    @asynccontextmanager
    async def schema_change_connection(self, lock: Lock, wait_ms: int = LOCK_TIMEOUT_MS) -> AsyncIterator[Connection]:
        """A dedicated connection for schema changes. It holds `lock`, so that only one process at a time makes them.

        A change may take long, but waits at most `wait_ms` for a table in use, because other statements wait behind
        it; then DatabaseBusy is raised. Each string of SQL is a transaction.
        """
        async with self.dedicated_connection() as connection:
            await connection.execute_sql(f"SELECT pg_advisory_lock({lock})", f"lock {lock.name}")
            await connection.execute_sql(f"SET lock_timeout = {wait_ms}", "lock_timeout")
            yield connection

    async def listen(self, channel: str) -> AsyncIterator[None]:
        """Yields after each (re)connection and after each burst of notifications on `channel`, until cancelled.

        The payloads are discarded: after each yield the caller reads the tables.
        """
        delay_s, max_delay_s = LISTEN_BACKOFF_S
        while True:
            try:
                async with await connect(self._dsn, **self._options) as raw, raw.cursor() as cursor:
                    await cursor.execute(f"LISTEN {channel}")
                    delay_s = LISTEN_BACKOFF_S[0]
                    while True:
                        yield
                        await wait_for_notifications(raw, cursor)
            except asyncio.CancelledError:
                if is_cancelled():
                    raise
                rate_limited.warning("the listener's connection did not respond in time")
            except (*ACQUIRE_ERRORS, psycopg2.Error) as error:
                rate_limited.warning("the listener lost its connection", describe_connect_error(error, self.dsn_source))
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, max_delay_s)


class _ReadTransaction(Reader):
    """Statements in one transaction. BEGIN is sent with the first statement, in the same round trip."""

    def __init__(
        self, raw: aiopg.Connection, execute: Callable[..., Awaitable[Result]], deadline: float | None
    ) -> None:
        self._raw = raw
        self._execute = execute
        self._deadline = deadline
        self._begin = BEGIN_READ_TRANSACTION

    async def _run(self, name: str, parameters: Parameters) -> Result:
        timeout = self._limit_statement(name)
        begin, self._begin = self._begin, ""
        return await self._execute(self._raw, name, parameters, begin + timeout)

    def _limit_statement(self, name: str) -> str:
        """The setting that limits a statement to the rest of the time. Raises QueryTooSlow if there is none."""
        if self._deadline is None:
            return ""
        remaining_ms = int((self._deadline - time.monotonic()) * 1000)
        if remaining_ms <= 0:  # PostgreSQL takes 0 for no limit
            raise QueryTooSlow(f"{name}: no time is left for it")
        return f"SET LOCAL statement_timeout = {remaining_ms}; "

    async def end(self) -> None:
        """Commits the transaction if it has begun."""
        if not self._begin:
            with translate_errors("COMMIT", has_parameters=False):
                await execute(self._raw, Statement("COMMIT"), None, set())
