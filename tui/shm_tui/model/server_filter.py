"""The terms of a filter that the server evaluates over the whole fleet, as conditions of its lists (`where`).

A term has a condition only if the server's definition of it is the console's: docs/api.md has the table.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

MAX_CONDITIONS = 20  # in one request: the server's limit
MAX_DIGITS = 300  # of a number; the server reads a little more
MAX_AGE_DIGITS = 8  # of the number of an age; the server refuses ages of more than a hundred years
MAX_AGE_DAYS = 36_500
RANGES = (">", ">=", "<", "<=")

_OPERATOR_CHARACTERS = re.compile(r"[<>=!:]")
# A text without any other character may be a part of a number or a list, as the table writes them.
_PART_OF_NUMBER = re.compile(r"[-+.,\d\skmbte\u2013\[\]]*")
_UNIT_DAYS = {"s": 1 / 86_400, "m": 1 / 1_440, "h": 1 / 24, "d": 1}
_ASCII_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


@dataclass(frozen=True, slots=True)
class ServerFilter:
    """`conditions` select all matching instances, and perhaps more. `is_whole`: they select no others."""

    conditions: tuple[str, ...]
    is_whole: bool


NO_SERVER_FILTER = ServerFilter((), is_whole=False)


def combine(terms: Sequence[str | None]) -> ServerFilter:
    """The filter of the conditions of all terms. None: a term that only the console evaluates."""
    conditions = tuple(dict.fromkeys(term for term in terms if term is not None))
    is_whole = bool(terms) and None not in terms and len(conditions) <= MAX_CONDITIONS
    return ServerFilter(conditions[:MAX_CONDITIONS], is_whole)


def lower_ascii(text: str) -> str:
    """A text in which the case of ASCII letters does not matter, as the server compares fields and metrics."""
    return text.translate(_ASCII_LOWER)


def field_condition(field: str, comparison: str, value: str) -> str | None:
    """The condition of a term about a text or a version."""
    return f"{field}{comparison}{value}" if value or comparison != ":" else None


def age_condition(field: str, comparison: str, number: int, unit: str) -> str | None:
    """The condition of a term about an age. The server has no age of zero."""
    is_accepted = 0 < number < 10**MAX_AGE_DIGITS and number * _UNIT_DAYS[unit] <= MAX_AGE_DAYS
    return f"{field}{comparison}{number}{unit}" if is_accepted else None


def metric_condition(key: str, comparison: str, value: str, number: Decimal | None) -> str | None:
    """The condition of a term about a metric. `number`: the value as a number, if it is one.

    The server does not know how the table writes a number, so a part of one is left to the console.
    """
    if '"' in key or not key:
        return None
    name = f'metrics."{key}"' if _OPERATOR_CHARACTERS.search(key) else f"metrics.{key}"
    if comparison == ":":
        return None if _PART_OF_NUMBER.fullmatch(lower_ascii(value)) else f"{name}:{value}"
    if number is not None and len(number.as_tuple().digits) + abs(number.adjusted()) > MAX_DIGITS:
        return None
    if comparison in RANGES:
        return f"{name}{comparison}{number}"
    # A text such as 1k or [3] may be what the table shows of a number or a list.
    is_exact = number is None and not _PART_OF_NUMBER.fullmatch(lower_ascii(value))
    return f"{name}{comparison}{value}" if is_exact or (value.isdecimal() and value.isascii()) else None
