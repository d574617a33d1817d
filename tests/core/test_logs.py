"""The log: SHM's messages unchanged, libraries' messages without their arguments, repetitions suppressed."""

import errno
import io
import logging
import subprocess
import sys

import pytest

from shm.core.logs import (
    REPEAT_INTERVAL_S,
    LibraryRepetitionFilter,
    RateLimitedLogger,
    RedactingFormatter,
    describe_error,
)

TIMEOUT_S = 60


@pytest.fixture
def output() -> io.StringIO:
    """The output of the loggers that `make_logger` returns."""
    return io.StringIO()


def make_logger(name: str, output: io.StringIO) -> logging.Logger:
    """A logger with one handler, which writes to `output`."""
    handler = logging.StreamHandler(output)
    handler.setFormatter(RedactingFormatter("%(levelname)s %(message)s"))
    made = logging.Logger(name)
    made.addHandler(handler)
    return made


def test_a_message_of_shm_is_logged_unchanged(output: io.StringIO) -> None:
    make_logger("shm.test", output).info("a file %s of %d bytes", "name", 3)
    assert output.getvalue() == "INFO a file name of 3 bytes\n"


@pytest.mark.parametrize(
    ("message", "arguments", "expected"),
    [
        ("Executing %s took %.3f seconds", ("<socket raddr=secret>", 0.25), "Executing … took 0.250 seconds"),
        ("%r is closed", (b"secret",), "… is closed"),
        ("%(name)s is closed", ({"name": "secret"},), "%(name)s is closed"),
        ("%s and %s", ("secret",), "%s and %s"),
    ],
)
def test_a_librarys_message_is_logged_without_its_arguments(
    output: io.StringIO, message: str, arguments: tuple[object, ...], expected: str
) -> None:
    make_logger("library", output).warning(message, *arguments)
    assert output.getvalue() == f"WARNING library: {expected}\n"


def test_a_librarys_message_that_was_formatted_before_is_left_out(output: io.StringIO) -> None:
    make_logger("library", output).warning("connection from secret")
    assert "secret" not in output.getvalue()
    assert "library: (a message from test_logs, line" in output.getvalue()


@pytest.mark.parametrize("name", ["shm.test", "library"])
def test_an_exception_is_logged_without_its_message(output: io.StringIO, name: str) -> None:
    """The log has the classes and locations of an exception and its cause."""
    try:
        try:
            int("secret")
        except ValueError as error:
            raise RuntimeError("a secret too") from error
    except RuntimeError:
        make_logger(name, output).exception("it failed")
    lines = output.getvalue().splitlines()
    assert [line for line in lines if line in ("ValueError", "RuntimeError")] == ["ValueError", "RuntimeError"]
    assert any("test_logs.py" in line for line in lines)
    assert "a secret too" not in output.getvalue().replace('raise RuntimeError("a secret too")', "")
    assert "invalid literal" not in output.getvalue()


@pytest.mark.parametrize(
    ("fault", "status", "expected"),
    [
        ("raise ValueError(secret)", 1, "ended by an unhandled exception"),
        ("import warnings; warnings.warn(secret, ResourceWarning)", 0, "Python warns of ResourceWarning"),
        ("import logging; logging.getLogger('shm').error('%d', secret)", 0, ""),
        ("type('X', (), {'__del__': lambda self: int(secret)})()", 0, "an exception was ignored in a destructor"),
    ],
)
def test_output_of_python_itself_goes_through_the_log(fault: str, status: int, expected: str) -> None:
    program = f"from shm.core import logs; logs.configure(); logs.install_hooks(); secret = 'x' + 'yz'\n{fault}"
    process = subprocess.run(
        [sys.executable, "-W", "always", "-c", program], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert (process.returncode, process.stdout) == (status, "")
    assert expected in process.stderr
    assert "xyz" not in process.stderr


def test_a_repeated_message_is_logged_once_a_minute_with_its_count(output: io.StringIO) -> None:
    now = 0.0
    rate_limited = RateLimitedLogger(make_logger("shm.test", output), lambda: now)
    for number in range(1_000):
        rate_limited.warning("it is unavailable", f"reason {number}")
        rate_limited.warning("it is full", "x")
    now = REPEAT_INTERVAL_S
    rate_limited.warning("it is unavailable", "the last reason")
    assert output.getvalue().splitlines() == [
        "WARNING it is unavailable: reason 0",
        "WARNING it is full: x",
        "WARNING it is unavailable: the last reason (and 999 times since it was last logged)",
    ]


def test_a_repeated_warning_of_a_library_is_logged_once_a_minute(output: io.StringIO) -> None:
    now = 0.0
    logger = make_logger("library", output)
    logger.handlers[0].addFilter(LibraryRepetitionFilter(lambda: now))
    for now in (0.0, 1.0, REPEAT_INTERVAL_S - 1, REPEAT_INTERVAL_S):
        logger.warning("it failed %d times", now)
    assert output.getvalue().splitlines() == [
        "WARNING library: it failed 0 times",
        "WARNING library: it failed 60 times",
    ]


def test_the_errno_of_an_error_is_logged_without_its_file(output: io.StringIO) -> None:
    error = FileNotFoundError(errno.ENOENT, "No such file", "/secret")
    assert describe_error(error) == "FileNotFoundError ENOENT"
    make_logger("shm.test", output).error("it failed", exc_info=error)
    assert output.getvalue().splitlines()[-1] == "FileNotFoundError: ENOENT"
