"""Translation of psycopg2's and aiopg's exceptions into SHM's.

A message of PostgreSQL may quote a value. It is kept only for statements without parameters and for SQLSTATE classes
whose messages name only tables, columns, roles and resources. DETAIL, HINT and CONTEXT are never kept. Of any
other failure only the exception's class, the SQLSTATE and the statement's name are kept.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2
import psycopg2.errors

from shm.core.errors import (
    DatabaseBusy,
    DatabaseFull,
    DatabaseUnavailable,
    PartitionMissing,
    QueryTooSlow,
    ShmError,
    StatementFailed,
    UnstorableData,
)

# Raised when a connection is lost. aiopg also raises OSError and TimeoutError.
CONNECTION_ERRORS = (psycopg2.OperationalError, psycopg2.InterfaceError, OSError, TimeoutError)
DRIVER_ERRORS = (psycopg2.Error, *CONNECTION_ERRORS)

# Raised by a server that has become a standby or is set read-only. A new connection may reach the primary.
READ_ONLY = psycopg2.errors.ReadOnlySqlTransaction

# PostgreSQL has no connection to another PostgreSQL: a coordinator of Citus to a worker. Where it has to begin a
# transaction there, Citus reports an internal error.
WORKER_LOST_SQLSTATES = frozenset({"08000", "08001", "08003", "08004", "08006"})
WORKER_LOST_MESSAGE = "failure on connection marked as essential"

# SQLSTATEs of class 22 (and one of 54) that a value of a request can cause. All others are faults of the server.
INVALID_VALUE_SQLSTATES = frozenset(
    {
        *("22001", "22003", "22007", "22008", "22021", "22023", "22030", "22032", "22P02", "22P03", "22P05"),
        "54000",  # for example a text that is too long for an index
    }
)

# SQLSTATE classes whose messages name schema objects and resources. Class 22, data exceptions, quotes values.
LOGGABLE_SQLSTATE_CLASSES = frozenset(
    {"0A", "23", "25", "28", "2B", "3D", "3F", "40", "42", "53", "54", "55", "57", "58"}
)


@contextmanager
def translate_errors(statement: str, *, has_parameters: bool) -> Iterator[None]:
    """Translates the driver's exceptions. `statement` is a name for the error message.

    aiopg reports a statement that PostgreSQL cancelled as CancelledError; this function distinguishes it from the
    cancellation of the task.
    """
    try:
        yield
    except asyncio.CancelledError:
        if is_cancelled():
            raise
        raise QueryTooSlow(f"{statement}: cancelled by PostgreSQL, probably by statement_timeout") from None
    except DRIVER_ERRORS as error:
        raise _translate(error, statement, has_parameters=has_parameters) from None


def is_cancelled() -> bool:
    """Whether the current task was cancelled by its owner."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _translate(error: Exception, statement: str, *, has_parameters: bool) -> ShmError:
    reason = f"{statement}: {_reason(error, has_parameters=has_parameters)}"
    match error:
        case psycopg2.errors.DiskFull():
            return DatabaseFull(reason)
        case psycopg2.errors.LockNotAvailable():
            return DatabaseBusy(reason)
        case psycopg2.errors.QueryCanceled():
            return QueryTooSlow(reason)
        case psycopg2.Error() if has_parameters and error.pgcode in INVALID_VALUE_SQLSTATES:
            return UnstorableData(reason)
        case psycopg2.DataError() if has_parameters and error.pgcode is None:  # raised by psycopg2 itself
            return UnstorableData(reason)
        case psycopg2.Error() if _is_worker_lost(error):
            return DatabaseUnavailable(
                f"{statement}: PostgreSQL cannot reach a worker of Citus, SQLSTATE {error.pgcode}"
            )
        case psycopg2.errors.CheckViolation() if not error.diag.constraint_name:
            return PartitionMissing(
                f"{statement}: no weekly partition exists for the time of a row. A restart of the server creates the "
                "missing ones; an earlier line of the log says why the background job could not."
            )
        case READ_ONLY() | psycopg2.OperationalError() | psycopg2.InterfaceError() | OSError():
            return DatabaseUnavailable(reason)
    return StatementFailed(reason)


def _is_worker_lost(error: psycopg2.Error) -> bool:
    """A connection that this process has lost has no SQLSTATE."""
    is_essential = (error.diag.message_primary or "").startswith(WORKER_LOST_MESSAGE)
    return error.pgcode in WORKER_LOST_SQLSTATES or (isinstance(error, psycopg2.errors.InternalError_) and is_essential)


def _reason(error: Exception, *, has_parameters: bool) -> str:
    kind = type(error).__name__
    if not isinstance(error, psycopg2.Error) or error.pgcode is None:
        return kind
    message = error.diag.message_primary
    if message and not has_parameters and error.pgcode[:2] in LOGGABLE_SQLSTATE_CLASSES:
        return f"{message} ({kind}, SQLSTATE {error.pgcode})"
    return f"{kind}, SQLSTATE {error.pgcode}"
