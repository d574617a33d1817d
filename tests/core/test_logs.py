"""The log: our sentences as they are, those of others without what they fill in, and nothing a thousand times."""

import io
import logging
import subprocess
import sys

import pytest

from shm.core.logs import REPEAT_INTERVAL_S, RateLimitedLogger, RedactingFormatter

LIMIT_S = 60


@pytest.fixture
def written() -> io.StringIO:
    """What the loggers of `logger` have written."""
    return io.StringIO()


def logger(name: str, written: io.StringIO) -> logging.Logger:
    """A logger that nobody else listens to."""
    handler = logging.StreamHandler(written)
    handler.setFormatter(RedactingFormatter("%(levelname)s %(message)s"))
    alone = logging.Logger(name)
    alone.addHandler(handler)
    return alone


def test_our_sentences_are_written_as_they_are(written: io.StringIO) -> None:
    logger("shm.test", written).info("a file %s of %d bytes", "name", 3)
    assert written.getvalue() == "INFO a file name of 3 bytes\n"


@pytest.mark.parametrize(
    ("sentence", "filled_in", "shown"),
    [
        ("Executing %s took %.3f seconds", ("<socket raddr=secret>", 0.25), "Executing … took 0.250 seconds"),
        ("%r is gone", (b"secret",), "… is gone"),
        ("%(who)s is gone", ({"who": "secret"},), "%(who)s is gone"),
        ("%s and %s", ("secret",), "%s and %s"),
    ],
)
def test_a_librarys_sentence_is_written_without_what_it_fills_in(
    written: io.StringIO, sentence: str, filled_in: tuple[object, ...], shown: str
) -> None:
    logger("library", written).warning(sentence, *filled_in)
    assert written.getvalue() == f"WARNING library: {shown}\n"


def test_a_librarys_sentence_that_was_put_together_before_is_left_out(written: io.StringIO) -> None:
    logger("library", written).warning("connection from secret")
    assert "secret" not in written.getvalue()
    assert "library: (a message from test_logs, line" in written.getvalue()


@pytest.mark.parametrize("name", ["shm.test", "library"])
def test_an_exception_is_logged_without_its_message(written: io.StringIO, name: str) -> None:
    """An exception is written with its places and kinds and without its words."""
    try:
        try:
            int("secret")
        except ValueError as error:
            raise RuntimeError("a secret too") from error
    except RuntimeError:
        logger(name, written).exception("it failed")
    lines = written.getvalue().splitlines()
    assert [line for line in lines if line in ("ValueError", "RuntimeError")] == ["ValueError", "RuntimeError"]
    assert any("test_logs.py" in line for line in lines)
    assert "a secret too" not in written.getvalue().replace('raise RuntimeError("a secret too")', "")
    assert "invalid literal" not in written.getvalue()


@pytest.mark.parametrize(
    ("fault", "status", "said"),
    [
        ("raise ValueError(secret)", 1, "ended by an unhandled exception"),
        ("import warnings; warnings.warn(secret, ResourceWarning)", 0, "Python warns of ResourceWarning"),
        ("import logging; logging.getLogger('shm').error('%d', secret)", 0, ""),
        ("type('X', (), {'__del__': lambda self: int(secret)})()", 0, "an exception was ignored in a destructor"),
    ],
)
def test_what_python_itself_would_write_goes_through_the_log(fault: str, status: int, said: str) -> None:
    program = f"from shm.core import logs; logs.configure(); logs.install_hooks(); secret = 'x' + 'yz'\n{fault}"
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", program], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
    assert "xyz" not in done.stderr


def test_what_goes_on_is_said_once_a_minute_with_how_often_it_came(written: io.StringIO) -> None:
    now = 0.0
    rate_limited = RateLimitedLogger(logger("shm.test", written), lambda: now)
    for number in range(1_000):
        rate_limited.warning("it is away", f"reason {number}")
        rate_limited.warning("it is full", "x")
    now = REPEAT_INTERVAL_S
    rate_limited.warning("it is away", "the last reason")
    assert written.getvalue().splitlines() == [
        "WARNING it is away: reason 0",
        "WARNING it is full: x",
        "WARNING it is away: the last reason (and 999 times since it was last logged)",
    ]
