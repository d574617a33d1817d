"""What the server's log may hold: our own sentences, and never an address, a token or a body.

Libraries fill such things into what they say: asyncio writes sockets and requests into its debug lines, an exception's
words may be what an install sent. So theirs are shown without what they fill in, and exceptions by class and place.
Errors of ours that can hold nothing an install sent (`ShmError.is_loggable`) keep their message: that of a failed
migration has PostgreSQL's.
Tornado's three loggers know nothing else than requests, so they are cut off; what they would have said is said by
`handlers.problems` without the request.
"""

import logging
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from copy import copy
from types import TracebackType
from typing import Any, TextIO

from shm.core.errors import ShmError

OWN_ROOT = "shm"  # the first word of our loggers' names
SILENCED = ("tornado.access", "tornado.application", "tornado.general")
REPEAT_INTERVAL_S = 60.0  # what goes on is worth a line a minute
MAX_CAUSES = 10  # of an exception, shown

logger = logging.getLogger(__name__)


def configure(level: str = "info") -> None:
    """Sends the log to standard error, and cuts off the loggers that know client addresses."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(RedactingFormatter("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    for name in SILENCED:
        silenced = logging.getLogger(name)
        silenced.handlers = [logging.NullHandler()]
        silenced.propagate = False


def install_hooks() -> None:
    """From here on, what Python itself would write to standard error goes through the log: faults and warnings."""
    sys.excepthook = _log_unhandled
    sys.unraisablehook = lambda fault: logger.error("something could not be cleaned up", exc_info=fault.exc_value)
    warnings.showwarning = _log_warning
    logging.raiseExceptions = False  # what cannot be put together would be written in pieces


def describe_error(error: BaseException) -> str:
    """For a log line: the message of an error that can hold nothing an install sent, of any other its class."""
    return str(error) if isinstance(error, ShmError) and error.is_loggable else type(error).__name__


class RedactingFormatter(logging.Formatter):
    """Our sentences as they are; those of libraries without what they fill in; exceptions without their words.

    Errors of ours that are `is_loggable` keep them.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Called by logging for each record."""
        if record.name.partition(".")[0] != OWN_ROOT:
            said = record
            record = copy(said)
            record.msg, record.args = f"{said.name}: {_redact_message(said)}", ()
        return super().format(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Called by logging where there is an exception; `ei` is as from sys.exc_info."""
        return "Traceback (most recent call last):\n" + "".join(_format_traceback(ei[1])).rstrip()


def _kind_and_message(error: BaseException) -> str:
    kind, described = type(error).__qualname__, describe_error(error)
    return kind if described == type(error).__name__ else f"{kind}: {described}"


class _Redacted:
    """Stands for what a library fills into its message."""

    def __str__(self) -> str:
        return "…"

    __repr__ = __str__


def _redact_message(record: logging.LogRecord) -> str:
    """A message that was put together before it was logged may hold anything, and is left out."""
    if not record.args:
        return f"(a message from {record.module}, line {record.lineno})"
    given = record.args if isinstance(record.args, tuple) else (record.args,)
    try:
        return str(record.msg) % tuple(each if isinstance(each, int | float) else _Redacted() for each in given)
    except (TypeError, ValueError, KeyError):
        return str(record.msg)


def _format_traceback(error: BaseException | None) -> list[str]:
    """Where an exception came from, and its causes before it, as Python shows them; messages only of loggable ones."""
    lines: list[str] = []
    for _ in range(MAX_CAUSES):
        if error is None:
            break
        shown = [*traceback.format_tb(error.__traceback__), f"{_kind_and_message(error)}\n"]
        lines = [*shown, "which led to\n", *lines] if lines else shown
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return lines


def _log_unhandled(kind: type[BaseException], error: BaseException, at: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, at)
    else:
        logger.critical("ended by a fault", exc_info=error)


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    logger.warning("Python warns of %s in %s, line %d", category.__name__, filename, lineno)


class RateLimitedLogger:
    """For what may happen a thousand times a second: each message once a minute, with how often it was suppressed.

    Sentences are remembered, so they must be of a few kinds; what differs each time is their detail.
    """

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._clock = clock
        self._last_logged: dict[str, tuple[float, int]] = {}

    def warning(self, message: str, detail: str) -> None:
        """Says it as a warning."""
        self._log(logging.WARNING, message, f": {detail}", with_traceback=False)

    def exception(self, message: str) -> None:
        """Says it as an error, with the traceback of the exception that is being handled."""
        self._log(logging.ERROR, message, "", with_traceback=True)

    def _log(self, level: int, message: str, detail: str, *, with_traceback: bool) -> None:
        now = self._clock()
        logged_at, suppressed = self._last_logged.get(message, (-REPEAT_INTERVAL_S, 0))
        if now - logged_at < REPEAT_INTERVAL_S:
            self._last_logged[message] = logged_at, suppressed + 1
            return
        self._last_logged[message] = now, 0
        more = f" (and {suppressed} times since this was last said)" if suppressed else ""
        self._logger.log(level, "%s%s%s", message, detail, more, exc_info=with_traceback)
