"""Charts as text: gaps stay open, shares fill the height, and every form has an ASCII one."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm_tui.text.charts import column_of, index_at, line_chart, share_bar, sparkline, stacked_columns, value_range
from shm_tui.text.glyphs import ASCII, UNICODE, Glyphs, choose_glyphs
from shm_tui.text.lines import TableColumn, make_table, plain, width_of

BLANK = " "
NUMBERS = st.floats(-1e300, 1e300)
VALUES = st.lists(st.none() | NUMBERS, min_size=1, max_size=60)


def filled_columns(lines: list[str]) -> list[int]:
    """The cells of a chart's width in which anything is drawn."""
    return [column for column in range(len(lines[0])) if any(line[column] != BLANK for line in lines)]


@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
def test_no_line_crosses_a_gap(glyphs: Glyphs) -> None:
    values = [1.0] * 5 + [None] * 5 + [2.0] * 5
    columns = filled_columns(line_chart(values, 30, 4, 0, 2, glyphs))
    gap = range(column_of(4, 15, 30) + 1, column_of(10, 15, 30))
    assert len(gap) > 5
    assert not set(gap) & set(columns)
    assert columns[0] == 0
    assert columns[-1] == 29


def test_a_rising_line_goes_from_the_lower_left_to_the_upper_right() -> None:
    lines = line_chart([0, 1, 2, 3], 8, 4, 0, 3, ASCII)
    assert [line.index("*") for line in lines] == sorted((line.index("*") for line in lines), reverse=True)
    assert (lines[-1][0], lines[0][-1]) == ("*", "*")
    assert line_chart([5.0], 2, 1, 0, 5, UNICODE) == ["⠁ "]


@given(VALUES, st.integers(1, 80), st.integers(1, 12))
def test_any_values_give_lines_of_the_asked_size(values: list[float | None], width: int, height: int) -> None:
    low, high = value_range(values)
    known = [value for value in values if value is not None]
    assert low < high < inf
    assert all(low <= value <= high for value in known)
    for glyphs in (UNICODE, ASCII):
        lines = line_chart(values, width, height, low, high, glyphs)
        assert [len(line) for line in lines] == [width] * height
        assert bool(filled_columns(lines)) == bool(known)
        assert len(sparkline(values, width, glyphs)) == width
        filled, rest = share_bar(0.3, width, glyphs)
        assert len(filled + rest) == width
        if glyphs is ASCII:
            assert "".join(lines).isascii()


def test_the_axis_has_round_ends_and_zero_unless_values_are_far_from_it() -> None:
    assert value_range([1, 9]) == (0, 10)
    assert value_range([91, 99]) == (90, 100)
    assert value_range([0, 0]) == (0, 1)
    assert value_range([7, None]) == (0, 8)
    assert value_range([]) == (0, 1)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=20), st.integers(1, 40))
def test_stacked_shares_fill_the_height(times: list[tuple[int, int]], width: int) -> None:
    grid = stacked_columns([[float(first) for first, _ in times], [float(second) for _, second in times]], width, 10)
    for column in range(width):
        first, second = times[index_at(column, len(times), width)]
        cells = [row[column] for row in grid]
        if not first + second:
            assert cells == [None] * 10
            continue
        assert cells == sorted(cells, key=lambda band: band or 0)  # the first band is on top
        assert abs(cells.count(0) - 10 * first / (first + second)) <= 0.5


def test_a_sparkline_shows_gaps_and_a_level_line() -> None:
    assert sparkline([0, None, 7], 3, UNICODE) == "▁ █"
    assert sparkline([5, 5], 2, ASCII) == "++"
    assert sparkline([], 3, UNICODE) == "   "


def test_terminals_without_braille_get_ascii() -> None:
    assert choose_glyphs("utf-8", "xterm-256color") is UNICODE
    assert {id(choose_glyphs(*setting)) for setting in (("ascii", ""), ("latin-1", ""), ("utf-8", "linux"))} == {
        id(ASCII)
    }


@given(
    st.lists(st.tuples(st.text("a日é", max_size=30), st.text("0123456789,", max_size=9)), max_size=5),
    st.integers(18, 60),
)
def test_a_table_keeps_its_width_and_names_what_it_leaves_out(cells: list[tuple[str, str]], width: int) -> None:
    columns = [TableColumn("NAME"), TableColumn("N", align_right=True, max_width=9), TableColumn("OPTIONAL", rank=1)]
    rows = [(((name, "value"),), ((number, "value"),), (("x", "value"),)) for name, number in cells]
    table = make_table(columns, rows, width)
    assert all(width_of(line) <= width for line in (table.head, *table.rows))
    assert ("OPTIONAL" in plain(table.head)) != (table.hidden == ["OPTIONAL"])
    assert all(
        plain(line).rstrip().endswith(("x", number)) for line, (_, number) in zip(table.rows, cells, strict=True)
    )
