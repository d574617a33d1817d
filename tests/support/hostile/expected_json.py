"""What docs/protocol.md says of metrics, said again without regard to speed: the fuzzer holds the server to it."""

import json
import math
import sys
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from shm.core.settings import Settings

LIMITS = Settings()
MAX_DIGITS = 330  # of a number that is kept
MAX_DIGITS_READ = 4_300  # of a whole number that is read at all, be it only to be dropped for a later equal key
MAX_EXPONENT_DIGITS = 18  # digits


def parse(text: bytes) -> Any:
    """JSON as RFC 8259 has it, numbers with all their digits. Raises ValueError, also for what no machine reads."""
    return json.loads(
        text.decode(), parse_float=_number, parse_int=_number, parse_constant=_number, object_pairs_hook=_members
    )


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Lone surrogates are no text, also in what a later equal key drops."""
    for key, value in pairs:
        for each in (key, *scalars(value)):
            if isinstance(each, str):
                each.encode()
    return dict(pairs)


def _number(written: str) -> Decimal:
    mantissa, _, exponent = written.lower().partition("e")
    if (
        written[-1] in "Ny"
        or len(exponent.lstrip("+-")) > MAX_EXPONENT_DIGITS
        or ("." not in mantissa and len(mantissa) > MAX_DIGITS_READ)
    ):
        raise ValueError(written)
    return Decimal(written)


def is_same(shown: Any, sent: Any) -> bool:
    """Whether both are the same JSON, digit for digit: 1.50 is not 1.5, though 1e2 may be written 100."""
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
    """How many digits stand after the point."""
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int)
    return max(0, -exponent)


def can_be_kept(metrics: Any) -> bool:
    """What docs/protocol.md says of metrics, said again without regard to speed."""
    if not isinstance(metrics, dict):
        return False
    keys = Counter(key for key, _ in leaves(metrics))
    return (
        all(map(_scalar_can_be_kept, scalars(metrics)))
        and depth(metrics) <= LIMITS.max_depth
        and sum(count(leaf) for _, leaf in leaves(metrics)) + hollow(metrics) <= LIMITS.max_metrics
        and all(len(key) <= LIMITS.max_key for key in dotted(metrics))
        and max(keys.values(), default=1) == 1
    )


def leaves(members: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each leaf with its dotted key."""
    for name, value in members.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def hollow(members: dict[str, Any]) -> int:
    """How many objects with nothing in them stand where a leaf could."""
    return sum((hollow(value) if value else 1) for value in members.values() if isinstance(value, dict))


def dotted(members: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted key of every leaf and of every object."""
    for name, value in members.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from dotted(value, f"{prefix}{name}.")


def scalars(value: Any) -> Iterator[Any]:
    """Everything that is no array and no object, keys too."""
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from scalars(inner)
    else:
        yield value


def depth(value: Any) -> int:
    """How many arrays and objects are in each other."""
    if not isinstance(value, dict | list):
        return 0
    return 1 + max(map(depth, value.values() if isinstance(value, dict) else value), default=0)


def count(value: Any) -> int:
    """How many values a leaf is: an array is one, and its members."""
    if not isinstance(value, dict | list):
        return 1
    members = list(value.values()) if isinstance(value, dict) else value
    return 1 + sum(map(count, members))


def _scalar_can_be_kept(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= LIMITS.max_text and "\0" not in value and value.isascii() | _is_utf8(value)
    if isinstance(value, Decimal) and value:
        digits = len(value.as_tuple().digits)
        return digits <= MAX_DIGITS and Decimal(math.ulp(0.0)) <= value.copy_abs() <= Decimal(sys.float_info.max)
    return True


def _is_utf8(value: str) -> bool:
    try:
        return bool(value.encode())
    except UnicodeEncodeError:  # a lone surrogate, which Python's reader lets through
        return False
