"""Output of commands: results on standard output, messages for people on standard error."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from shm.core.errors import ConfigurationError
from shm.core.signals import interruptible

BROKEN_PIPE_STATUS = 1  # exit status when the reader of standard output has closed it before the end


@contextmanager
def standard_output() -> Iterator[None]:
    """Standard output is written within it. A signal interrupts it: a pipe may block.

    Raises BrokenPipeError, and ConfigurationError for any other failure.
    """
    try:
        with interruptible():
            yield
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it at exit and would fail
        if isinstance(error, BrokenPipeError):
            raise
        raise ConfigurationError(f"Standard output cannot be written: {error.strerror}.") from None


def check_output() -> None:
    """Raises ConfigurationError if standard output is closed or full. It cannot know the reader of a pipe."""
    with standard_output():
        os.write(sys.stdout.fileno(), b"")


def flush_results() -> None:
    """Writes what has been printed, with the errors of `standard_output`."""
    with standard_output():
        sys.stdout.flush()


def print_result(line: str) -> None:
    """Prints a line of the result to standard output, with the errors of `standard_output`."""
    with standard_output():
        print(line)  # noqa: T201


def format_count(count: int, noun: str) -> str:
    """`1 instance`, `20 instances`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Prints rows, the first of which has the titles, in columns, without control characters."""
    rows = [[strip_control_characters(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print_result("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_message(line: str) -> None:
    """Prints a message to standard error."""
    print(line, file=sys.stderr)  # noqa: T201


def strip_control_characters(text: str) -> str:
    """A text from another source with its unprintable characters, such as terminal control codes, replaced."""
    return "".join(character if character.isprintable() else "�" for character in text)
