"""Converts HTTP error responses and network errors into the errors of `errors`."""

import json
import os
import socket
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from .errors import ClientError, InvalidResponseError, RefusedError, ServerUnavailableError, UnknownApplicationError
from .model import Sanitizer

RETRYABLE_STATUSES = {429, 502, 503, 504, 599}  # Tornado's client reports a timeout as 599
REQUEST_ERRORS = {*range(400, 500)} - {HTTPStatus.REQUEST_TIMEOUT}  # statuses of a request that is wrong itself
MAX_REASON_CHARS = 200  # of a library's or a server's message
MAX_RETRY_AFTER_S = 300.0  # a longer Retry-After is shortened, so that a wrong header does not stop a feed


def to_client_error(
    server: str, status: int, headers: Mapping[str, str], body: bytes, sanitize: Sanitizer
) -> ClientError:
    """The error for a response with an unexpected status."""
    detail = _problem_detail(headers.get("Content-Type", ""), body)
    suffix = f": {sanitize(detail)}" if detail else ""
    if status == HTTPStatus.UNAUTHORIZED:
        return RefusedError(f"{server} does not accept the token{suffix}")
    if status == HTTPStatus.FORBIDDEN:
        return RefusedError(f"the token's role is too small for {server}{suffix}")
    if status == HTTPStatus.NOT_FOUND:
        return UnknownApplicationError(f"{server} does not have it{suffix}")
    if status in RETRYABLE_STATUSES:
        return ServerUnavailableError(f"{server} is not ready{suffix}", parse_retry_after(headers.get("Retry-After")))
    return InvalidResponseError(f"{server} answered {status}{suffix}", is_final=status in REQUEST_ERRORS)


def parse_retry_after(header: str | None) -> float | None:
    """A Retry-After header as seconds from now, at most MAX_RETRY_AFTER_S; None without a valid one."""
    if header is None:
        return None
    if header.strip().isdecimal():
        seconds = float(header)
    elif (date := parse_date(header)) is not None:
        seconds = (date - datetime.now(UTC)).total_seconds()
    else:
        return None
    return min(max(0.0, seconds), MAX_RETRY_AFTER_S)


def parse_date(header: str) -> datetime | None:
    """The time of a header such as Date, in UTC; None if it is not a valid date of HTTP."""
    try:
        date = parsedate_to_datetime(header)
        return date.astimezone(UTC) if date.tzinfo else None
    except (ValueError, TypeError, OverflowError, OSError, IndexError):  # the last ones of dates with odd parts
        return None


def describe_cause(error: Exception, sanitize: Sanitizer) -> str:
    """The innermost cause in a few words: libraries wrap `connection refused` in three exceptions.

    Of several addresses of one host, it is the cause at the first one.
    """
    cause: BaseException = error
    while inner := _inner_cause(cause):
        cause = inner
    text = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
    if isinstance(cause, OSError) and cause.errno and not isinstance(cause, ssl.SSLError | socket.gaierror):
        text = os.strerror(cause.errno)  # asyncio's own text of a failed connection is its call and the address
    return str(sanitize((text or type(cause).__name__)[:MAX_REASON_CHARS]))


def _inner_cause(error: BaseException) -> BaseException | None:
    return error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__ or error.__context__


def _problem_detail(content_type: str, body: bytes) -> str:
    """The detail of a problem document. Other bodies, such as a proxy's HTML page, are not shown."""
    if "json" not in content_type:
        return ""
    try:
        problem = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(problem, dict):
        return ""
    return str(problem.get("detail") or problem.get("title") or "")[:MAX_REASON_CHARS]
