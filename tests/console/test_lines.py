"""Tables of styled lines, and texts that are broken into lines."""

from shm_tui.text.cells import cell_width, wrap
from shm_tui.text.lines import UNCUT_WIDTH, TableColumn, make_table, plain


def test_a_table_for_a_screen_cuts_long_cells_and_one_for_a_file_does_not() -> None:
    columns = (TableColumn("NAME", max_width=8), TableColumn("N", align_right=True))
    rows = [[(("a-long-name", "value"),), (("1", "value"),)]]
    assert plain(make_table(columns, rows, 40).rows[0]) == "a-lo…ame  1"
    assert plain(make_table(columns, rows, UNCUT_WIDTH).rows[0]) == "a-long-name  1"


def test_a_text_is_wrapped_by_cells_and_nothing_is_lost() -> None:
    text = "日本語の 名前 of http://127.0.0.1:8080/a/long/path is not ready"
    for width in range(2, 60):
        lines = wrap(text, width)
        assert max(map(cell_width, lines)) <= width
        assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert wrap("No instance matches  /a", 40) == ["No instance matches  /a"]
    assert wrap("one two three", 8) == ["one two", "three"]
