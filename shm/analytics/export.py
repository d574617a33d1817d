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

from shm.analytics.instances import Instance, InstanceFilter, InstanceReader
from shm.analytics.sorting import COLUMNS, METRIC_PREFIX
from shm.core import page_tokens

Format = Literal["csv", "jsonl"]

MEDIA_TYPES: dict[Format, str] = {"csv": "text/csv", "jsonl": "application/jsonl"}
FIXED_COLUMNS = (*COLUMNS, "version_rank")
MAX_METRIC_COLUMNS = 500  # columns: whoever has more invents keys, and a spreadsheet of more is none to look at
FORMULA_PREFIXES = ("=", "+", "-", "@", "\t", "\r")  # what spreadsheets take for a formula's beginning
TEXT_PREFIX = "'"  # before it: what follows is text

_encoder = msgspec.json.Encoder(decimal_format="number")
_leaves = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True, slots=True)
class Export:
    """`pieces`, the feed's cursor from which on all later changes are told, and how many metrics have no column."""

    cursor: int
    left_out: int
    pieces: AsyncGenerator[bytes, None]


async def open_export(items: InstanceReader, wanted: InstanceFilter, form: Format) -> Export:
    """Finds out what there is to be told; `pieces` reads it."""
    known = await items.list_metric_keys(wanted.app, MAX_METRIC_COLUMNS)
    if form == "jsonl":
        return Export(known.head, 0, _lines(items, wanted))
    return Export(known.head, known.found - len(known.keys), _table(items, wanted, known.keys))


async def _lines(items: InstanceReader, wanted: InstanceFilter) -> AsyncGenerator[bytes, None]:
    async with aclosing(items.scan(wanted, flat=False)) as pages:
        async for page in pages:
            yield _encoder.encode_lines(page)


async def _table(items: InstanceReader, wanted: InstanceFilter, keys: Sequence[str]) -> AsyncGenerator[bytes, None]:
    """Its title goes out with the first rows: should these fail, nothing has been told yet."""
    rows: list[list[str]] = [[*FIXED_COLUMNS, *(METRIC_PREFIX + key for key in keys)]]
    async with aclosing(items.scan(wanted, flat=True)) as pages:
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


def _row(item: Instance, keys: Sequence[str]) -> list[str]:
    leaves = _leaves.decode(item.metrics)
    return [*(_field(getattr(item, name)) for name in FIXED_COLUMNS), *(_leaf(leaves.get(key)) for key in keys)]


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
    return TEXT_PREFIX + text if text.startswith(FORMULA_PREFIXES) else text
