"""The palette of the columns by which the list can be sorted."""

from collections.abc import Iterator
from functools import partial
from typing import Protocol, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.content import Content

from shm_tui.model.columns import Column
from shm_tui.navigation import Navigation
from shm_tui.palette_screen import Palette
from shm_tui.widgets.live_table import LiveTable


class ListApp(Protocol):
    """The app: it has a table, and sorts it."""

    @property
    def table(self) -> LiveTable:
        """The table."""

    navigation: Navigation


class SortProvider(Provider):
    """The columns of the table, those beside the screen included. The one that the rows are sorted by is reversed."""

    async def discover(self) -> Hits:
        """All columns, in their order."""
        for column, text, note in self._columns():
            yield DiscoveryHit(Content(text), partial(self._navigation.sorting.choose, column), text=text, help=note)

    async def search(self, query: str) -> Hits:
        """The columns whose name matches."""
        matcher = self.matcher(query)
        for column, text, note in self._columns():
            if (score := matcher.match(text)) > 0:
                command = partial(self._navigation.sorting.choose, column)
                yield Hit(score, Content(text), command, text=text, help=note)

    def _columns(self) -> Iterator[tuple[Column, str, str]]:
        """Each column with its name and a note: a metric's key, and whether the rows are sorted by it."""
        app = cast(ListApp, self.app)
        store = self._navigation.session.store
        for column in app.table.columns:
            if column.label:
                is_current = column.id == store.sort_column.id
                direction = "descending" if store.is_descending else "ascending"
                notes = [column.metric or "column", *([f"{direction} now; again reverses it"] if is_current else [])]
                yield column, column.label, "  ·  ".join(notes)

    @property
    def _navigation(self) -> Navigation:
        return cast(ListApp, self.app).navigation


class SortPalette(Palette):
    """Sorts the list by the chosen column."""

    def __init__(self) -> None:
        super().__init__(providers=[SortProvider], placeholder="Sort by…")
