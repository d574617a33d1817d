"""Converts the metrics of a host's providers into a request body that every server accepts. Pure.

A value that exceeds a limit or is not JSON is dropped or cut, and `dropped` lists it; the rest is sent. The limits are
those of the protocol, so that the server does not reject a report for one bad metric.
"""

import json
from collections.abc import Mapping
from itertools import islice
from typing import Any, NamedTuple, cast

from shm_sdk.personal_data import describe_personal
from shm_sdk.values import InvalidValueError, clean_text, simplify

MAX_METRICS = 256  # values, including those in arrays
MAX_DEPTH = 8  # levels of objects and arrays, including the metrics object itself
MAX_KEY_CHARS = 128  # of a full dotted key
MAX_BODY_BYTES = 64 * 1024
ENVELOPE_BYTES = 2048  # reserved for the other members: an ID, a timestamp, a version, a number
MAX_VISITED_VALUES = 4096  # of one snapshot; also ends the walk of a structure that contains itself
EPHEMERAL_KEY = "sys_ephemeral"  # true: the server counts this install separately from lasting ones

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


class SanitizedMetrics(NamedTuple):
    """The metrics to send, and a line for each dropped one: its key and the reason."""

    metrics: dict[str, Json]
    dropped: list[str]


def sanitize(metrics: Mapping[Any, object]) -> SanitizedMetrics:
    """Drops what is not JSON or exceeds a limit. Of too many metrics, the first are kept."""
    sanitizer = _Sanitizer()
    kept = sanitizer.sanitize_mapping(metrics, "", 1)
    return SanitizedMetrics(_drop_largest(kept, sanitizer.dropped), sanitizer.dropped)


def mark_ephemeral(metrics: Mapping[str, Json]) -> dict[str, Json]:
    """The metrics of an install without a lasting identity. Of too many metrics, the last is dropped."""
    kept = {name: value for name, value in metrics.items() if name != EPHEMERAL_KEY}
    while kept and count_values(kept) >= MAX_METRICS:
        kept.popitem()
    return {**kept, EPHEMERAL_KEY: True}


def count_values(value: Json) -> int:
    """The values as the server counts them: leaves, empty objects, arrays and everything in arrays."""
    if isinstance(value, dict):
        return sum(count_values(member) for member in value.values()) if value else 1
    return 1 + _count_items(value) if isinstance(value, list) else 1


def _count_items(items: list[Json]) -> int:
    """The values in an array, those of objects and arrays in it included."""
    nested = (list(item.values()) if isinstance(item, dict) else item for item in items)
    return len(items) + sum(_count_items(item) for item in nested if isinstance(item, list))


def build_body(instance_id: str, timestamp: str, metrics: Mapping[str, Json], app_version: str, sequence: int) -> bytes:
    """The body of `POST /v1/snapshot`: the bytes that are signed and sent."""
    return encode_json(
        {
            "instance_id": instance_id,
            "timestamp": timestamp,
            "metrics": dict(metrics),
            "app_version": app_version,
            "sequence": sequence,
        }
    )


def encode_json(document: Mapping[str, object]) -> bytes:
    """JSON in UTF-8 without spaces."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


class _Sanitizer:
    """The state of one pass over one snapshot."""

    def __init__(self) -> None:
        self.dropped: list[str] = []
        self._paths: set[str] = set()
        self._values = 0
        self._visited = 0

    def sanitize_mapping(self, mapping: Mapping[Any, object], prefix: str, depth: int) -> dict[str, Json]:
        kept: dict[str, Json] = {}
        for key, value in list(islice(mapping.items(), MAX_VISITED_VALUES)):
            try:
                name = _sanitize_key(key, prefix)
                sanitized = self._sanitize_value(value, f"{prefix}{name}", depth)
                if not isinstance(sanitized, dict) or not sanitized:
                    self._add_path(f"{prefix}{name}", count_values(sanitized))
                kept[name] = sanitized
            except InvalidValueError as error:  # noqa: PERF203  # a bad value costs itself only
                self.dropped.append(f"{prefix}{_describe_key(key)}: {error}")
            except Exception as error:  # an object of the host that raises when it is read
                self.dropped.append(f"{prefix}?: {type(error).__name__}")
        return kept

    def _sanitize_value(self, value: object, path: str, depth: int) -> Json:
        self._visited += 1
        if self._visited > MAX_VISITED_VALUES:
            raise InvalidValueError("the snapshot is too large")
        simple = simplify(value)
        if isinstance(simple, Mapping):
            self._check_depth(depth)
            return self.sanitize_mapping(simple, f"{path}.", depth + 1)
        if isinstance(simple, list):
            self._check_depth(depth)
            return self._sanitize_list(simple, path, depth)
        return cast("bool | int | float | str | None", simple)

    def _sanitize_list(self, items: list[object], path: str, depth: int) -> list[Json]:
        """The items that can be sent; the others are left out, and the rest move up."""
        kept: list[Json] = []
        for number, item in enumerate(islice(items, MAX_VISITED_VALUES)):
            try:
                kept.append(self._sanitize_value(item, path, depth + 1))
            except InvalidValueError as error:  # a bad value costs itself only
                self.dropped.append(f"{path}[{number}]: {error}")
            except Exception as error:  # an object of the host that raises when it is read
                self.dropped.append(f"{path}[{number}]: {type(error).__name__}")
            if self._visited > MAX_VISITED_VALUES:
                break
        return kept

    def _add_path(self, path: str, values: int) -> None:
        if path in self._paths:
            raise InvalidValueError("the key occurs twice, dotted and nested")
        if self._values + values > MAX_METRICS:
            raise InvalidValueError(f"the snapshot has more than {MAX_METRICS} values, including those in arrays")
        self._values += values
        self._paths.add(path)

    def _check_depth(self, depth: int) -> None:
        if depth >= MAX_DEPTH:
            raise InvalidValueError(f"it has more than {MAX_DEPTH} levels")


def _sanitize_key(key: object, prefix: str) -> str:
    """The key as a string. Integers, which counters often have as keys, are converted."""
    name = str(key) if isinstance(key, int) and not isinstance(key, bool) else key
    if not isinstance(name, str):
        raise InvalidValueError("its key is not a string")
    if len(prefix) + len(name) > MAX_KEY_CHARS:
        raise InvalidValueError(f"its key has more than {MAX_KEY_CHARS} characters")
    if kind := describe_personal(name):
        raise InvalidValueError(f"its key looks like {kind}")
    if not name or name != clean_text(name):
        raise InvalidValueError("its key is empty or contains a character that databases reject")
    return str(name)


def _describe_key(key: object) -> str:
    """The key for a log line, without one that says who somebody is."""
    if not isinstance(key, str | int):
        return type(key).__name__
    name = str(key)
    return "?" if describe_personal(name) else name[:MAX_KEY_CHARS].encode(errors="backslashreplace").decode()


def _drop_largest(metrics: dict[str, Json], dropped: list[str]) -> dict[str, Json]:
    """Drops the largest metrics until the rest fits into a body."""
    sizes = {name: len(encode_json({name: value})) for name, value in metrics.items()}
    excess_bytes = sum(sizes.values()) - (MAX_BODY_BYTES - ENVELOPE_BYTES)
    kept = dict(metrics)
    for name in sorted(sizes, key=lambda name: sizes[name], reverse=True):
        if excess_bytes <= 0:
            break
        excess_bytes -= sizes[name]
        del kept[name]
        dropped.append(f"{name}: the snapshot is larger than {MAX_BODY_BYTES} bytes")
    return kept
