"""What a metric is: its kind, how it is aggregated, and what to call it. Pure.

A metric is a leaf of the metrics object; nested objects are joined by dots (`{"mail": {"sent": 3}}` is `mail.sent`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from typing import Annotated, Literal

import msgspec

Leaf = int | Decimal | bool | str | list[object] | None
Kind = Literal["business", "system"]
Aggregate = Literal["sum", "avg", "min", "max", "median"]

LONGEST_CATEGORY = 64  # characters; a longer string is kept and shown, but is no category
LONGEST_LABEL = 64  # characters: a tile's title
LONGEST_UNIT = 16
MOST_DIGITS = 330  # of a number: a double written in full
STORABLE = r"^[^\x00]*$"  # PostgreSQL keeps no NUL

SYSTEM_PREFIXES = ("sys_", "app_")
SYSTEM_WORDS = frozenset({"cpu", "mem", "memory", "uptime", "goroutines", "heap", "rss"})
MEAN_WORDS = frozenset({"pct", "percent", "ratio", "avg", "mean", "rate"})
UNITS = {"pct": "%", "percent": "%", "mb": "MB", "gb": "GB", "kb": "kB", "bytes": "B", "ms": "ms", "h": "h"}

MEAN_DIGITS = 20  # behind those of the sum: a mean of what doubles hold is exact to a double's last digit

EXACT = Context(prec=1_000)  # sums of doubles written out have no more digits: from 10^308 to 10^-324


class Override(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the vendor says of a key, instead of its words. `hidden`: in no KPI, series or list of them."""

    kind: Kind | None = None
    aggregate: Aggregate | None = None
    label: Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_LABEL, pattern=STORABLE)] | None = None
    unit: Annotated[str, msgspec.Meta(max_length=LONGEST_UNIT, pattern=STORABLE)] | None = None
    hidden: bool = False


Overrides = Mapping[str, Override]

PLAIN = Override()


@dataclass(frozen=True, slots=True)
class Naming:
    """What is to be known of a key before any value."""

    key: str
    label: str
    kind: Kind
    aggregate: Aggregate
    unit: str | None


def naming(key: str, override: Override = PLAIN) -> Naming:
    """Kind, aggregate, label and unit of a key, as its words say, but for what the vendor says."""
    words = [word for word in re.split(r"[^a-z0-9]+", key.lower()) if word]
    system = key.startswith(SYSTEM_PREFIXES) or not SYSTEM_WORDS.isdisjoint(words)
    mean = system or not MEAN_WORDS.isdisjoint(words)
    label = " ".join(part for part in re.split(r"[\s._-]+", key) if part) or key
    said = override.unit if override.unit is not None else UNITS.get(words[-1]) if len(words) > 1 else None
    return Naming(
        key,
        override.label or label[:1].upper() + label[1:],
        override.kind or ("system" if system else "business"),
        override.aggregate or ("avg" if mean else "sum"),
        said or None,
    )


def mean(total: Decimal, instances: int) -> Decimal:
    """A sum over how many answered, exact far beyond what a double holds."""
    with localcontext() as context:
        context.prec = len(total.as_tuple().digits) + MEAN_DIGITS
        return trimmed(total / instances)


def trimmed(value: Decimal) -> Decimal:
    """Without zeros at the end behind the point."""
    digits = value.normalize(EXACT)
    return digits.quantize(Decimal(1), context=EXACT) if int(digits.as_tuple().exponent) > 0 else digits
