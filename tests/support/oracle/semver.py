"""The precedence of semantic versioning 2.0.0, as its section 11 words it."""

from typing import Any


def semver_key(version: str) -> tuple[Any, ...]:
    """What `MAJOR.MINOR.PATCH-a.b.c+build` is compared by."""
    core, _, pre = version.partition("+")[0].partition("-")
    numbers = tuple(int(part) for part in core.split("."))
    identifiers = tuple((0, int(each), "") if each.isdecimal() else (1, 0, each) for each in pre.split("."))
    return (numbers, not pre, identifiers if pre else ())
