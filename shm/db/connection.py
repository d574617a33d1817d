"""A dedicated connection, for migrations and for session state such as locks."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import aiopg

from shm.db.driver import execute
from shm.db.driver_errors import translate_errors
from shm.db.statement_runner import Parameters, Result, Row, StatementRunner
from shm.db.statements import Statement, original_statements, statements

T = TypeVar("T")

# WITH HOLD: no transaction stays open between two pages. cursor_tuple_fraction: the plan is optimal for all rows.
DECLARE_CURSOR = "SET cursor_tuple_fraction = 1; DECLARE pages NO SCROLL CURSOR WITH HOLD FOR"


class Connection(StatementRunner):
    """A dedicated connection in autocommit mode.

    Statements are not retried, because a lost connection loses its session.
    """

    def __init__(self, raw: aiopg.Connection) -> None:
        self._raw = raw
        self._prepared: set[str] = set()

    @property
    def sslmode(self) -> str:
        """The sslmode that connects another program no less safely: with TLS, if this connection has it."""
        info = self._raw.raw.info
        sslmode = str(info.dsn_parameters["sslmode"])
        return "require" if info.ssl_in_use and sslmode in ("allow", "prefer") else sslmode

    async def execute_sql(self, sql: str, description: str) -> list[Row]:
        """Runs one string of SQL without parameters and returns the rows of its last statement.

        `description` names it in errors, which also have PostgreSQL's message. Raises as `StatementRunner`.
        """
        with translate_errors(description, has_parameters=False):
            return list((await execute(self._raw, Statement(sql), None, set())).rows)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """A transaction: committed at the end of the context. If the context raises, the connection is closed."""
        await self.execute_sql("BEGIN", "BEGIN")
        try:
            yield
        except BaseException:
            await self._raw.close()
            raise
        await self.execute_sql("COMMIT", "COMMIT")

    async def fetch_pages(
        self, row_type: type[T], name: str, size: int, /, **parameters: object
    ) -> AsyncIterator[list[T]]:
        """Yields the rows of a named SELECT, `size` rows at a time, from a cursor that sees one snapshot.

        A connection can have one such cursor at a time; other statements may run between two pages. Raises as `fetch`.
        """
        await self._run_statement(Statement(f"{DECLARE_CURSOR} {statements()[name].sql}"), name, parameters)
        while page := (await self._run_statement(Statement(f"FETCH {size} FROM pages"), name, {})).rows_as(row_type):
            yield page
        await self._run_statement(Statement("CLOSE pages"), name, {})

    async def fetch_original(self, row_type: type[T], name: str, /, **parameters: object) -> list[T]:
        """As `fetch`, for a statement of sql/original: the connection is to a database of the original server."""
        return (await self._run_statement(original_statements()[name], name, parameters)).rows_as(row_type)

    async def _run(self, name: str, parameters: Parameters) -> Result:
        return await self._run_statement(statements()[name], name, parameters)

    async def _run_statement(self, statement: Statement, name: str, parameters: Parameters) -> Result:
        with translate_errors(name, has_parameters=bool(parameters)):
            return await execute(self._raw, statement, parameters, self._prepared)
