"""Flattens the metrics object of a snapshot into leaves with dotted keys, and checks every limit, in one pass. Pure.

Values that PostgreSQL cannot store (NUL, numbers beyond a double) are refused. The result is encoded from the checked
object, so unchecked input (such as the first of two equal keys) is not stored.
"""

import math
import sys
from decimal import Decimal

import msgspec

from shm.core.errors import BadRequest
from shm.core.metric_keys import MAX_CATEGORY_LENGTH, MAX_DIGITS, Leaf
from shm.core.settings import Settings

MAX_NUMBER = Decimal(sys.float_info.max)  # `numeric` also accepts 1e100000, and writes it with 100,001 digits
MIN_NUMBER = Decimal(math.ulp(0.0))  # the smallest positive double
PLAIN_EXPONENTS = range(MIN_NUMBER.adjusted() + 1, MAX_NUMBER.adjusted())  # exponents for which no comparison is needed
PLAIN_INT = 2**63  # smaller integers need no check

MAX_SHOWN_KEY = 40  # characters of a key in an error detail: enough to find it

_encoder = msgspec.json.Encoder(decimal_format="number")


class Flattened(msgspec.Struct, frozen=True):
    """A metrics object and its aggregated leaves by dotted key, both as JSON; None for leaves equal to the object.

    `keys`: those of the leaves. `strings`: the keys and values of those that are strings.
    """

    metrics: msgspec.Raw
    leaves: msgspec.Raw | None
    keys: tuple[str, ...]
    strings: tuple[tuple[str, str], ...]


def flatten(metrics: dict[str, object], limits: Settings) -> Flattened:
    """Flattens a metrics object, whose numbers are int or Decimal. Raises BadRequest."""
    flattener = _Flattener(limits)
    flattener.visit_members(metrics, "", 1)
    aggregated = flattener.aggregated
    encoded = msgspec.Raw(_encoder.encode(metrics))
    # Most objects are flat and have no values that are not aggregated.
    leaves = None if aggregated == metrics else msgspec.Raw(_encoder.encode(aggregated))
    strings = tuple([(key, value) for key, value in aggregated.items() if isinstance(value, str)])
    return Flattened(encoded, leaves, tuple(aggregated), strings)


class _Flattener:
    """One pass over one metrics object. It stops at the first excess value: a body can contain half a million."""

    def __init__(self, limits: Settings) -> None:
        self._max_depth = limits.max_depth
        self._max_key = limits.max_key
        self._max_text = limits.max_text
        self._max_values = limits.max_metrics
        self._values = 0
        self._not_aggregated: set[str] = set()
        self.aggregated: dict[str, Leaf] = {}

    def visit_members(self, members: dict[str, object], prefix: str, depth: int) -> None:
        """Visits the members of an object whose keys begin with `prefix`.

        Arrays, nulls and long strings are stored and shown, but not aggregated.
        """
        if depth > self._max_depth:
            raise self._too_deep(prefix[:-1])
        self._count_values(len(members))
        aggregated, not_aggregated, max_key = self.aggregated, self._not_aggregated, self._max_key
        for name, value in members.items():
            key = prefix + name
            if len(key) > max_key or "\0" in name:
                raise self._bad_key(key)
            if isinstance(value, dict):
                if value:  # else it has no leaf, but it is stored
                    self._values -= 1  # its members count
                self.visit_members(value, f"{key}.", depth + 1)
                continue
            if key in aggregated or key in not_aggregated:
                detail = f"metrics contains {abbreviate_key(key)} twice, once with a dot and once nested."
                raise BadRequest("ambiguous_metric", detail)
            if isinstance(value, list):
                self._visit_array(value, key, depth + 1)
                not_aggregated.add(key)
            elif self._check_scalar(value, key):
                aggregated[key] = value  # type: ignore[assignment]  # the other JSON types
            else:
                not_aggregated.add(key)

    def _visit_array(self, members: list[object], key: str, depth: int) -> None:
        if depth > self._max_depth:
            raise self._too_deep(key)
        self._count_values(len(members))
        for value in members:
            if isinstance(value, list):
                self._visit_array(value, key, depth + 1)
            elif isinstance(value, dict):
                for name in value:  # checked like a text: an object in an array has no leaves
                    self._check_scalar(name, key)
                self._visit_array(list(value.values()), key, depth + 1)
            else:
                self._check_scalar(value, key)

    def _check_scalar(self, value: object, key: str) -> bool:
        """Returns whether the value is aggregated."""
        if isinstance(value, str):
            if len(value) > self._max_text or "\0" in value:
                check_text(value, f"metrics.{abbreviate_key(key)}", self._max_text)
            return len(value) <= MAX_CATEGORY_LENGTH
        if isinstance(value, int):
            if not -PLAIN_INT < value < PLAIN_INT:
                _check_number(Decimal(value), key)
        elif isinstance(value, Decimal):
            _check_number(value, key)
        return value is not None

    def _count_values(self, count: int) -> None:
        self._values += count
        if self._values > self._max_values:
            detail = f"metrics contains more than {self._max_values} values, including those in arrays."
            raise BadRequest("too_many_metrics", detail)

    def _bad_key(self, key: str) -> BadRequest:
        if len(key) > self._max_key:
            detail = f"metrics.{abbreviate_key(key)}: a key has at most {self._max_key} characters."
            return BadRequest("key_too_long", detail)
        return _nul("a key in metrics")

    def _too_deep(self, key: str) -> BadRequest:
        return BadRequest("too_deep", f"metrics.{abbreviate_key(key)}: the maximum depth is {self._max_depth} levels.")


def check_text(value: str, field: str, max_length: int) -> None:
    """Raises BadRequest, which names `field`, for a text that is too long or contains NUL."""
    if len(value) > max_length:
        raise BadRequest("text_too_long", f"{field} has {len(value)} characters; at most {max_length} are allowed.")
    if "\0" in value:
        raise _nul(field)


def abbreviate_key(key: str) -> str:
    """A key for an error detail: at most 40 characters, on one line."""
    escaped = key[: MAX_SHOWN_KEY + 1].encode("unicode_escape").decode()
    return escaped if len(escaped) <= MAX_SHOWN_KEY else escaped[:MAX_SHOWN_KEY] + "…"


def _nul(field: str) -> BadRequest:
    return BadRequest("nul_character", f"{field} contains the character U+0000, which cannot be stored.")


def _check_number(value: Decimal, key: str) -> None:
    # A number has at most as many digits as characters, and `as_tuple` takes several times as long as `str`.
    has_many_digits = len(str(value)) > MAX_DIGITS and len(value.as_tuple().digits) > MAX_DIGITS
    if has_many_digits or (
        value.adjusted() not in PLAIN_EXPONENTS and not MIN_NUMBER <= value.copy_abs() <= MAX_NUMBER
    ):
        detail = f"metrics.{abbreviate_key(key)} is beyond the range of a double."
        raise BadRequest("number_out_of_range", detail)
