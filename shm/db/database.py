"""PostgreSQL from asyncio: the only module that imports aiopg. `shm.db.driver_errors` translates its exceptions.

After a lost connection a statement is retried for `SHM_DB_PATIENCE`, so every statement must be idempotent; then
DatabaseUnavailable is raised. At most `SHM_QUEUE` statements wait, which bounds the memory while PostgreSQL is
unavailable. Numbers are returned as Decimal with all their digits, jsonb as `msgspec.Raw` (unparsed text), bytea as
memoryview, times in UTC.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import aiopg
import msgspec
import psycopg2
from psycopg2.extras import register_default_jsonb

from shm.core.errors import DatabaseBusy, DatabaseFull, DatabaseUnavailable, QueryTooSlow
from shm.core.settings import Settings
from shm.db.advisory_locks import Lock
from shm.db.connect_errors import check_dsn, describe_connect_error
from shm.db.driver_errors import CONNECTION_ERRORS, READ_ONLY, is_cancelled, translate_errors
from shm.db.statement_runner import Parameters, Reader, Result, Row, StatementRunner
from shm.db.statements import Statement, statements

logger = logging.getLogger(__name__)

T = TypeVar("T")

MIN_RETRY_DELAY_S = 0.05  # a restarted PostgreSQL accepts connections after some tens of milliseconds
MAX_RETRY_DELAY_S = 1.0
DEDICATED_TIMEOUT_S = 86_400.0  # enough for a migration of a large table
CLOSE_TIMEOUT_S = 5.0  # aiopg's wait_closed can hang
LOCK_POLL_INTERVAL_S = 5.0  # between two attempts to get a lock; also the time limit of a check that it is held
LOCK_TIMEOUT_MS = 2_000  # how long a schema change waits for a table; all other statements on it wait behind
LISTEN_CHECK_INTERVAL_S = 30.0  # without a notification for this long, a listener checks its connection
LISTEN_BACKOFF_S = (0.1, 10.0)  # first and longest delay

ACQUIRE_ERRORS = (*CONNECTION_ERRORS, AssertionError)  # aiopg's pool raises the latter when many connections are lost

# All statements of such a transaction see the same snapshot, taken by the first one.
BEGIN_READ_TRANSACTION = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; "

# WITH HOLD: no transaction stays open between two pages. cursor_tuple_fraction: the plan is optimal for all rows.
DECLARE_CURSOR = "SET cursor_tuple_fraction = 1; DECLARE pages NO SCROLL CURSOR WITH HOLD FOR"

register_default_jsonb(globally=True, loads=lambda text: msgspec.Raw(text.encode()))


class Connection(StatementRunner):
    """A dedicated connection in autocommit mode: for migrations and for session state such as locks.

    Statements are not retried, because a lost connection loses its session.
    """

    def __init__(self, raw: aiopg.Connection) -> None:
        self._raw = raw
        self._prepared: set[str] = set()

    async def execute_sql(self, sql: str, description: str) -> list[Row]:
        """Runs one string of SQL without parameters and returns the rows of its last statement.

        `description` names it in errors, which also have PostgreSQL's message. Raises as `StatementRunner`.
        """
        with translate_errors(description, has_parameters=False):
            return list((await _execute(self._raw, Statement(sql), None, set())).rows)

    async def fetch_pages(
        self, shape: type[T], name: str, size: int, /, **parameters: object
    ) -> AsyncIterator[list[T]]:
        """Yields the rows of a named SELECT, `size` rows at a time, from a cursor that sees one snapshot.

        A connection can have one such cursor at a time; other statements may run between two pages. Raises as `fetch`.
        """
        await self._run_statement(Statement(f"{DECLARE_CURSOR} {statements()[name].sql}"), name, parameters)
        while page := (await self._run_statement(Statement(f"FETCH {size} FROM pages"), name, {})).rows_as(shape):
            yield page
        await self._run_statement(Statement("CLOSE pages"), name, {})

    async def _run(self, name: str, parameters: Parameters) -> Result:
        return await self._run_statement(statements()[name], name, parameters)

    async def _run_statement(self, statement: Statement, name: str, parameters: Parameters) -> Result:
        with translate_errors(name, has_parameters=bool(parameters)):
            return await _execute(self._raw, statement, parameters, self._prepared)


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
        self._patience_s = settings.database_patience.total_seconds()
        self._options = _connect_options(settings)
        self._dsn = dsn
        self._pool = pool
        self._prepared: WeakKeyDictionary[aiopg.Connection, set[str]] = WeakKeyDictionary()

    @classmethod
    @asynccontextmanager
    async def connect(cls, settings: Settings, dsn: str, size: int | None = None) -> AsyncIterator["Database"]:
        """Connects, waiting up to `SHM_START_PATIENCE` for a database that is still starting.

        The pool has `SHM_DB_POOL` connections, or `size`.
        """
        pool = await _connect_pool(settings, dsn, size or settings.pool)
        try:
            yield cls(settings, dsn, pool)
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

    async def read_consistently(self, read: Callable[[Reader], Awaitable[T]]) -> T:
        """The value of `read`, all of whose statements see one snapshot of the database and the same `now()`.

        For responses that need several statements, which would otherwise see different states. After a lost connection
        `read` is called again. It must await nothing but its statements, because it holds a connection of the pool.
        Raises as `fetch`.
        """

        async def in_transaction(raw: aiopg.Connection) -> T:
            transaction = _ReadTransaction(raw, self._execute)
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

    async def _with_connection(self, work: Callable[[aiopg.Connection], Awaitable[T]]) -> T:
        """Runs `work` on a connection of the pool; after a lost connection again, on another one."""
        if self._running_statements >= self._max_statements:
            raise DatabaseBusy(f"{self._max_statements} statements wait")
        self._running_statements += 1
        try:
            return await self._with_patience(work)
        finally:
            self._running_statements -= 1

    async def _with_patience(self, work: Callable[[aiopg.Connection], Awaitable[T]]) -> T:
        deadline = time.monotonic() + self._patience_s
        pause = MIN_RETRY_DELAY_S
        while True:
            try:
                return await self._attempt(work)
            except (DatabaseFull, QueryTooSlow):  # a retry would not help
                raise
            except DatabaseUnavailable:
                if time.monotonic() + pause > deadline:
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, MAX_RETRY_DELAY_S)

    async def _attempt(self, work: Callable[[aiopg.Connection], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(self._patience_s):  # unlike wait_for, it never loses a cancellation
                raw = await self._pool.acquire()
        except ACQUIRE_ERRORS as error:
            raise DatabaseUnavailable(describe_connect_error(error)) from None
        try:
            return await work(raw)
        finally:
            await self._pool.release(raw)

    async def _execute(self, raw: aiopg.Connection, name: str, parameters: Parameters, prefix: str = "") -> Result:
        """Runs a named statement. `prefix` is SQL that is sent in front of it in the same message."""
        prepared = self._prepared.setdefault(raw, set())
        with translate_errors(name, has_parameters=bool(parameters)):
            try:
                return await _execute(raw, statements()[name], parameters, prepared, prefix)
            except READ_ONLY:
                await raw.close()  # a new connection may reach the primary
                raise

    @asynccontextmanager
    async def dedicated_connection(self) -> AsyncIterator[Connection]:
        """A connection outside the pool, without statement_timeout, closed at the end of the context."""
        try:
            options = f"{self._options['options']} -c statement_timeout=0"
            raw = await aiopg.connect(self._dsn, **self._options | {"timeout": DEDICATED_TIMEOUT_S, "options": options})
        except CONNECTION_ERRORS as error:
            raise DatabaseUnavailable(describe_connect_error(error)) from None
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
        """A dedicated connection for schema changes, which holds `lock`, so that processes make them one by one.

        A change may take long, but waits at most `wait_ms` for a table in use, because other statements wait behind
        it; then DatabaseBusy is raised. Each string of SQL is a transaction.
        """
        async with self.dedicated_connection() as connection:
            await connection.execute_sql(f"SELECT pg_advisory_lock({lock})", f"lock {lock.name}")
            await connection.execute_sql(f"SET lock_timeout = {wait_ms}", "lock_timeout")
            yield connection

    async def listen(self, channel: str) -> AsyncIterator[None]:
        """Yields after each (re)connection and after each burst of notifications on `channel`; never ends by itself.

        The payloads are discarded: after each yield the caller reads the tables.
        """
        pause, max_pause = LISTEN_BACKOFF_S
        while True:
            try:
                async with aiopg.connect(self._dsn, **self._options) as raw, raw.cursor() as cursor:
                    await cursor.execute(f"LISTEN {channel}")
                    pause = LISTEN_BACKOFF_S[0]
                    while True:
                        yield
                        await _next_burst(raw, cursor)
            except asyncio.CancelledError:
                if is_cancelled():
                    raise
                logger.warning("the listener's connection did not respond in time")
            except (*ACQUIRE_ERRORS, psycopg2.Error) as error:
                reason = describe_connect_error(error)
                logger.warning("the listener lost its connection (%s), next try in %.1f s", reason, pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, max_pause)


class _ReadTransaction(Reader):
    """Statements in one transaction. BEGIN is sent with the first statement, in the same round trip."""

    def __init__(self, raw: aiopg.Connection, execute: Callable[..., Awaitable[Result]]) -> None:
        self._raw = raw
        self._execute = execute
        self._begin = BEGIN_READ_TRANSACTION

    async def _run(self, name: str, parameters: Parameters) -> Result:
        begin, self._begin = self._begin, ""
        return await self._execute(self._raw, name, parameters, begin)

    async def end(self) -> None:
        """Commits the transaction if it has begun."""
        if not self._begin:
            with translate_errors("COMMIT", has_parameters=False):
                await _execute(self._raw, Statement("COMMIT"), None, set())


@asynccontextmanager
async def _cursor(raw: aiopg.Connection) -> AsyncIterator[aiopg.Cursor]:
    """A cursor that is freed with the context.

    aiopg's cursor is part of a reference cycle, which would keep the statement and its result until a collection.
    """
    async with raw.cursor() as cursor:
        try:
            yield cursor
        finally:
            cursor.__dict__.pop("_transaction", None)


async def _execute(
    raw: aiopg.Connection, statement: Statement, parameters: Parameters | None, prepared: set[str], prefix: str = ""
) -> Result:
    """Runs a statement, after its preparation unless that is in `prepared`, the preparations of this connection."""
    async with _cursor(raw) as cursor:
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


async def _next_burst(raw: aiopg.Connection, cursor: aiopg.Cursor) -> None:
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


async def _connect_pool(settings: Settings, dsn: str, size: int) -> aiopg.Pool:
    check_dsn(dsn)
    deadline = time.monotonic() + settings.start_patience.total_seconds()
    logged_problem = ""
    while True:
        try:
            return await aiopg.create_pool(dsn, minsize=size, maxsize=size, **_connect_options(settings))
        except ACQUIRE_ERRORS as error:
            problem = describe_connect_error(error)
            if time.monotonic() > deadline:
                raise DatabaseUnavailable(
                    f"PostgreSQL could not be reached within {settings.start_patience.total_seconds():.0f} s: {problem}"
                ) from None
            if problem != logged_problem:
                logger.info("waiting for PostgreSQL: %s", problem)
                logged_problem = problem
            await asyncio.sleep(MAX_RETRY_DELAY_S)


def _connect_options(settings: Settings) -> dict[str, Any]:
    statement_ms = int(settings.statement_timeout.total_seconds() * 1000)
    return {
        "timeout": settings.statement_timeout.total_seconds()
        + CLOSE_TIMEOUT_S,  # PostgreSQL's own time limit expires first
        "enable_json": False,
        "enable_hstore": False,
        "enable_uuid": False,
        "application_name": "shm",
        "connect_timeout": 5,
        "tcp_user_timeout": 10_000,
        "keepalives_idle": 15,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "options": (
            f"-c timezone=UTC -c statement_timeout={statement_ms} -c client_connection_check_interval=2000 "
            "-c idle_in_transaction_session_timeout=30000 -c jit=off"
        ),
    }
