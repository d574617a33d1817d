"""What commands say: on standard output what was asked for and nothing else, on standard error what is for people."""

import sys


def print_result(line: str) -> None:
    """A line of what was asked for."""
    print(line)  # noqa: T201


def print_message(line: str) -> None:
    """A line for people."""
    print(line, file=sys.stderr)  # noqa: T201


def strip_control_characters(text: str) -> str:
    """A text that somebody else wrote, without what a terminal obeys."""
    return "".join(character if character.isprintable() else "�" for character in text)
