"""The server's refusals as the errors that they are, and the reasons why it cannot be reached."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from .errors import AnswerError, ClientError, RefusedError, UnknownApplicationError, UnreachableError
from .model import Border

LATER = {429, 502, 503, 504, 599}  # 599 is Tornado's own word for no answer
MAX_REASON = 200  # characters of what a library or a server says
LONGEST_WAIT = 300.0  # seconds; whoever asks for a longer Retry-After is asked again all the same


def refusal(server: str, status: int, headers: Mapping[str, str], body: bytes, border: Border) -> ClientError:
    """The error for an answer that is not the one that was wanted."""
    detail = _detail(headers.get("Content-Type", ""), body)
    said = f": {border(detail)}" if detail else ""
    if status == HTTPStatus.UNAUTHORIZED:
        return RefusedError(f"{server} does not accept the token{said}")
    if status == HTTPStatus.FORBIDDEN:
        return RefusedError(f"the token's role is too small for {server}{said}")
    if status == HTTPStatus.NOT_FOUND:
        return UnknownApplicationError(f"{server} does not know it{said}")
    if status in LATER:
        return UnreachableError(f"{server} is not ready{said}", retry_after(headers.get("Retry-After")))
    return AnswerError(f"{server} answered {status}{said}")


def retry_after(said: str | None) -> float | None:
    """The header in seconds from now, at most LONGEST_WAIT; None where it says nothing that can be read."""
    if said is None:
        return None
    if said.strip().isdecimal():
        seconds = float(said)
    else:
        try:
            seconds = (parsedate_to_datetime(said) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return min(max(0.0, seconds), LONGEST_WAIT)


def reason(error: Exception, border: Border) -> str:
    """The innermost cause in a few words: libraries wrap `connection refused` three times."""
    cause: BaseException = error
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__ or cause
    text = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
    return str(border((text or type(cause).__name__)[:MAX_REASON]))


def _detail(content_type: str, body: bytes) -> str:
    """What a problem document says; another kind of page says nothing worth repeating."""
    if "json" not in content_type:
        return ""
    try:
        problem = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(problem, dict):
        return ""
    return str(problem.get("detail") or problem.get("title") or "")[:MAX_REASON]
