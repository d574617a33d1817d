"""Problem documents: every refusal is RFC 9457 with a stable code, and none shows internals."""

import logging
from http import HTTPStatus

import msgspec

from shm.core.errors import (
    BadRequest,
    BadTimestamp,
    DatabaseBusy,
    DatabaseFull,
    DatabaseUnavailable,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    PartitionMissing,
    QueryTooSlow,
    Refusal,
    UnstorableData,
)
from shm.core.json_types import Timestamp
from shm.core.logs import RateLimitedLogger

CONTENT_TYPE = "application/problem+json"

# These hide the library's name, and forbid content sniffing and caching.
FIXED_HEADERS = {"Server": "shm", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}

FULL_RETRY_S = 60  # an operator has to free disk space first

logger = logging.getLogger(__name__)
rate_limited = RateLimitedLogger(logger)

_encoder = msgspec.json.Encoder()


class Problem(msgspec.Struct):
    """A problem document (RFC 9457) with a stable `code` for programs.

    `server_time`: for a timestamp that is too far from it.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    server_time: Timestamp | msgspec.UnsetType = msgspec.UNSET


def body_of(refusal: Refusal) -> bytes:
    """A refusal's problem document as JSON."""
    problem = Problem(
        f"urn:shm:problem:{refusal.code}",
        *(refusal.status.phrase, refusal.status.value, refusal.detail, refusal.code),
        server_time=refusal.server_time if isinstance(refusal, BadTimestamp) else msgspec.UNSET,
    )
    return _encoder.encode(problem)


def log(request_name: str, error: BaseException) -> None:
    """Logs an error without the request, which contains the client's address. `request_name` is the handler."""
    if isinstance(error, Refusal | UnstorableData):
        logger.debug("%s: refused, %s", request_name, refusal_for(error).code)
        return
    if isinstance(error, DatabaseUnavailable):
        rate_limited.warning(f"{request_name}: the database is unavailable, full or too slow", str(error))
        return
    rate_limited.exception(f"{request_name} failed with {type(error).__name__}", error)


class Internal(Refusal):
    """A fault of the server. The server's log has the error."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR


def refusal_for(error: BaseException | None, status_code: int = HTTPStatus.INTERNAL_SERVER_ERROR) -> Refusal:
    """The refusal for an error. `status_code` is the status that Tornado chose."""
    match error:
        case Refusal():
            return error
        case DatabaseBusy():
            return Overloaded("queue_full", "Too many requests wait for the database; try again shortly.")
        case DatabaseFull():
            return Overloaded("database_full", "The database's disk is full; stored data is intact.", FULL_RETRY_S)
        case PartitionMissing():
            return Overloaded(
                "database_incomplete", "The database has no place for a snapshot of this time yet.", FULL_RETRY_S
            )
        case QueryTooSlow():
            return Overloaded("database_too_slow", "The database exceeded its time limit for this request.")
        case UnstorableData():
            return BadRequest("unstorable", "A value in this request cannot be stored in the database.")
        case DatabaseUnavailable():
            return Overloaded("database_unavailable", "The database is unavailable; acknowledged data is not lost.")
    if status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return MethodNotAllowed("method_not_allowed", "This path does not support the method.")
    if status_code == HTTPStatus.NOT_FOUND:
        return NotFound("no_such_address", "This path does not exist.")
    if HTTPStatus.BAD_REQUEST <= status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
        return BadRequest("bad_request", "The request is malformed.")
    return Internal("internal_error", "An internal error occurred; the server's log has the details.")
