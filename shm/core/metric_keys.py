"""What a metric is: its kind, how it is aggregated, what to call it and how to write its values. Pure.

A metric is a leaf of the metrics object; nested objects are joined by dots (`{"mail": {"sent": 3}}` is `mail.sent`).
The rules that read a key's words stand here and nowhere else: readers get their result with every key.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Literal

import msgspec

from shm.core.aggregates import Aggregate

Leaf = int | Decimal | bool | str | list[object] | None
Kind = Literal["business", "system"]
NumberFormat = Literal["number", "percent", "bytes", "duration"]
Format = Literal[NumberFormat, "boolean", "text", "json"]

MAX_CATEGORY_LENGTH = 64  # characters; a longer string is kept and shown, but is no category
MAX_LABEL_LENGTH = 64  # characters: a tile's title
MAX_UNIT_LENGTH = 16
MAX_DIGITS = 330  # of a number: a double written in full
WITHOUT_NUL = r"^[^\x00]*$"  # PostgreSQL keeps no NUL

SYSTEM_PREFIXES = ("sys_", "app_")
SYSTEM_WORDS = frozenset({"cpu", "mem", "memory", "uptime", "goroutines", "heap", "rss"})
MEAN_WORDS = frozenset({"pct", "percent", "ratio", "avg", "mean", "rate"})
UNITS = {  # by a key's last word
    "pct": "%",
    "percent": "%",
    "bytes": "B",
    "kb": "kB",
    "mb": "MB",
    "gb": "GB",
    "ms": "ms",
    "s": "s",
    "seconds": "s",
    "h": "h",
    "hours": "h",
}
FORMATS: Mapping[str, NumberFormat] = {  # by unit
    "%": "percent",
    **dict.fromkeys(("B", "kB", "MB", "GB", "TB"), "bytes"),
    **dict.fromkeys(("ms", "s", "min", "h", "d"), "duration"),
}

SEPARATORS = re.compile(r"[\W_]+")
LABEL_SEPARATORS = re.compile(r"[\s._-]+")  # of a label's words; what else stands in a key is shown
CASE_BOUNDARY = re.compile(  # cpu|Percent, p95|Latency, HTTP|Requests; the s of IDs begins no word
    r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z](?!s(?![a-z])|v\d)[a-z])"
)


class MetricOverride(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the vendor says of a key, instead of its words. `hidden`: in no KPI, series or list of them."""

    kind: Kind | None = None
    aggregate: Aggregate | None = None
    label: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_LABEL_LENGTH, pattern=WITHOUT_NUL)] | None = None
    unit: Annotated[str, msgspec.Meta(max_length=MAX_UNIT_LENGTH, pattern=WITHOUT_NUL)] | None = None
    hidden: bool = False


Overrides = Mapping[str, MetricOverride]

NO_OVERRIDE = MetricOverride()


@dataclass(frozen=True, slots=True)
class Description:
    """What is known of a key before any value. `aggregate`, `unit` and `format` are of its numbers."""

    key: str
    label: str
    kind: Kind
    aggregate: Aggregate
    unit: str | None
    format: NumberFormat
    hidden: bool


def describe(key: str, override: MetricOverride = NO_OVERRIDE) -> Description:
    """A key by its words, except where the vendor's override says otherwise."""
    found = split_words(key)
    system = key.startswith(SYSTEM_PREFIXES) or not SYSTEM_WORDS.isdisjoint(found)
    mean = system or not MEAN_WORDS.isdisjoint(found)
    by_words = UNITS.get(found[-1]) if len(found) > 1 else None
    unit = (by_words if override.unit is None else override.unit) or None
    return Description(
        key,
        override.label or make_label(key),
        override.kind or ("system" if system else "business"),
        override.aggregate or ("avg" if mean else "sum"),
        unit,
        FORMATS.get(unit or "", "number"),
        override.hidden,
    )


def common_override(overrides: Collection[MetricOverride]) -> MetricOverride:
    """What several applications' overrides of one key all say; nothing where they differ."""
    first = next(iter(overrides), NO_OVERRIDE)
    common = {
        name: getattr(first, name)
        for name in MetricOverride.__struct_fields__
        if len({getattr(each, name) for each in overrides}) == 1
    }
    return MetricOverride(**common)


def common_aggregate(key: str, overrides: Collection[MetricOverride]) -> Aggregate | None:
    """The aggregate of a key over several applications, with their overrides of it; None where they differ."""
    found = {describe(key, each).aggregate for each in overrides or [NO_OVERRIDE]}
    return found.pop() if len(found) == 1 else None


def split_words(key: str) -> list[str]:
    """A key's words in lower case: split at separators and at changes of case."""
    return [word.lower() for part in SEPARATORS.split(key) for word in CASE_BOUNDARY.split(part) if word]


def make_label(key: str) -> str:
    """A key as a title: its words, the first one with a capital letter. A word of capitals (`HTTP`) keeps them."""
    parts = [CASE_BOUNDARY.split(part) for part in LABEL_SEPARATORS.split(key) if part]
    shown = " ".join(word for first, *others in parts for word in (first, *map(_within_a_label, others))) or key
    return shown[:1].upper() + shown[1:]


def _within_a_label(word: str) -> str:
    return word[:1].lower() + word[1:] if word[1:2].islower() or len(word) == 1 else word
