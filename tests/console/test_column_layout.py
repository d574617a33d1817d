"""Which columns a width shows, and that they stand beside each other and never in each other."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from shm_tui.model.column_layout import EDGE, GAP, place_columns
from shm_tui.model.columns import INSTANCE, SEEN, STATE, VERSION, Pinning, metric_column
from tests.support.console_rows import no_deadline

METRICS = [metric_column(f"metric_{number}", f"metric {number}", True) for number in range(30)]
COLUMNS = [STATE, INSTANCE, VERSION, *METRICS, SEEN]
NARROWEST = 40  # room for what always stays


@no_deadline
@given(st.lists(st.integers(6, 16), min_size=30, max_size=30), st.integers(NARROWEST, 400), st.integers(0, 29))
def test_columns_stand_apart_in_their_order_and_inside_the_room(widths: list[int], room: int, first: int) -> None:
    wide = {column.id: column.min_width for column in COLUMNS} | {
        column.id: width for column, width in zip(METRICS, widths, strict=True)
    }
    laid = place_columns(COLUMNS, wide, room, first)
    assert [one.column for one in laid if one.column.pinning is not Pinning.NONE] == [STATE, INSTANCE, VERSION, SEEN]
    shown = [one.column for one in laid if one.column.pinning is Pinning.NONE]
    assert shown == METRICS[first : first + len(shown)], "none is left out between two"
    assert all(one.width >= wide[one.column.id] for one in laid), "none is cut"
    for before, after in pairwise(laid):
        assert before.x + before.width + GAP <= after.x
    assert laid[-1].x + laid[-1].width == room - EDGE, "the last one keeps to the edge"


def test_eighty_columns_show_what_every_instance_has_and_some_metrics() -> None:
    wide = {column.id: max(column.min_width, len(column.label)) for column in COLUMNS}
    shown = [one.column for one in place_columns(COLUMNS, wide, 79, 0)]
    assert shown == [STATE, INSTANCE, VERSION, *METRICS[:4], SEEN]
