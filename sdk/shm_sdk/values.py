"""Converts one value of a host's metrics to JSON. Pure.

Enum                  its value, or its name where the value is no plain one
datetime              RFC 3339; in UTC with `Z` if it has a time zone, without an offset if not
date, time, UUID      as text
timedelta             seconds
Path                  as text
Decimal, Fraction     a whole number stays exact; another becomes the nearest float
numpy                 scalars and arrays as Python's own values
set                   a sorted array
"""

import enum
import math
import sys
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta, timezone
from pathlib import PurePath

from shm_sdk.personal_data import describe_personal

MAX_STRING_CHARS = 1024
MAX_NUMBER_BITS = 1024  # about the range of a float; a larger counter is a mistake
MAX_ARRAY_VALUES = 4096


class InvalidValueError(Exception):
    """A value cannot be sent. The message is the reason."""


def simplify(value: object) -> object:
    """The value as None, bool, int, float, str, a mapping or a list, whose members are not converted yet.

    Raises InvalidValueError for a value that has no such form, and for a personal text.
    """
    if isinstance(value, enum.Enum):
        inner: object = value.value
        value = inner if isinstance(inner, str | int | float) else value.name
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return clean_text(value)
    if type(value) is int or isinstance(value, float):
        return check_number(value)
    if isinstance(value, Mapping | list):
        return value
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, set | frozenset):
        return sorted(value, key=lambda item: (type(item).__name__, str(item)))
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        if getattr(value, "size", 0) > MAX_ARRAY_VALUES:
            raise InvalidValueError(f"the array has more than {MAX_ARRAY_VALUES} values")
        converted: object = value.tolist()
        if hasattr(converted, "dtype"):
            raise InvalidValueError(f"{type(value).__name__} is not JSON")
        return simplify(converted)
    if isinstance(value, timedelta):
        return check_number(value.total_seconds())
    uuid_type = getattr(sys.modules.get("uuid"), "UUID", ())  # loaded if the value is one; another thread may import it
    if isinstance(value, (datetime, date, time, PurePath, uuid_type)):
        return clean_text(_format(value))
    return check_number(_convert_number(value))


def clean_text(text: str) -> str:
    """The text, cut to its limit. NUL and lone surrogates, which databases reject, become question marks."""
    if kind := describe_personal(text):
        raise InvalidValueError(f"it looks like {kind}")
    return text[:MAX_STRING_CHARS].replace("\0", "?").encode("utf-8", "replace").decode()


def check_number(number: int | float) -> int | float:
    """The number; raises InvalidValueError for one that is not JSON, or beyond any counter."""
    if isinstance(number, float):
        number = float(number)  # of a subclass
        if not math.isfinite(number):
            raise InvalidValueError("it is not a finite number")
    elif number.bit_length() > MAX_NUMBER_BITS:
        raise InvalidValueError("the number is too large")
    return number


def _format(value: object) -> str:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")
    return value.isoformat() if isinstance(value, date | time) else str(value)


def _convert_number(value: object) -> int | float:
    """A number of any library as int or float; raises for other objects."""
    if hasattr(value, "__index__"):
        return int(value.__index__())
    if not hasattr(value, "__float__"):
        raise InvalidValueError(f"{type(value).__name__} is not JSON")
    number = float(value.__float__())
    if math.isfinite(number) and number.is_integer():
        return int(value)  # type: ignore[call-overload,no-any-return]  # without __int__ it raises, and it is dropped
    return number
