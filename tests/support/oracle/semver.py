"""The precedence of Semantic Versioning 2.0.0, section 11."""

from typing import Any


def semver_key(version: str) -> tuple[Any, ...]:
    """The sort key of `MAJOR.MINOR.PATCH-a.b.c+build`."""
    core, _, pre = version.partition("+")[0].partition("-")
    numbers = tuple(int(part) for part in core.split("."))
    identifiers = tuple((0, int(each), "") if each.isdecimal() else (1, 0, each) for each in pre.split("."))
    return (numbers, not pre, identifiers if pre else ())
