"""A whole fleet with its current metrics, as CSV or as JSON lines, a piece at a time.

Each instance is as it was when its page was read, and is in it once. JSON lines are items as the list tells them. CSV
has a column for each metric that a KPI is made of, those that most instances answer; its texts are made harmless to
spreadsheets, which would take one that begins with `=` for a formula.
"""

import csv
import io
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import msgspec

from shm.analytics.instances import Filter, Item, Items
from shm.analytics.sorting import COLUMNS, METRIC
from shm.core import page_tokens

Form = Literal["csv", "jsonl"]

MEDIA: dict[Form, str] = {"csv": "text/csv", "jsonl": "application/jsonl"}
FIXED = (*COLUMNS, "version_rank")
MOST_METRICS = 500  # columns: whoever has more invents keys, and a spreadsheet of more is none to look at
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what spreadsheets take for a formula's beginning
HARMLESS = "'"  # before it: what follows is text

_encoder = msgspec.json.Encoder(decimal_format="number")
_leaves = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True, slots=True)
class Export:
    """`pieces`, the feed's cursor from which on all later changes are told, and how many metrics have no column."""

    cursor: int
    left_out: int
    pieces: AsyncGenerator[bytes, None]


async def begin(items: Items, wanted: Filter, form: Form) -> Export:
    """Finds out what there is to be told; `pieces` reads it."""
    known = await items.metric_keys(wanted.app, MOST_METRICS)
    if form == "jsonl":
        return Export(known.head, 0, _lines(items, wanted))
    return Export(known.head, known.found - len(known.keys), _table(items, wanted, known.keys))


async def _lines(items: Items, wanted: Filter) -> AsyncGenerator[bytes, None]:
    async with aclosing(items.walk(wanted, flat=False)) as pages:
        async for page in pages:
            yield _encoder.encode_lines(page)


async def _table(items: Items, wanted: Filter, keys: Sequence[str]) -> AsyncGenerator[bytes, None]:
    """Its title goes out with the first rows: should these fail, nothing has been told yet."""
    rows: list[list[str]] = [[*FIXED, *(METRIC + key for key in keys)]]
    async with aclosing(items.walk(wanted, flat=True)) as pages:
        async for page in pages:
            rows += [_row(item, keys) for item in page]
            yield _written(rows)
            rows = []
    if rows:
        yield _written(rows)


def _written(rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _row(item: Item, keys: Sequence[str]) -> list[str]:
    leaves = _leaves.decode(item.metrics)
    return [*(_field(getattr(item, name)) for name in FIXED), *(_leaf(leaves.get(key)) for key in keys)]


def _field(value: str | bool | datetime | None) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return page_tokens.format_timestamp(value) if isinstance(value, datetime) else _harmless(value)


def _leaf(value: msgspec.Raw | None) -> str:
    """Numbers and booleans as they were sent, digit for digit."""
    if value is None:
        return ""
    written = bytes(value).decode()
    return _harmless(msgspec.json.decode(value, type=str)) if written.startswith('"') else written


def _harmless(text: str) -> str:
    return HARMLESS + text if text.startswith(FORMULA) else text
