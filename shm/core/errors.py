"""The exceptions of the server and what HTTP answers for each.

ShmError
├── ConfigurationError           the start ends with its sentence
├── DatabaseUnavailable          503, Retry-After
│   ├── DatabaseBusy             503
│   ├── DatabaseFull             503
│   └── QueryTooSlow             503
├── UnstorableData               a value that PostgreSQL refuses; its batch is tried apart
├── StatementFailed              500; PostgreSQL refused a statement for another reason
└── Refusal                      an answer in the 4xx or 5xx, as application/problem+json (RFC 9457)
    ├── BadRequest    400        ├── MethodNotAllowed  405    ├── HeadersTooLarge  431
    ├── Unauthorized  401        ├── TooSlow           408    ├── TooMany          429, Retry-After
    ├── Forbidden     403        ├── Conflict          409    └── Overloaded       503, Retry-After
    ├── NotFound      404        ├── TooLarge          413

The messages of all but refusals hold nothing that an install sent (`is_loggable`); the log shows those, and no others.
A refusal's `code` is stable and made for programs; its `detail` says what is wrong, where, and what was wanted.
"""

from http import HTTPStatus
from typing import ClassVar


class ShmError(Exception):
    """Whatever SHM raises on purpose."""

    is_loggable: ClassVar[bool] = False  # whether the message can hold nothing that an install sent


class ConfigurationError(ShmError):
    """The start cannot go on; the message is a sentence for the person at the terminal."""

    is_loggable = True


class DatabaseUnavailable(ShmError):
    """PostgreSQL could not be reached, or went away and did not come back within the patience."""

    is_loggable = True


class DatabaseBusy(DatabaseUnavailable):
    """Too many statements wait for PostgreSQL already, or a change of the schema for a table that is in use."""


class DatabaseFull(DatabaseUnavailable):
    """PostgreSQL's disk is full: what it has can be read, and nothing can be added."""


class QueryTooSlow(DatabaseUnavailable):
    """A statement went past `statement_timeout` and was cancelled by PostgreSQL."""


class UnstorableData(ShmError):
    """PostgreSQL refused a value that the envelope let through."""

    is_loggable = True


class StatementFailed(ShmError):
    """PostgreSQL refused a statement: a missing right, a schema that is not as expected, or a bug of ours."""

    is_loggable = True


class Refusal(ShmError):
    """An answer other than success. `headers` are added to the response."""

    status: ClassVar[HTTPStatus]

    def __init__(self, code: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.headers = headers or {}


class BadRequest(Refusal):
    """What came cannot be read or breaks a limit."""

    status = HTTPStatus.BAD_REQUEST


class Unauthorized(Refusal):
    """No proof of who is asking: a token or a signature is missing or wrong."""

    status = HTTPStatus.UNAUTHORIZED


class Forbidden(Refusal):
    """It is known who is asking, and they may not."""

    status = HTTPStatus.FORBIDDEN


class NotFound(Refusal):
    """There is no such thing."""

    status = HTTPStatus.NOT_FOUND


class MethodNotAllowed(Refusal):
    """The address is known, the method is not."""

    status = HTTPStatus.METHOD_NOT_ALLOWED


class TooSlow(Refusal):
    """The body did not come in time."""

    status = HTTPStatus.REQUEST_TIMEOUT


class Conflict(Refusal):
    """It contradicts what is already known."""

    status = HTTPStatus.CONFLICT


class TooLarge(Refusal):
    """The body is over its limit."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class HeadersTooLarge(Refusal):
    """The headers are over their limit."""

    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE


class TooMany(Refusal):
    """Too often. `Retry-After` says when again."""

    status = HTTPStatus.TOO_MANY_REQUESTS

    def __init__(self, code: str, detail: str, retry_after_s: int, headers: dict[str, str] | None = None) -> None:
        super().__init__(code, detail, {**(headers or {}), "Retry-After": str(max(1, retry_after_s))})


class Overloaded(Refusal):
    """Not now: the queue is full, the database is away, or the server is ending. `Retry-After` says when."""

    status = HTTPStatus.SERVICE_UNAVAILABLE

    def __init__(self, code: str, detail: str, retry_after_s: int = 5, headers: dict[str, str] | None = None) -> None:
        super().__init__(code, detail, {**(headers or {}), "Retry-After": str(retry_after_s)})
