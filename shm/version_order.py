"""Which of two versions is the later one. Pure.

Runs of digits compare as numbers, `1.10` comes after `1.9`; a pre-release (`1.5.0rc1`, `1.5.0-beta`) before its
release. A leading `v` and what follows a `+` do not matter.
"""

import re

PRE_RELEASE = re.compile(
    r"\d[-._]?(alpha|beta|a|b|c|rc|pre|preview|dev|snapshot|nightly|canary)(?![a-z])", re.IGNORECASE
)
PART = re.compile(r"[0-9]+|[a-z]+")
LONGEST_NUMBER = 18  # digits that are compared as a number; nobody counts further

Order = tuple[tuple[int, int, str], ...]


def is_pre_release(version: str) -> bool:
    """Whether it says so itself: a word such as rc or beta behind a number, or anything behind a hyphen."""
    release = version.partition("+")[0]
    return PRE_RELEASE.search(release) is not None or "-" in release


def order(version: str) -> Order:
    """What versions are sorted by, ascending."""
    said = version.partition("+")[0].lower().removeprefix("v")
    parts: list[tuple[int, int, str]] = []
    for part in PART.findall(said):
        if part.isdigit() and len(part) <= LONGEST_NUMBER:
            parts.append((2, int(part), ""))
        else:
            parts.append((0, 0, part))  # a word: before the end, which is before a number
    return (*parts, (1, 0, ""))
