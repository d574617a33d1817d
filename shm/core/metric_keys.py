"""Metric keys: the kind, the aggregate, the label, the unit and the format that follow from a key's words.

A metric is a leaf of the metrics object; nested objects are joined by dots (`{"mail": {"sent": 3}}` is `mail.sent`).
The words are in `shm.core.metric_words`. Clients of the API receive the result with every key.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Literal

import msgspec

from shm.core import metric_words
from shm.core.aggregates import Aggregate
from shm.core.json_types import WITHOUT_NUL

Leaf = int | Decimal | bool | str | list[object] | None
Kind = Literal["business", "system"]
NumberFormat = Literal["number", "percent", "bytes", "duration"]
Format = Literal[NumberFormat, "boolean", "text", "json"]

MAX_CATEGORY_LENGTH = 64  # characters; a longer string is stored and shown, but not counted as a category
MAX_KEY_LENGTH = 512  # characters: the longest key that SHM_MAX_KEY can allow
MAX_OVERRIDES = 500  # of an application: as many as the KPIs of one type
MAX_LABEL_LENGTH = 64  # characters that fit into the title of a tile
MAX_UNIT_LENGTH = 16
MAX_DESCRIPTION_LENGTH = 200
MAX_DIGITS = 330  # digits of a number: enough for a double written in full

Key = Annotated[str, msgspec.Meta(max_length=MAX_KEY_LENGTH, pattern=WITHOUT_NUL)]

FORMATS: Mapping[str, NumberFormat] = {  # by unit
    "%": "percent",
    **dict.fromkeys(("B", "kB", "MB", "GB", "TB"), "bytes"),
    **dict.fromkeys(("ms", "s", "min", "h", "d"), "duration"),
}

SEPARATORS = re.compile(r"[\W_]+")
LABEL_SEPARATORS = re.compile(r"[\s._-]+")  # become spaces in a label; other punctuation of a key is shown
CASE_BOUNDARY = re.compile(  # cpu|Percent, p95|Latency, HTTP|Requests; the s of IDs does not begin a word
    r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z](?!s(?![a-z])|v\d)[a-z])"
)


class MetricOverride(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The vendor's values for a key, which replace those of its words. `hidden`: left out of KPIs, series and lists."""

    kind: Kind | None = None
    aggregate: Aggregate | None = None
    label: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_LABEL_LENGTH, pattern=WITHOUT_NUL)] | None = None
    unit: Annotated[str, msgspec.Meta(max_length=MAX_UNIT_LENGTH, pattern=WITHOUT_NUL)] | None = None
    description: Annotated[str, msgspec.Meta(max_length=MAX_DESCRIPTION_LENGTH, pattern=WITHOUT_NUL)] | None = None
    hidden: bool = False


NO_OVERRIDE = MetricOverride()

_words = metric_words.built_in()


def set_metric_words(words: metric_words.MetricWords) -> None:
    """Replaces the words of this process. A server calls it once, before it answers."""
    global _words
    _words = words


@dataclass(frozen=True, slots=True)
class Description:
    """The properties of a key. `aggregate`, `unit` and `format` apply to its numbers."""

    key: str
    label: str
    kind: Kind
    aggregate: Aggregate
    unit: str | None
    format: NumberFormat
    description: str | None
    hidden: bool


def describe(key: str, override: MetricOverride = NO_OVERRIDE) -> Description:
    """The description of a key: by its words, except for the fields that the override sets."""
    words = split_words(key)
    is_system = _words.is_system(key, words)
    unit = (_words.unit_of(words) if override.unit is None else override.unit) or None
    return Description(
        key,
        override.label or make_label(key),
        override.kind or ("system" if is_system else "business"),
        override.aggregate or ("avg" if is_system else _words.aggregate_of(words)),
        unit,
        FORMATS.get(unit or "", "number"),
        override.description or None,
        override.hidden,
    )


def common_override(overrides: Collection[MetricOverride]) -> MetricOverride:
    """The fields on which all applications' overrides of one key agree; the others are unset."""
    first = next(iter(overrides), NO_OVERRIDE)
    common = {
        name: getattr(first, name)
        for name in MetricOverride.__struct_fields__
        if len({getattr(override, name) for override in overrides}) == 1
    }
    return MetricOverride(**common)


def common_aggregate(key: str, overrides: Collection[MetricOverride]) -> Aggregate | None:
    """The aggregate of a key over several applications, with their overrides of it; None where they differ."""
    distinct = {describe(key, override).aggregate for override in overrides or [NO_OVERRIDE]}
    return distinct.pop() if len(distinct) == 1 else None


def split_words(key: str) -> list[str]:
    """The words of a key in lower case, split at separators and at changes of case."""
    return [word.lower() for part in SEPARATORS.split(key) for word in CASE_BOUNDARY.split(part) if word]


def make_label(key: str) -> str:
    """A title made of the key's words, with a capital first letter. A word of capitals (`HTTP`) keeps them."""
    parts = [CASE_BOUNDARY.split(part) for part in LABEL_SEPARATORS.split(key) if part]
    text = " ".join(word for first, *others in parts for word in (first, *map(_decapitalize, others))) or key
    return text[:1].upper() + text[1:]


def _decapitalize(word: str) -> str:
    """A capitalized word in lower case; acronyms stay."""
    return word[:1].lower() + word[1:] if word[1:2].islower() or len(word) == 1 else word
