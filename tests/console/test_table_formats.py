"""Tables for other programs: exact values, no formula for a spreadsheet, no markup."""

import csv
import io
import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm.analytics import export
from shm_tui.text.sanitizing import sanitize
from shm_tui.text.table_formats import escape_formula, escape_markup, render_head, render_rows

NAMES = ["instance_id", "metrics.sent", "metrics.mail.sent", "last_seen_at", "counted"]
SEEN = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROW = ["a", 10**30, Decimal("0.10"), SEEN, True]


def test_json_lines_keep_digits_and_have_the_metrics_in_an_object() -> None:
    text = render_rows("jsonl", NAMES, [ROW, ["b", None, None, None, False]])
    first, second = (json.loads(line, parse_float=str) for line in text.splitlines())
    assert first == {
        "instance_id": "a",
        "last_seen_at": "2026-03-01T12:00:00Z",
        "counted": True,
        "metrics": {"sent": 10**30, "mail.sent": "0.10"},
    }
    assert (second["metrics"], second["last_seen_at"]) == ({}, None)


def test_csv_and_markdown_have_a_cell_for_each_column() -> None:
    text = render_head("csv", NAMES) + render_rows("csv", NAMES, [ROW])
    expected = ["a", str(10**30), "0.10", "2026-03-01T12:00:00Z", "true"]
    assert list(csv.reader(io.StringIO(text))) == [NAMES, expected]
    lines = (render_head("markdown", ["a", "b"]) + render_rows("markdown", ["a", "b"], [["x|y", None]])).splitlines()
    assert lines == ["| a | b |", "| --- | --- |", r"| x\|y |  |"]


@given(st.text(alphabet=st.sampled_from("=+-@\u2212＝＠ab ;|\t\x00\u200b'1\"\n"), max_size=12))
def test_the_server_finds_no_formula_in_a_cell(text: str) -> None:
    """The console and `shm export` have the rules of the same spreadsheets."""
    cell = escape_formula(sanitize(text))
    assert export.escape_formula(cell) == cell


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("[x](http://a)", r"\[x\](http\://a)"),
        ("<img src=x>", r"\<img src=x\>"),
        ("a*b* _c_ app_version", r"a\*b\* \_c\_ app_version"),
        ("`x` www.x.org @me", r"\`x\` www\.x.org \@me"),
        ("a&amp;b|c\\", r"a\&amp;b\|c\\"),
        ("2026-03-01T12:00:00Z 1.4.2-rc.1", "2026-03-01T12:00:00Z 1.4.2-rc.1"),
    ],
)
def test_no_text_becomes_markup(text: str, escaped: str) -> None:
    assert escape_markup(text) == escaped
