"""Logging to standard error, without addresses, tokens and bodies.

SHM's own messages are logged as they are. Messages of libraries are logged without their arguments, because libraries
log such data: asyncio puts sockets and requests into its debug messages. Exceptions are logged by class and location,
because their message may quote what an install sent. Only errors with `ShmError.is_loggable` keep their message; for a
failed migration it contains PostgreSQL's. Tornado's three loggers log requests only, and asyncssh's logs the addresses
and user names of clients, so they are disabled; `shm.server.http.problems` and `shm.cli.ssh.server` log the same faults
without them.
"""

import errno
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

ROOT_LOGGER = "shm"  # the root of SHM's logger names
DISABLED_LOGGERS = ("tornado.access", "tornado.application", "tornado.general", "asyncssh")
REPEAT_INTERVAL_S = 60.0  # an ongoing problem is worth one line a minute
MAX_CAUSES = 10  # exceptions of one chain that are shown

logger = logging.getLogger(__name__)


def configure(level: str = "info") -> None:
    """Sends the log to standard error, and disables the loggers that log client addresses."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(RedactingFormatter("%(asctime)s %(levelname)-7s %(message)s"))
    handler.addFilter(LibraryRepetitionFilter())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    for name in DISABLED_LOGGERS:
        silenced = logging.getLogger(name)
        silenced.handlers = [logging.NullHandler()]
        silenced.propagate = False


def install_hooks() -> None:
    """Redirects to the log what Python writes to standard error: unhandled exceptions and warnings."""
    sys.excepthook = _log_unhandled
    sys.unraisablehook = lambda args: rate_limited.exception("an exception was ignored in a destructor", args.exc_value)
    warnings.showwarning = _log_warning
    logging.raiseExceptions = False  # logging would print the arguments of a message that cannot be formatted


def describe_error(error: BaseException) -> str:
    """For a log line: the message of a loggable error, the class name of any other, and the name of its errno."""
    if isinstance(error, ShmError) and error.is_loggable:
        return str(error)
    return " ".join([type(error).__name__, *_errno_of(error)])


def _errno_of(error: BaseException) -> list[str]:
    """The name of an OSError's errno. Its message is not logged, because it may contain a file's name."""
    number = error.errno if isinstance(error, OSError) else None
    return [] if number is None else [errno.errorcode.get(number, f"errno {number}")]


class LibraryRepetitionFilter(logging.Filter):
    """Passes a library's warning once per `REPEAT_INTERVAL_S`. SHM's own repetitions use `RateLimitedLogger`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._last_passed: dict[tuple[str, str, int], float] = {}  # by the place in the code, so bounded by it

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is logged. Called by logging."""
        if record.levelno < logging.WARNING or record.name.partition(".")[0] == ROOT_LOGGER:
            return True
        place, now = (record.name, record.pathname, record.lineno), self._clock()
        if now - self._last_passed.get(place, -REPEAT_INTERVAL_S) < REPEAT_INTERVAL_S:
            return False
        self._last_passed[place] = now
        return True


class RedactingFormatter(logging.Formatter):
    """Redacts the arguments of libraries' messages, and the messages of exceptions that are not `is_loggable`."""

    def format(self, record: logging.LogRecord) -> str:
        """Formats a record. Called by logging."""
        if record.name.partition(".")[0] != ROOT_LOGGER:
            original = record
            record = copy(original)
            record.msg, record.args = f"{original.name}: {_redact_message(original)}", ()
        return super().format(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Formats the exception of a record. Called by logging; `ei` is the value of sys.exc_info()."""
        return "Traceback (most recent call last):\n" + "".join(_format_traceback(ei[1])).rstrip()


def _kind_and_message(error: BaseException) -> str:
    if isinstance(error, ShmError) and error.is_loggable:
        return f"{type(error).__qualname__}: {error}"
    return ": ".join([type(error).__qualname__, *_errno_of(error)])


class _Redacted:
    """Replaces an argument of a library's message."""

    def __str__(self) -> str:
        return "…"

    __repr__ = __str__


def _redact_message(record: logging.LogRecord) -> str:
    """The message with its arguments redacted, numbers excepted.

    A message without arguments was formatted before it was logged and may contain anything, so it is left out.
    """
    if not record.args:
        return f"(a message from {record.module}, line {record.lineno})"
    arguments = record.args if isinstance(record.args, tuple) else (record.args,)
    try:
        return str(record.msg) % tuple(
            argument if isinstance(argument, int | float) else _Redacted() for argument in arguments
        )
    except (TypeError, ValueError, KeyError):
        return str(record.msg)


def _format_traceback(error: BaseException | None) -> list[str]:
    """The tracebacks of an exception and its causes, as Python prints them, without messages that are not loggable."""
    lines: list[str] = []
    for _ in range(MAX_CAUSES):
        if error is None:
            break
        shown = [*traceback.format_tb(error.__traceback__), f"{_kind_and_message(error)}\n"]
        lines = [*shown, "which caused\n", *lines] if lines else shown
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return lines


def _log_unhandled(kind: type[BaseException], error: BaseException, at: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, at)
    else:
        logger.critical("ended by an unhandled exception", exc_info=error)


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    rate_limited.warning(f"Python warns of {category.__name__}", f"{filename}, line {lineno}")


class RateLimitedLogger:
    """Logs each message at most once per `REPEAT_INTERVAL_S`, with the number of suppressed repetitions.

    For events that may happen a thousand times a second. Every message is kept in memory, so messages must be constant;
    variable data belongs into the detail.
    """

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._clock = clock
        self._last_logged: dict[str, tuple[float, int]] = {}

    def warning(self, message: str, detail: str = "") -> None:
        """Logs a warning. `detail` is not part of what is compared."""
        self._log(logging.WARNING, message, f": {detail}" if detail else "")

    def exception(self, message: str, error: BaseException | None = None) -> None:
        """Logs an error with a traceback: that of `error`, or of the exception that is being handled."""
        self._log(logging.ERROR, message, "", error or True)

    def _log(self, level: int, message: str, detail: str, exc_info: BaseException | bool = False) -> None:
        now = self._clock()
        logged_at, suppressed = self._last_logged.get(message, (-REPEAT_INTERVAL_S, 0))
        if now - logged_at < REPEAT_INTERVAL_S:
            self._last_logged[message] = logged_at, suppressed + 1
            return
        self._last_logged[message] = now, 0
        repetitions = f" (and {suppressed} times since it was last logged)" if suppressed else ""
        self._logger.log(level, "%s%s%s", message, detail, repetitions, exc_info=exc_info)


rate_limited = RateLimitedLogger(logger)
