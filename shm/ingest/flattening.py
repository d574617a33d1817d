"""The metrics object of a snapshot, walked once: every limit is held, and its leaves are joined by dots. Pure.

What PostgreSQL could not store (NUL, numbers beyond reason) is refused here. What comes out was written from what was
checked, so nothing unchecked (such as the first of two equal keys) goes any further.
"""

import math
import sys
from decimal import Decimal

import msgspec

from shm.core.errors import BadRequest
from shm.core.metric_keys import MAX_CATEGORY_LENGTH, MAX_DIGITS, Leaf
from shm.core.settings import Settings

MAX_NUMBER = Decimal(sys.float_info.max)  # PostgreSQL would keep 1e100000 too, and write it in 100,001 digits
MIN_NUMBER = Decimal(math.ulp(0.0))  # the least above zero
PLAIN_EXPONENTS = range(MIN_NUMBER.adjusted() + 1, MAX_NUMBER.adjusted())  # of these nothing needs to be compared
PLAIN_INT = 2**63  # below it nothing about an integer needs to be looked at

MAX_SHOWN_KEY = 40  # characters of a key in a refusal: enough to find it

_encoder = msgspec.json.Encoder(decimal_format="number")


def flatten(metrics: dict[str, object], limits: Settings) -> tuple[msgspec.Raw, msgspec.Raw | None]:
    """The object and its aggregated leaves, both as JSON; None for leaves that are the object itself.

    Numbers are int or Decimal. Raises BadRequest.
    """
    walk = _Flattener(limits)
    walk.members(metrics, "", 1)
    kept = msgspec.Raw(_encoder.encode(metrics))
    if walk.aggregated == metrics:  # flat, and nothing in it that is only kept: the usual snapshot
        return kept, None
    return kept, msgspec.Raw(_encoder.encode(walk.aggregated))


class _Flattener:
    """One walk over one metrics object. It ends at the first value too many: a body has room for half a million."""

    def __init__(self, limits: Settings) -> None:
        self._most_deep = limits.max_depth
        self._longest_key = limits.max_key
        self._longest_text = limits.max_text
        self._most_values = limits.max_metrics
        self._values = 0
        self._only_kept: set[str] = set()
        self.aggregated: dict[str, Leaf] = {}

    def members(self, members: dict[str, object], prefix: str, depth: int) -> None:
        """Walks an object whose keys begin with `prefix`."""
        if depth > self._most_deep:
            raise self._too_deep(prefix[:-1])
        for name, value in members.items():
            key = prefix + name
            if len(key) > self._longest_key:
                sentence = f"metrics.{abbreviate_key(key)}: a key has at most {self._longest_key} characters."
                raise BadRequest("key_too_long", sentence)
            if "\0" in name:
                raise _nul("a key in metrics")
            if isinstance(value, dict):
                if not value:  # it has no leaf, but it is kept
                    self._values += 1
                    if self._values > self._most_values:
                        raise self._too_many()
                self.members(value, f"{key}.", depth + 1)
            else:
                self._leaf(key, value, depth + 1)

    def _leaf(self, key: str, value: object, depth: int) -> None:
        """Arrays, nulls and long strings are only kept and shown; all else is aggregated."""
        self._values += 1
        if self._values > self._most_values:
            raise self._too_many()
        if key in self.aggregated or key in self._only_kept:
            sentence = f"metrics names {abbreviate_key(key)} twice, once with a dot and once nested."
            raise BadRequest("ambiguous_metric", sentence)
        if isinstance(value, list):
            self._array(value, key, depth)
            self._only_kept.add(key)
            return
        self._scalar(value, key)
        if value is None or (isinstance(value, str) and len(value) > MAX_CATEGORY_LENGTH):
            self._only_kept.add(key)
        else:
            self.aggregated[key] = value  # type: ignore[assignment]  # JSON holds nothing else

    def _array(self, members: list[object], key: str, depth: int) -> None:
        if depth > self._most_deep:
            raise self._too_deep(key)
        self._values += len(members)
        if self._values > self._most_values:
            raise self._too_many()
        for value in members:
            if isinstance(value, list):
                self._array(value, key, depth + 1)
            elif isinstance(value, dict):
                for name in value:  # text like any other: an object in an array has no leaves
                    self._scalar(name, key)
                self._array(list(value.values()), key, depth + 1)
            else:
                self._scalar(value, key)

    def _scalar(self, value: object, key: str) -> None:
        if isinstance(value, str):
            if len(value) > self._longest_text or "\0" in value:
                check_text(value, f"metrics.{abbreviate_key(key)}", self._longest_text)
        elif isinstance(value, int):
            if not -PLAIN_INT < value < PLAIN_INT:
                _check_number(Decimal(value), key)
        elif isinstance(value, Decimal):
            _check_number(value, key)

    def _too_many(self) -> BadRequest:
        sentence = f"metrics holds more than {self._most_values} values, those in arrays counted."
        return BadRequest("too_many_metrics", sentence)

    def _too_deep(self, key: str) -> BadRequest:
        return BadRequest("too_deep", f"metrics.{abbreviate_key(key)}: metrics are read {self._most_deep} levels deep.")


def check_text(value: str, where: str, longest: int) -> None:
    """Raises BadRequest for a text that is too long or cannot be stored."""
    if len(value) > longest:
        raise BadRequest("text_too_long", f"{where} has {len(value)} characters; at most {longest} are kept.")
    if "\0" in value:
        raise _nul(where)


def abbreviate_key(key: str) -> str:
    """A key as an answer may show it: short, and on one line."""
    written = key[: MAX_SHOWN_KEY + 1].encode("unicode_escape").decode()
    return written if len(written) <= MAX_SHOWN_KEY else written[:MAX_SHOWN_KEY] + "…"


def _nul(where: str) -> BadRequest:
    return BadRequest("nul_character", f"{where} holds the character U+0000, which cannot be stored.")


def _check_number(value: Decimal, key: str) -> None:
    if len(value.as_tuple().digits) > MAX_DIGITS or (
        value.adjusted() not in PLAIN_EXPONENTS and not MIN_NUMBER <= value.copy_abs() <= MAX_NUMBER
    ):
        sentence = f"metrics.{abbreviate_key(key)} is beyond what a double-precision number holds."
        raise BadRequest("number_out_of_range", sentence)
