"""The limits of the server for the metrics of one snapshot. Pure."""

import math
from collections.abc import Mapping

from shm_sdk.testing.refusals import Refusal

MAX_VALUES = 256
MAX_DEPTH = 8
MAX_KEY_CHARS = 128
MAX_TEXT_CHARS = 1024


def check_metrics(metrics: Mapping[str, object]) -> None:
    """Raises Refusal for the first value that the server would not store."""
    checker = _Checker()
    checker.check_members(metrics, "", 1)


class _Checker:
    """One pass over one metrics object."""

    def __init__(self) -> None:
        self._keys: set[str] = set()
        self._values = 0

    def check_members(self, members: Mapping[str, object], prefix: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise Refusal(400, "too_deep")
        for name, value in members.items():
            key = f"{prefix}{name}"
            if len(key) > MAX_KEY_CHARS:
                raise Refusal(400, "key_too_long")
            if "\0" in name:
                raise Refusal(400, "nul_character")
            if isinstance(value, dict):
                self._count(0 if value else 1)
                self.check_members(value, f"{key}.", depth + 1)
                continue
            self._count(1)
            if key in self._keys:
                raise Refusal(400, "ambiguous_metric")
            self._keys.add(key)
            if isinstance(value, list):
                self._check_items(value, depth + 1)
            else:
                check_scalar(value)

    def _check_items(self, items: list[object], depth: int) -> None:
        if depth > MAX_DEPTH:
            raise Refusal(400, "too_deep")
        self._count(len(items))
        for item in items:
            if isinstance(item, list):
                self._check_items(item, depth + 1)
            elif isinstance(item, dict):
                for name in item:
                    check_scalar(name)
                self._check_items(list(item.values()), depth + 1)
            else:
                check_scalar(item)

    def _count(self, values: int) -> None:
        self._values += values
        if self._values > MAX_VALUES:
            raise Refusal(400, "too_many_metrics")


def check_scalar(value: object) -> None:
    """Raises Refusal for a text or a number beyond the limits."""
    if isinstance(value, str):
        check_text(value, MAX_TEXT_CHARS)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        try:
            is_finite = math.isfinite(float(value))
        except OverflowError:
            is_finite = False
        if not is_finite:
            raise Refusal(400, "number_out_of_range")


def check_text(value: str, max_chars: int) -> None:
    """Raises Refusal for a text that is too long or has a NUL."""
    if len(value) > max_chars:
        raise Refusal(400, "text_too_long")
    if "\0" in value:
        raise Refusal(400, "nul_character")
