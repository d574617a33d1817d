"""Hints of a registration: the developer's descriptions of the metrics. Pure.

A hint is a suggestion, so a wrong one costs itself only and never the registration: a newer SDK may know more than this
server. They come from installs, which anybody can invent; an admin decides whether one becomes an override.
"""

from collections.abc import Mapping
from typing import TypeGuard, get_args

import msgspec

from shm.core.aggregates import Aggregate
from shm.core.metric_keys import MAX_DESCRIPTION_LENGTH, MAX_LABEL_LENGTH, MAX_UNIT_LENGTH, Kind

MAX_HINTS = 128  # keys of one registration; the first ones are kept
MAX_LENGTHS = {"label": MAX_LABEL_LENGTH, "unit": MAX_UNIT_LENGTH, "description": MAX_DESCRIPTION_LENGTH}
WORDS: Mapping[str, tuple[str, ...]] = {"kind": get_args(Kind), "aggregate": get_args(Aggregate)}


def parse_hints(document: Mapping[str, object], max_key: int) -> msgspec.Raw | None:
    """The valid hints as a JSON object by key, each with the members of an override; None if there are none."""
    hints: dict[str, dict[str, str]] = {}
    for key, fields in document.items():
        if len(hints) >= MAX_HINTS:
            break
        if _is_text(key, max_key) and isinstance(fields, dict):
            hint = {name: value for name, value in sorted(fields.items()) if _is_valid(name, value)}
            if hint:
                hints[key] = hint
    return msgspec.Raw(msgspec.json.encode(hints)) if hints else None


def _is_valid(name: str, value: object) -> bool:
    if name in WORDS:
        return value in WORDS[name]
    return name in MAX_LENGTHS and _is_text(value, MAX_LENGTHS[name])


def _is_text(value: object, max_length: int) -> TypeGuard[str]:
    """Whether it is a printable text: neither a control character nor a lone surrogate, and no space around it."""
    return isinstance(value, str) and 0 < len(value) <= max_length and value.isprintable() and value == value.strip()
