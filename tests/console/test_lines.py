"""Tables of styled lines."""

from shm_tui.text.lines import UNCUT_WIDTH, TableColumn, make_table, plain


def test_a_table_for_a_screen_cuts_long_cells_and_one_for_a_file_does_not() -> None:
    columns = (TableColumn("NAME", max_width=8), TableColumn("N", align_right=True))
    rows = [[(("a-long-name", "value"),), (("1", "value"),)]]
    assert plain(make_table(columns, rows, 40).rows[0]) == "a-lo…ame  1"
    assert plain(make_table(columns, rows, UNCUT_WIDTH).rows[0]) == "a-long-name  1"
