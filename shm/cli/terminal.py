"""Output of commands: results on standard output, messages for people on standard error."""

import sys

from shm.core.signals import interruptible


def print_result(line: str) -> None:
    """Prints a line of the result to standard output. A signal interrupts it: a pipe may block."""
    with interruptible():
        print(line)  # noqa: T201


def print_message(line: str) -> None:
    """Prints a message to standard error."""
    print(line, file=sys.stderr)  # noqa: T201


def strip_control_characters(text: str) -> str:
    """A text from another source with its unprintable characters, such as terminal control codes, replaced."""
    return "".join(character if character.isprintable() else "�" for character in text)
