"""From what a host's provider returns to a body that every server accepts. Pure.

What exceeds a limit or is no JSON is left out or cut, and named in `dropped`; the rest goes. The limits are those of
the protocol, so that one bad metric never costs an install its report.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

MOST_METRICS = 256
DEEPEST = 8  # objects and arrays in each other, the metrics object itself being the first
LONGEST_KEY = 128  # characters of a whole dotted key
LONGEST_TEXT = 1024  # characters
LARGEST_BODY = 64 * 1024  # bytes of the whole request
ENVELOPE_ROOM = 2048  # bytes kept for what surrounds the metrics: two short strings, an ID, a time, a number
LARGEST_NUMBER_BITS = 1024  # about what a float holds; a counter beyond it is a mistake
MOST_VISITED = 4096  # values looked at in one snapshot, which also ends structures that contain themselves

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


@dataclass
class Cleaned:
    """Metrics that can go, and a word on each that cannot."""

    metrics: dict[str, Json] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)


class _Unfit(Exception):
    """This value cannot be sent; the message says why."""


def clean(metrics: Mapping[Any, object]) -> Cleaned:
    """Keeps what is JSON and within the limits; earlier keys win where there are too many."""
    cleaner = _Cleaner()
    kept = cleaner.mapping(metrics, "", 1)
    return Cleaned(_fitting(kept, cleaner.dropped), cleaner.dropped)


def body(instance_id: str, timestamp: str, metrics: Mapping[str, Json], app_version: str, sequence: int) -> bytes:
    """The bytes of `POST /v1/snapshot`: exactly what is signed and sent."""
    return encode(
        {
            "instance_id": instance_id,
            "timestamp": timestamp,
            "metrics": dict(metrics),
            "app_version": app_version,
            "sequence": sequence,
        }
    )


def encode(document: Mapping[str, object]) -> bytes:
    """JSON in UTF-8 without spaces."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


class _Cleaner:
    """One pass over one snapshot."""

    def __init__(self) -> None:
        self.dropped: list[str] = []
        self._metrics: set[str] = set()
        self._visited = 0

    def mapping(self, mapping: Mapping[Any, object], prefix: str, depth: int) -> dict[str, Json]:
        kept: dict[str, Json] = {}
        for key, value in list(islice(mapping.items(), MOST_VISITED)):
            try:
                name = _key(key, prefix)
                cleaned = self._value(value, f"{prefix}{name}", depth)
                if not isinstance(cleaned, dict):
                    self._count(f"{prefix}{name}")
                kept[name] = cleaned
            except _Unfit as error:
                name = str(key) if isinstance(key, str | int) else type(key).__name__
                self.dropped.append(f"{prefix}{name:.{LONGEST_KEY}}: {error}")
            except Exception as error:  # an object of the host that fails while it is looked at
                self.dropped.append(f"{prefix}?: {type(error).__name__}")
        return kept

    def _value(self, value: object, path: str, depth: int) -> Json:
        self._visited += 1
        if self._visited > MOST_VISITED:
            raise _Unfit("the snapshot is too large")
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return _text(value)
        if isinstance(value, Mapping):
            self._go_deeper(depth)
            return self.mapping(value, f"{path}.", depth + 1)
        if isinstance(value, list | tuple):
            self._go_deeper(depth)
            return [self._value(item, path, depth + 1) for item in islice(value, MOST_VISITED)]
        return _number(value)

    def _count(self, path: str) -> None:
        if path in self._metrics:
            raise _Unfit("it is there twice, once with a dot and once nested")
        if len(self._metrics) >= MOST_METRICS:
            raise _Unfit(f"there are more than {MOST_METRICS} metrics")
        self._metrics.add(path)

    def _go_deeper(self, depth: int) -> None:
        if depth >= DEEPEST:
            raise _Unfit(f"it is nested deeper than {DEEPEST}")


def _key(key: object, prefix: str) -> str:
    """The key as JSON has it. Counters are often keyed by an integer, so those become text."""
    name = str(key) if isinstance(key, int) and not isinstance(key, bool) else key
    if not isinstance(name, str):
        raise _Unfit("its key is not a string")
    if len(prefix) + len(name) > LONGEST_KEY:
        raise _Unfit(f"its key has more than {LONGEST_KEY} characters")
    if not name or name != _text(name):
        raise _Unfit("its key is empty or holds a character that no database takes")
    return str(name)


def _text(text: str) -> str:
    """Cut to size. NUL and lone surrogates, which no database takes, become question marks."""
    return text[:LONGEST_TEXT].replace("\0", "?").encode("utf-8", "replace").decode()


def _number(value: object) -> int | float:
    """Numbers of any library (decimal, fractions, numpy) as JSON has them; refuses all other objects."""
    if isinstance(value, float):
        number: int | float = float(value)
    elif hasattr(value, "__index__"):
        number = int(value.__index__())
    elif hasattr(value, "__float__"):
        number = float(value.__float__())
        if number.is_integer():
            number = int(value)  # type: ignore[call-overload]  # whoever has __float__ may have __int__; else dropped
    else:
        raise _Unfit(f"{type(value).__name__} is not JSON")
    if isinstance(number, float) and not math.isfinite(number):
        raise _Unfit("it is not a finite number")
    if isinstance(number, int) and number.bit_length() > LARGEST_NUMBER_BITS:
        raise _Unfit("it is too large a number")
    return number


def _fitting(metrics: dict[str, Json], dropped: list[str]) -> dict[str, Json]:
    """Leaves out the largest metrics until the rest fits a body."""
    sizes = {name: len(encode({name: value})) for name, value in metrics.items()}
    excess = sum(sizes.values()) - (LARGEST_BODY - ENVELOPE_ROOM)
    kept = dict(metrics)
    for name in sorted(sizes, key=lambda name: sizes[name], reverse=True):
        if excess <= 0:
            break
        excess -= sizes[name]
        del kept[name]
        dropped.append(f"{name}: the snapshot would be larger than {LARGEST_BODY} bytes")
    return kept
