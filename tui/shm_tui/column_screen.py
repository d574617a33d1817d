"""The columns of the list: hides, pins, moves and widens them. The table behind the box follows at once."""

from collections.abc import Callable, Sequence
from functools import partial

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.widgets import OptionList, Static

from shm_tui.dialog import Dialog
from shm_tui.model.column_choice import (
    PLACED,
    ColumnChoice,
    chosen_width,
    in_order,
    is_in,
    moved,
    toggled,
    with_width,
)
from shm_tui.model.columns import SEEN, Column
from shm_tui.model.live_session import LiveSession
from shm_tui.model.place import ALL
from shm_tui.text.cells import fit
from shm_tui.widgets.dashboard import Dashboard

NAME_WIDTH = 36  # cells of a column's name
KEYS = "Space hide  p pin  J K move  ← → width  0 reset  ⏎ keep  Esc cancel"


def ask_columns(
    app: App[None], dashboard: Dashboard, session: LiveSession, save: Callable[[str, ColumnChoice], None]
) -> None:
    """Opens the screen for the list of a session. `save` gets its application and the new choice."""

    def keep(choice: ColumnChoice | None) -> None:
        if choice is not None and choice != before:
            save(session.slug or ALL, choice)

    before = dashboard.column_choice(session)
    show = partial(dashboard.choose_columns, session)
    title = f"Columns of {session.slug or 'all applications'}"
    app.push_screen(ColumnScreen(title, dashboard.all_columns, before, dashboard.table.width_of, show), keep)


class ColumnScreen(Dialog[ColumnChoice | None]):
    """Shows all columns that can be chosen. The result is the choice to keep; None restores the one before.

    `columns` are those of the table before the choice; `width_of` is the width of one that is drawn. `show` draws a
    choice in the table.
    """

    BINDINGS = [  # noqa: RUF012
        Binding("escape,ctrl+c,q", "close(False)", "cancel", priority=True),
        Binding("enter", "close(True)", "keep", priority=True),
        Binding("space", "switch('hidden')", "hide", priority=True),
        Binding("p", "switch('pinned')", "pin"),
        Binding("J,shift+down", "move(1)", "down"),
        Binding("K,shift+up", "move(-1)", "up"),
        Binding("left,h", "widen(-1)", "narrower", priority=True),
        Binding("right,l", "widen(1)", "wider", priority=True),
        Binding("0", "reset", "reset"),
        Binding("j", "cursor('down')", "next"),
        Binding("k", "cursor('up')", "previous"),
        Binding("g", "cursor('first')", "first"),
        Binding("G", "cursor('last')", "last"),
    ]

    def __init__(
        self,
        title: str,
        columns: Sequence[Column],
        choice: ColumnChoice,
        width_of: Callable[[Column], int],
        show: Callable[[ColumnChoice], None],
    ) -> None:
        super().__init__()
        self._title, self._columns, self._width_of, self._show = title, columns, width_of, show
        self._before = self._choice = choice
        self._listed: list[Column] = []
        self._options = OptionList(id="columns")

    def compose(self) -> ComposeResult:
        """The title, the columns, and the keys."""
        with Vertical(id="form"):
            yield Static(self._title, markup=False, id="form-title")
            yield self._options
            yield Static(KEYS, id="form-status", markup=False)

    def on_mount(self) -> None:
        """Lists the columns."""
        self._list(0)
        self._options.focus()

    @property
    def _column(self) -> Column | None:
        """The column under the cursor."""
        index = self._options.highlighted
        return None if index is None else self._listed[index]

    def action_switch(self, part: str) -> None:
        """Hides or pins the column, or ends that."""
        column = self._column
        if column is not None and (part == "hidden" or column.id not in PLACED):
            self._change(toggled(self._choice, part, column), column)

    def action_move(self, offset: int) -> None:
        """Moves the column."""
        column = self._column
        if column is not None and column.id not in PLACED:
            self._change(moved(self._choice, self._columns, column, offset), column)

    def action_widen(self, cells: int) -> None:
        """Makes the column wider or narrower."""
        column = self._column
        if column is not None and column.id not in PLACED:
            width = chosen_width(self._choice, column) or self._width_of(column)
            self._change(with_width(self._choice, column, width + cells), column)

    def action_reset(self) -> None:
        """Makes all columns as they are without a choice."""
        if (column := self._column) is not None:
            self._change(ColumnChoice(), column)

    def action_cursor(self, place: str) -> None:
        """Moves the cursor."""
        getattr(self._options, f"action_{place if place in ('first', 'last') else f'cursor_{place}'}")()

    def action_close(self, is_kept: bool) -> None:
        """Keeps the choice, or restores the one before."""
        if self.app.screen is self and not is_kept:
            self._show(self._before)
        self.dismiss(self._choice if is_kept else None)

    def _change(self, choice: ColumnChoice, column: Column) -> None:
        self._choice = choice
        self._show(choice)
        ordered = [each.id for each in self._order()]
        self._list(ordered.index(column.id))

    def _order(self) -> list[Column]:
        return [*in_order(self._columns, self._choice), SEEN]

    def _list(self, cursor: int) -> None:
        self._listed = self._order()
        self._options.clear_options()
        self._options.add_options(list(map(self._line, self._listed)))
        self._options.highlighted = cursor

    def _line(self, column: Column) -> Text:
        is_hidden, width = is_in(self._choice.hidden, column), chosen_width(self._choice, column)
        notes = [
            "hidden" if is_hidden else "",
            "pinned" if column.id == SEEN.id or is_in(self._choice.pinned, column) else "",
            f"width {width}" if width is not None else "",
        ]
        text = f"{fit(column.label, NAME_WIDTH)}  {'  '.join(filter(None, notes))}"
        return Text(text, "dim" if is_hidden else "", no_wrap=True, overflow="ellipsis")
