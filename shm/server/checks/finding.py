"""The result of a check: what was found, how bad it is, and the remedy."""

from dataclasses import dataclass
from enum import IntEnum


class Level(IntEnum):
    """How bad a finding is. A start logs warnings and errors."""

    OK = 0
    NOTE = 1  # right for some set-ups and wrong for others
    WARNING = 2  # will fail later, or is slower or less safe than it needs to be
    ERROR = 3  # fails now


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check of `subject`. `remedy` is empty for a finding that is OK."""

    level: Level
    subject: str
    text: str
    remedy: str = ""
