"""The columns that fit into a line: in order, without overlap."""

from decimal import Decimal
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from shm_tui.model.column_layout import GAP, MAX_SHORT_WIDTH, PADDING, SHORT_FRACTION, SHORT_NUMBER, place_columns
from shm_tui.model.columns import INSTANCE, SEEN, STATE, VERSION, Pinning, metric_column
from shm_tui.text.cells import cell_width
from shm_tui.text.formatting import compact

METRICS = [metric_column(f"metric_{number}", f"metric {number}", True) for number in range(30)]
COLUMNS = [STATE, INSTANCE, VERSION, *METRICS, SEEN]
MIN_LINE_WIDTH = 40  # cells that the pinned columns need


@given(st.lists(st.integers(6, 16), min_size=30, max_size=30), st.integers(MIN_LINE_WIDTH, 400), st.integers(0, 29))
def test_columns_do_not_overlap_and_fit_the_line(widths: list[int], line_width: int, first: int) -> None:
    widths_by_id = {column.id: column.min_width for column in COLUMNS} | {
        column.id: width for column, width in zip(METRICS, widths, strict=True)
    }
    placed = place_columns(COLUMNS, widths_by_id, line_width, first)
    assert [column_place.column for column_place in placed if column_place.column.pinning is not Pinning.NONE] == [
        STATE,
        INSTANCE,
        VERSION,
        SEEN,
    ]
    visible = [column_place.column for column_place in placed if column_place.column.pinning is Pinning.NONE]
    assert visible == METRICS[first : first + len(visible)], "no column is skipped"
    assert all(column_place.width >= widths_by_id[column_place.column.id] for column_place in placed), (
        "no column is cut"
    )
    for left, right in pairwise(placed):
        assert left.x + left.width + GAP <= right.x
    assert placed[-1].x + placed[-1].width == line_width - PADDING, "the last column ends at the edge"


def test_eighty_cells_show_the_fixed_columns_and_some_metrics() -> None:
    widths_by_id = {column.id: max(column.min_width, len(column.label)) for column in COLUMNS}
    visible = [column_place.column for column_place in place_columns(COLUMNS, widths_by_id, 79, 0)]
    assert visible == [STATE, INSTANCE, VERSION, *METRICS[:4], SEEN]


@given(
    st.integers(-SHORT_NUMBER, SHORT_NUMBER)
    | st.decimals(SHORT_FRACTION, SHORT_NUMBER, allow_nan=False, allow_infinity=False)
)
def test_a_short_number_fits_a_column_that_was_not_measured_for_it(number: int | Decimal) -> None:
    assert cell_width(compact(number)) <= MAX_SHORT_WIDTH
