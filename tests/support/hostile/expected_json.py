"""A slow reference implementation of the rules for metrics in docs/protocol.md, for comparison by the fuzzer."""

import json
import math
import sys
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from shm.core.settings import Settings

LIMITS = Settings()
MAX_DIGITS = 330  # of a stored number
MAX_DIGITS_READ = 4_300  # of a whole number that is parsed, even one that a later equal key replaces
MAX_EXPONENT_DIGITS = 18


def parse(text: bytes) -> Any:
    """Parses JSON as in RFC 8259; numbers keep all digits. Raises ValueError, also for numbers that are too long."""
    return json.loads(
        text.decode(), parse_float=_number, parse_int=_number, parse_constant=_number, object_pairs_hook=_members
    )


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuses lone surrogates, also in a value that a later equal key replaces."""
    for key, value in pairs:
        for each in (key, *scalars(value)):
            if isinstance(each, str):
                each.encode()
    return dict(pairs)


def _number(text: str) -> Decimal:
    mantissa, _, exponent = text.lower().partition("e")
    if (
        text[-1] in "Ny"
        or len(exponent.lstrip("+-")) > MAX_EXPONENT_DIGITS
        or ("." not in mantissa and len(mantissa) > MAX_DIGITS_READ)
    ):
        raise ValueError(text)
    return Decimal(text)


def is_same(shown: Any, sent: Any) -> bool:
    """Whether both are the same JSON with the same digits. 1.50 differs from 1.5; 1e2 equals 100."""
    if isinstance(sent, dict):
        return (
            isinstance(shown, dict)
            and shown.keys() == sent.keys()
            and all(is_same(shown[key], sent[key]) for key in sent)
        )
    if isinstance(sent, list):
        return isinstance(shown, list) and len(shown) == len(sent) and all(map(is_same, shown, sent))
    if isinstance(sent, Decimal):
        return isinstance(shown, Decimal) and shown == sent and decimals(shown) == decimals(sent)
    return type(shown) is type(sent) and bool(shown == sent)


def decimals(number: Decimal) -> int:
    """The number of digits after the decimal point."""
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int)
    return max(0, -exponent)


def can_be_stored(metrics: Any) -> bool:
    """Whether the server has to store these metrics."""
    if not isinstance(metrics, dict):
        return False
    keys = Counter(key for key, _ in leaves(metrics))
    return (
        all(map(_scalar_can_be_stored, scalars(metrics)))
        and depth(metrics) <= LIMITS.max_depth
        and sum(count(leaf) for _, leaf in leaves(metrics)) + count_empty_objects(metrics) <= LIMITS.max_metrics
        and all(len(key) <= LIMITS.max_key for key in dotted_keys(metrics))
        and max(keys.values(), default=1) == 1
    )


def leaves(members: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each leaf with its dotted key."""
    for name, value in members.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def count_empty_objects(members: dict[str, Any]) -> int:
    """The number of empty objects, each of which counts as a leaf."""
    return sum((count_empty_objects(value) if value else 1) for value in members.values() if isinstance(value, dict))


def dotted_keys(members: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted key of every leaf and of every object."""
    for name, value in members.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from dotted_keys(value, f"{prefix}{name}.")


def scalars(value: Any) -> Iterator[Any]:
    """All values that are neither an array nor an object, and all keys."""
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from scalars(inner)
    else:
        yield value


def depth(value: Any) -> int:
    """The number of nested arrays and objects."""
    if not isinstance(value, dict | list):
        return 0
    return 1 + max(map(depth, value.values() if isinstance(value, dict) else value), default=0)


def count(value: Any) -> int:
    """The number of values in a leaf: an array counts as one value, in addition to its members."""
    if not isinstance(value, dict | list):
        return 1
    members = list(value.values()) if isinstance(value, dict) else value
    return 1 + sum(map(count, members))


def _scalar_can_be_stored(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= LIMITS.max_text and "\0" not in value and value.isascii() | _is_utf8(value)
    if isinstance(value, Decimal) and value:
        digits = len(value.as_tuple().digits)
        return digits <= MAX_DIGITS and Decimal(math.ulp(0.0)) <= value.copy_abs() <= Decimal(sys.float_info.max)
    return True


def _is_utf8(value: str) -> bool:
    try:
        return bool(value.encode())
    except UnicodeEncodeError:  # a lone surrogate, which Python's parser accepts
        return False
