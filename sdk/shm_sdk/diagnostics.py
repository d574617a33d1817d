"""Messages to the developer of the host, on the log `shm_sdk`: each is written once, and no host has to ask for them.

Python prints the errors of a library in a program without logging only while the library has no handler at all. The SDK
has one that prints errors there and nothing else: a program without a log need not report outages.
"""

import logging
import sys

MAX_NOTICES = 100  # of one client; the names of metrics may have no end

log = logging.getLogger("shm_sdk")


class ErrorHandler(logging.Handler):
    """Prints an error on stderr where the host has configured no logging, and is silent otherwise."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one line."""
        if logging.getLogger().handlers or any(handler is not self for handler in log.handlers):
            return
        try:
            sys.stderr.write(f"shm_sdk: {record.getMessage()}\n")
        except Exception:
            self.handleError(record)


class DebugHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Prints everything on stderr, for SHM_DEBUG."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(logging.Formatter("shm_sdk %(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))


class Notices:
    """Warnings, each written once in the life of its owner."""

    def __init__(self) -> None:
        self._written: set[str] = set()

    def warn(self, key: str, message: str, *arguments: object) -> None:
        """Writes a warning, unless one with this key was written."""
        is_new = key not in self._written and len(self._written) < MAX_NOTICES
        if is_new:
            self._written.add(key)
        log.log(logging.WARNING if is_new else logging.DEBUG, message, *arguments)

    def warn_left_out(self, line: str) -> None:
        """Writes a warning about a metric that is not sent. The line has its key, a colon and the reason."""
        key, _, reason = line.partition(": ")
        self.warn(f"value {key.split('[')[0]}", "the metric %s is left out: %s", key, reason)


_of_process = Notices()


def warn_once(key: str, message: str, *arguments: object) -> None:
    """Writes a warning once in the process: several clients may share a data directory, which the key names."""
    _of_process.warn(key, message, *arguments)


def install_handlers(*, debug: bool) -> None:
    """Adds the handlers of this module, each at most once."""
    if not any(isinstance(handler, ErrorHandler) for handler in log.handlers):
        log.addHandler(ErrorHandler())
    if debug and not any(isinstance(handler, DebugHandler) for handler in log.handlers):
        log.addHandler(DebugHandler())
        log.setLevel(logging.DEBUG)
