"""Tables for other programs, a row at a time: CSV, JSON lines, Markdown. Numbers keep every digit.

Texts are sanitized already: each is one line without invisible characters. Here they lose what a spreadsheet would
evaluate as a formula, and what Markdown would take for markup.
"""

import csv
import io
import re
import unicodedata
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Literal, get_args

import msgspec

TableFormat = Literal["csv", "jsonl", "markdown"]

FORMATS: tuple[TableFormat, ...] = get_args(TableFormat)
EXTENSIONS: dict[TableFormat, str] = {"csv": "csv", "jsonl": "jsonl", "markdown": "md"}
METRICS = "metrics."  # the prefix of a metric's name; in JSON its value is in the object `metrics`
# As `shm export`: a spreadsheet evaluates a text that begins with one of these, or with their full-width forms.
_FORMULA_CHARACTERS = frozenset("=+-@\u2212")
_TEXT_PREFIX = "'"
_AFTER_SEPARATOR = re.compile("(?<=[;|])[^;|]+")  # where the list separator is not the comma, a new cell begins there
# Addresses become links without brackets too. An underscore inside of a word is not markup.
_MARKUP = re.compile(r"[\\`*\[\]<>|&~@$]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.", re.IGNORECASE)

_encoder = msgspec.json.Encoder(decimal_format="number")


def render_head(format_: TableFormat, names: Sequence[str]) -> str:
    """What precedes the rows: the names of the columns. JSON lines have none."""
    if format_ == "csv":
        return _csv_row([escape_formula(name) for name in names])
    if format_ == "markdown":
        return _markdown_row([escape_markup(name) for name in names]) + _markdown_row(["---"] * len(names))
    return ""


def render_rows(format_: TableFormat, names: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows of values: texts, numbers, booleans, times, lists, or None for a missing value."""
    if format_ == "csv":
        return "".join(_csv_row([_csv_cell(value) for value in row]) for row in rows)
    if format_ == "markdown":
        return "".join(_markdown_row([escape_markup(value_text(value)) for value in row]) for row in rows)
    return "".join(_json_line(names, row) for row in rows)


def escape_formula(text: str) -> str:
    """The text with a `'` before each formula: at its start, and after a character that may separate cells."""
    return _prefix(text) + _AFTER_SEPARATOR.sub(lambda part: _prefix(part[0]) + part[0], text)


def escape_markup(text: str) -> str:
    """The text with a backslash before each character that Markdown would take for markup."""
    return _MARKUP.sub(lambda character: "\\" + character[0], text)


def value_text(value: object) -> str:
    """A value with every digit; times in UTC as in JSON, and lists as JSON. "" for a missing value."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, str | int | Decimal | date):
        return str(value)
    return _encoder.encode(value).decode()


def _prefix(text: str) -> str:
    first = unicodedata.normalize("NFKC", text.lstrip()[:1])[:1]
    return _TEXT_PREFIX if first in _FORMULA_CHARACTERS else ""


def _csv_cell(value: object) -> str:
    return escape_formula(value) if isinstance(value, str) else value_text(value)


def _csv_row(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerow(cells)
    return text.getvalue()


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _json_line(names: Sequence[str], row: Sequence[object]) -> str:
    record: dict[str, object] = {}
    metrics: dict[str, object] = {}
    for name, value in zip(names, row, strict=True):
        if not name.startswith(METRICS):
            record[name] = value
        elif value is not None:
            metrics[name.removeprefix(METRICS)] = value
    if any(name.startswith(METRICS) for name in names):
        record["metrics"] = metrics
    return _encoder.encode(record).decode() + "\n"
