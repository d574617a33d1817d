"""Exports a fleet with its current metrics as CSV or JSON lines, in chunks.

Each instance appears once, in its state when its page was read. JSON lines have the shape of `GET instances`. CSV has a
column for each of the metrics that most instances report. Every CSV cell is quoted, and texts that a spreadsheet would
evaluate as a formula get a prefix.
"""

import csv
import io
import re
import unicodedata
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import msgspec

from shm.analytics.instance_fields import COLUMNS, Instance
from shm.analytics.instances import InstanceFilter, InstanceReader
from shm.analytics.sorting import METRIC_PREFIX
from shm.core import page_tokens

Format = Literal["csv", "jsonl"]

MEDIA_TYPES: dict[Format, str] = {"csv": "text/csv", "jsonl": "application/jsonl"}
MAX_METRIC_COLUMNS = 500  # columns: more keys are generated ones, and too many for a spreadsheet
# Spreadsheets evaluate a text that begins with one of these. Some also accept their full-width forms, which NFKC maps
# to them, and ignore invisible characters before them.
FORMULA_CHARACTERS = frozenset("=+-@\u2212")
INVISIBLE_CATEGORIES = frozenset({"Cc", "Cf", "Cn", "Co", "Zs", "Zl", "Zp"})
BYTE_ORDER_MARK = "\ufeff".encode()  # Excel reads a CSV file as UTF-8 only if it begins with this
TEXT_PREFIX = "'"  # marks a cell as text in spreadsheets
# Where the list separator is not the comma, as in much of Europe, a spreadsheet ignores the quotes after the first
# cell: in it, the text after one of these characters is a new cell or row.
AFTER_SEPARATOR = re.compile("(?<=[;|\t\r\n\v\f\x85\u2028\u2029])[^;|\t\r\n\v\f\x85\u2028\u2029]+")

_encoder = msgspec.json.Encoder(decimal_format="number")
_leaves = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True, slots=True)
class Export:
    """The chunks, the feed cursor after which later changes follow, and the number of metrics without a column."""

    cursor: int
    omitted_columns: int
    chunks: AsyncGenerator[bytes, None]


async def open_export(items: InstanceReader, instance_filter: InstanceFilter, format: Format) -> Export:
    """Reads the columns and the cursor; iterating over `chunks` reads the instances."""
    metric_keys = await items.list_metric_keys(instance_filter.app, MAX_METRIC_COLUMNS)
    if format == "jsonl":
        return Export(metric_keys.head, 0, _json_lines(items, instance_filter))
    return Export(
        metric_keys.head, metric_keys.total - len(metric_keys.keys), _csv_rows(items, instance_filter, metric_keys.keys)
    )


async def _json_lines(items: InstanceReader, instance_filter: InstanceFilter) -> AsyncGenerator[bytes, None]:
    async with aclosing(items.scan(instance_filter, flat=False)) as pages:
        async for page in pages:
            yield _encoder.encode_lines(page)


async def _csv_rows(
    items: InstanceReader, instance_filter: InstanceFilter, keys: Sequence[str]
) -> AsyncGenerator[bytes, None]:
    """Yields the header together with the first rows, so that an error before them is still an error response."""
    rows: list[list[str]] = [[*COLUMNS, *(escape_formula(METRIC_PREFIX + key) for key in keys)]]
    async with aclosing(items.scan(instance_filter, flat=True)) as pages:
        async for page in pages:
            rows += [_row(item, keys) for item in page]
            yield _encode_csv(rows)
            rows = []
    if rows:
        yield _encode_csv(rows)


def _encode_csv(rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows(rows)
    return text.getvalue().encode()


def _row(item: Instance, keys: Sequence[str]) -> list[str]:
    leaves = _leaves.decode(item.metrics)
    return [*(_field(getattr(item, name)) for name in COLUMNS), *(_leaf(leaves.get(key)) for key in keys)]


def _field(value: str | bool | datetime | None) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return page_tokens.format_timestamp(value) if isinstance(value, datetime) else escape_formula(value)


def _leaf(value: msgspec.Raw | None) -> str:
    """Numbers and booleans keep the digits that were sent."""
    if value is None:
        return ""
    text = bytes(value).decode()
    return escape_formula(msgspec.json.decode(value, type=str)) if text.startswith('"') else text


def escape_formula(text: str) -> str:
    """The text with a prefix before each formula: at its start, and after a character that may separate cells."""
    inner = AFTER_SEPARATOR.sub(lambda part: _prefix(part[0]) + part[0], text)
    return _prefix(text) + inner


def _prefix(text: str) -> str:
    return TEXT_PREFIX if _is_formula(text) else ""


def _is_formula(text: str) -> bool:
    """Whether a spreadsheet may evaluate the text, or whether it begins with a control character such as a tab."""
    if text and unicodedata.category(text[0]) == "Cc":
        return True
    for character in text:
        if unicodedata.category(character) not in INVISIBLE_CATEGORIES:
            return unicodedata.normalize("NFKC", character)[0] in FORMULA_CHARACTERS
    return False
