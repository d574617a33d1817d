"""The exceptions of the server and the HTTP response to each.

ShmError
├── ConfigurationError           ends the start; its message is printed
├── DatabaseUnavailable          503, Retry-After
│   ├── DatabaseBusy             503
│   ├── DatabaseFull             503
│   ├── PartitionMissing         503
│   └── QueryTooSlow             503
├── UnstorableData               a value that PostgreSQL refuses; the members of its batch are retried one by one
├── StatementFailed              500; PostgreSQL refused a statement for another reason
└── Refusal                      a 4xx or 5xx response, as application/problem+json (RFC 9457)
    ├── BadRequest        400    ├── RequestTimeout    408    ├── HeadersTooLarge  431
    │   └── BadTimestamp  400    ├── Conflict          409    ├── TooManyRequests  429, Retry-After
    ├── Unauthorized      401    ├── PayloadTooLarge   413    ├── Overloaded       503, Retry-After
    ├── Forbidden         403    ├── UrlTooLong        414    └── BadGateway       502
    ├── NotFound          404
    ├── MethodNotAllowed  405

The log shows the messages of `is_loggable` errors only: these contain no data that an install sent. A refusal's `code`
is stable and meant for programs. Its `detail` says what is wrong, where it is, and what is expected.
"""

from datetime import datetime
from http import HTTPStatus
from typing import ClassVar


class ShmError(Exception):
    """The base of all exceptions that SHM raises itself."""

    is_loggable: ClassVar[bool] = False  # whether the message is free of data that an install sent


class ConfigurationError(ShmError):
    """A command cannot start or continue. The message is a sentence for the user at the terminal."""

    is_loggable = True


class DatabaseUnavailable(ShmError):
    """PostgreSQL is unreachable, or the connection was lost and not restored within `SHM_DB_PATIENCE`."""

    is_loggable = True


class DatabaseBusy(DatabaseUnavailable):
    """Too many statements wait for PostgreSQL, or a schema change did not get the lock of a table in use."""


class DatabaseFull(DatabaseUnavailable):
    """PostgreSQL's disk is full: data can be read but not written."""


class PartitionMissing(DatabaseUnavailable):
    """No partition exists for the time of a snapshot. The message names the remedy."""


class QueryTooSlow(DatabaseUnavailable):
    """PostgreSQL cancelled a statement that exceeded `statement_timeout`."""


class UnstorableData(ShmError):
    """PostgreSQL refused a value that had passed the validation of the payload."""

    is_loggable = True


class StatementFailed(ShmError):
    """PostgreSQL refused a statement: a missing privilege, an unexpected schema, or a bug in SHM."""

    is_loggable = True


class Refusal(ShmError):
    """An error response. `headers` are added to it."""

    status: ClassVar[HTTPStatus]

    def __init__(self, code: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.headers = headers or {}


class BadRequest(Refusal):
    """The request is malformed or exceeds a limit."""

    status = HTTPStatus.BAD_REQUEST


class BadTimestamp(BadRequest):
    """A timestamp is too far from the server's clock. The response has the server's time, so a client can adjust."""

    def __init__(self, code: str, detail: str, server_time: datetime) -> None:
        super().__init__(code, detail)
        self.server_time = server_time


class Unauthorized(Refusal):
    """The token or the signature is missing or invalid."""

    status = HTTPStatus.UNAUTHORIZED


class Forbidden(Refusal):
    """The caller is authenticated and not allowed to do this."""

    status = HTTPStatus.FORBIDDEN


class NotFound(Refusal):
    """The resource does not exist."""

    status = HTTPStatus.NOT_FOUND


class MethodNotAllowed(Refusal):
    """The path exists and does not support the method."""

    status = HTTPStatus.METHOD_NOT_ALLOWED


class RequestTimeout(Refusal):
    """The headers or the body did not arrive in time."""

    status = HTTPStatus.REQUEST_TIMEOUT


class Conflict(Refusal):
    """The request contradicts stored data."""

    status = HTTPStatus.CONFLICT


class PayloadTooLarge(Refusal):
    """The body exceeds its size limit."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class UrlTooLong(Refusal):
    """The request's target exceeds its size limit."""

    status = HTTPStatus.REQUEST_URI_TOO_LONG


class HeadersTooLarge(Refusal):
    """The headers exceed their size limit."""

    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE


class TooManyRequests(Refusal):
    """A rate limit is exceeded. `Retry-After` says when the next request is accepted."""

    status = HTTPStatus.TOO_MANY_REQUESTS

    def __init__(self, code: str, detail: str, retry_after_s: int, headers: dict[str, str] | None = None) -> None:
        super().__init__(code, detail, {**(headers or {}), "Retry-After": str(max(1, retry_after_s))})


class BadGateway(Refusal):
    """Another server, which this one asked on behalf of the request, did not answer or refused."""

    status = HTTPStatus.BAD_GATEWAY


class Overloaded(Refusal):
    """Temporarily unable: the queue is full, the database is unavailable, or the server shuts down or is overloaded.

    `Retry-After` says when to try again.
    """

    status = HTTPStatus.SERVICE_UNAVAILABLE

    def __init__(self, code: str, detail: str, retry_after_s: int = 5, headers: dict[str, str] | None = None) -> None:
        super().__init__(code, detail, {**(headers or {}), "Retry-After": str(retry_after_s)})
