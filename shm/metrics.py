"""What a metric is: its kind, how it is aggregated, and what to call it. Pure.

A metric is a leaf of the metrics object; nested objects are joined by dots (`{"mail": {"sent": 3}}` is `mail.sent`).
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

Leaf = int | Decimal | bool | str | list[object] | None
Kind = Literal["business", "system"]
Aggregate = Literal["sum", "avg"]

LONGEST_CATEGORY = 64  # characters; a longer string is kept and shown, but is no category

SYSTEM_PREFIXES = ("sys_", "app_")
SYSTEM_WORDS = frozenset({"cpu", "mem", "memory", "uptime", "goroutines", "heap", "rss"})
MEAN_WORDS = frozenset({"pct", "percent", "ratio", "avg", "mean", "rate"})
UNITS = {"pct": "%", "percent": "%", "mb": "MB", "gb": "GB", "kb": "kB", "bytes": "B", "ms": "ms", "h": "h"}


@dataclass(frozen=True, slots=True)
class Naming:
    """What a key's words say about it."""

    key: str
    label: str
    kind: Kind
    aggregate: Aggregate
    unit: str | None


def naming(key: str) -> Naming:
    """Kind, aggregate, label and unit of a key, as its words say."""
    words = [word for word in re.split(r"[^a-z0-9]+", key.lower()) if word]
    system = key.startswith(SYSTEM_PREFIXES) or not SYSTEM_WORDS.isdisjoint(words)
    mean = system or not MEAN_WORDS.isdisjoint(words)
    unit = UNITS.get(words[-1]) if len(words) > 1 else None
    label = " ".join(part for part in re.split(r"[\s._-]+", key) if part) or key
    return Naming(
        key, label[:1].upper() + label[1:], "system" if system else "business", "avg" if mean else "sum", unit
    )
