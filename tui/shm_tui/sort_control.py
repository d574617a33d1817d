"""The sort order of the list: changed by a key or a click only, and part of the place."""

from collections.abc import Callable

from shm_tui.model.columns import Column
from shm_tui.model.live_session import LiveSession
from shm_tui.model.place_sort import find_column, sort_text
from shm_tui.widgets.live_table import LiveTable


class SortControl:
    """Sorts the current session's rows. `on_change` gets the text of the order for the place."""

    def __init__(
        self, table: LiveTable, get_session: Callable[[], LiveSession], on_change: Callable[[str], None]
    ) -> None:
        self._table = table
        self._get_session = get_session
        self._on_change = on_change

    def step(self, offset: int) -> None:
        """Sorts by the column next to the one that is sorted by."""
        columns = [column for column in self._table.columns if column.label]
        ids = [column.id for column in columns]
        if columns:
            sorted_id = self._get_session().store.sort_column.id
            index = ids.index(sorted_id) if sorted_id in ids else 0
            self._sort_by(columns[(index + offset) % len(columns)])

    def choose(self, column: Column) -> None:
        """Sorts by a column; if the rows are sorted by it already, reverses the order."""
        if column.id == self._get_session().store.sort_column.id:
            self.reverse()
        else:
            self._sort_by(column)

    def reverse(self) -> None:
        """Reverses the sort order."""
        store = self._get_session().store
        self._set(store.sort_column, not store.is_descending)

    def apply(self, text: str) -> None:
        """Applies the order of a place. Without one the order remains, and becomes that of the place."""
        session = self._get_session()
        store = session.store
        if not text and store.has_sort_order:
            self._on_change(sort_text(store.sort_column, store.is_descending))
        is_in_order = store.has_sort_order and text == sort_text(store.sort_column, store.is_descending)
        if text and not is_in_order:
            self._set(*find_column(text, self._table.columns, session.descriptions))

    def _sort_by(self, column: Column) -> None:
        self._set(column, is_descending=column.metric is not None and column.align_right)
        self._table.scroll_to_column(column)

    def _set(self, column: Column, is_descending: bool) -> None:
        session = self._get_session()
        store = session.store
        store.has_sort_order = True
        store.sort_column, store.is_descending = column, is_descending
        session.window.sync()
        store.rebuild_order(session.clock())
        if self._table.store is store:  # else the table shows this store at its next drawing
            self._table.update_order()
        self._on_change(sort_text(column, is_descending))
