"""The console: owns the session, draws it in intervals, and passes the user's actions on to the panes."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterable
from time import monotonic
from typing import ClassVar

from textual.app import App, ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Input

from shm_client import Client, Decision
from shm_tui.actions import ACTIONS, visible_actions
from shm_tui.clipboard import copy
from shm_tui.decisions import Decisions
from shm_tui.filter_control import FilterControl
from shm_tui.help_screen import HelpScreen
from shm_tui.model.columns import Column
from shm_tui.model.live_session import LiveSession, Overview
from shm_tui.model.row_store import MAX_ROWS
from shm_tui.session_task import SessionTask
from shm_tui.theme import SHM
from shm_tui.widgets.dashboard import Dashboard
from shm_tui.widgets.detail_panel import format_json
from shm_tui.widgets.footer import NOTICE_S, Footer
from shm_tui.widgets.live_table import LiveTable
from shm_tui.widgets.messages import ApplicationChosen, SortRequested

DRAW_INTERVAL_S = 0.25  # changes are drawn four times a second at any rate of events
AGE_INTERVAL_S = 1.0  # the smallest unit of an age
PRIORITY_KEYS = {"tab", "slash"}  # handled before the next key is read: what follows `/` belongs to the prompt
QUIT_CONFIRMATION_S = 3.0  # within which a second Ctrl+C ends the console


class ConsoleApp(App[None]):
    """Shows one server. `data_shown` is set once the first data has been drawn, or the server has none."""

    CSS_PATH = "app.tcss"
    TITLE = "SHM"
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(action.keys, action.name, action.help, show=False, priority=action.keys in PRIORITY_KEYS)
        for action in ACTIONS
        if action.name != "command_palette"
    ]

    def __init__(self, client: Client, slug: str | None = None, *, max_rows: int = MAX_ROWS) -> None:
        super().__init__(ansi_color=True if os.environ.get("NO_COLOR") else None)
        self.register_theme(SHM)
        self.theme = "ansi-dark" if self.no_color else SHM.name
        self.client = client
        self.overview = Overview()
        self._max_rows = max_rows
        self.session = LiveSession(client, slug, self._mark_changed, self.overview, max_rows=max_rows)
        self.dashboard = Dashboard()
        self.filter = FilterControl(client, self.dashboard, lambda: self.session)
        self.decisions = Decisions(client, self.dashboard.footer)
        self.data_shown = asyncio.Event()
        self._session_task = SessionTask(self.dashboard.footer)
        self._has_changes = True  # since the last drawing
        self._is_application_chosen = slug is not None
        self._interrupted_at = -QUIT_CONFIRMATION_S  # the monotonic time of the last Ctrl+C

    def compose(self) -> ComposeResult:
        """All widgets are in the dashboard."""
        yield self.dashboard

    def on_mount(self) -> None:
        """Starts the session and the timers."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.exit)
        self.table.focus()
        self._session_task.start(self.session)
        self.run_worker(self.decisions.request_role(), group="role")
        self.set_interval(DRAW_INTERVAL_S, self._draw_changes)
        self.set_interval(AGE_INTERVAL_S, self._draw_ages)

    async def on_unmount(self) -> None:
        """Ends the session, and with it the connection to the server."""
        await self._session_task.stop()

    @property
    def table(self) -> LiveTable:
        """The table."""
        return self.dashboard.table

    # The session.

    def _mark_changed(self) -> None:
        self._has_changes = True

    def _draw_changes(self) -> None:
        if not self._has_changes or self._is_closing:
            return
        self._has_changes = False
        self._choose_first_application()
        self.dashboard.draw_changes(self.session, self.filter.text)
        if self.dashboard.has_data and (self._is_application_chosen or not self.overview.applications):
            self.data_shown.set()

    def _draw_ages(self) -> None:
        if not self._is_closing:
            self.dashboard.draw_ages(self.session, self.filter.text)

    @property
    def _is_closing(self) -> bool:
        """Whether the widgets are gone already: timers end a little later."""
        return not self.query(Footer)

    def _choose_first_application(self) -> None:
        """Without `slug`, shows the largest application: metrics of several applications rarely fit one table.

        A user who has opened an instance or the filter before keeps what is on the screen.
        """
        applications = self.overview.applications
        if self.filter.is_open or self.dashboard.details.display:
            self._is_application_chosen = True
        if not self._is_application_chosen and applications:
            self.show_application(max(applications, key=lambda app: app.instances.total).slug)

    def show_application(self, slug: str | None) -> None:
        """Starts a session for another application; None for all."""
        self._is_application_chosen = True
        if slug == self.session.slug and self.session.is_listed:
            return
        self.session = LiveSession(self.client, slug, self._mark_changed, self.overview, max_rows=self._max_rows)
        self.filter.set("")
        if self.filter.is_open:
            self.filter.close()
        self.dashboard.show_details(False)
        self._session_task.start(self.session)
        self._mark_changed()

    # Messages of the widgets.

    def on_layout_changed(self) -> None:
        """Draws the columns that fit the new width."""
        self._mark_changed()

    def on_application_chosen(self, event: ApplicationChosen) -> None:
        """Shows the application that was clicked or reached by a key."""
        self.show_application(event.slug)

    def on_row_opened(self) -> None:
        """Opens the details of the row that was clicked."""
        self.dashboard.open_details(self.session)

    def on_cursor_moved(self) -> None:
        """Draws the details again: their instance may have left the table."""
        self.dashboard.draw_details(self.session)

    def on_sort_requested(self, event: SortRequested) -> None:
        """Sorts by the column that was clicked; a second click reverses the order."""
        if event.column.id == self.session.store.sort_column.id:
            self.action_reverse()
        else:
            self._sort_by(event.column)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filters while the user types."""
        self.filter.change(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Keeps the filter and closes the prompt, unless the filter is invalid."""
        self.filter.submit(event.value)

    # Actions: moving and viewing.

    def action_move(self, lines: int) -> None:
        """Moves what has the focus: the prompt's history, the details, the application, or the table's cursor."""
        if self.filter.is_open:
            self.filter.recall(lines)
        else:
            self.dashboard.focused_pane.move_cursor(lines)

    def action_page(self, direction: int) -> None:
        """Moves what has the focus by a page."""
        self.dashboard.focused_pane.move_page(direction)

    def action_first(self) -> None:
        """Moves what has the focus to its first line."""
        self.dashboard.focused_pane.move_to_first()

    def action_last(self) -> None:
        """Moves what has the focus to its last line."""
        self.dashboard.focused_pane.move_to_last()

    def action_columns(self, count: int) -> None:
        """Scrolls the columns, if the table has the focus."""
        if self.table.has_focus:
            self.table.scroll_columns(count)

    def action_application(self, offset: int) -> None:
        """Shows the previous or the next application of the sidebar; after the last one the first."""
        slugs = self.dashboard.sidebar.slugs()
        index = slugs.index(self.session.slug) if self.session.slug in slugs else 0
        self.show_application(slugs[(index + offset) % len(slugs)])

    def action_open(self) -> None:
        """Opens the details of the instance under the cursor. In the sidebar, returns to the table."""
        if self.dashboard.sidebar.has_focus:
            self.table.focus()
        elif self.table.has_focus:
            self.dashboard.open_details(self.session)

    def action_neighbour(self, offset: int) -> None:
        """While the details are open, opens the next or the previous instance of the table."""
        self.dashboard.open_neighbour(self.session, offset)

    def action_copy(self) -> None:
        """Copies the ID of the instance under the cursor; while the details have the focus, its metrics as JSON."""
        panel = self.dashboard.details
        if panel.has_focus and panel.row is not None:
            self._copy("metrics", format_json(panel.row.instance.metrics))
        elif self.table.cursor_id is not None:
            self._copy("ID", self.table.cursor_id)

    def _copy(self, name: str, text: str) -> None:
        self.dashboard.footer.show_notice(copy(self._driver, name, text), NOTICE_S)

    def action_pause(self) -> None:
        """Pauses or resumes the rows. Changes are counted meanwhile."""
        store = self.session.store
        store.is_paused = not store.is_paused
        self._mark_changed()
        self._draw_changes()

    def action_reload(self) -> None:
        """Lists all instances again."""
        self.session.reload()

    def action_decide(self, decision: Decision) -> None:
        """Asks before it approves, revokes or erases the instance of the details, else the one under the cursor."""
        row = self.dashboard.current_row(self.session)
        if row is not None:
            self.decisions.ask(self, decision, row.instance, self.session.clock())

    # Actions: sorting and filtering.

    def action_sort(self, offset: int) -> None:
        """Sorts by the column next to the one that is sorted by."""
        columns = [column for column in self.table.columns if column.label]
        ids = [column.id for column in columns]
        if columns:
            sorted_id = self.session.store.sort_column.id
            index = ids.index(sorted_id) if sorted_id in ids else 0
            self._sort_by(columns[(index + offset) % len(columns)])

    def action_reverse(self) -> None:
        """Reverses the sort order."""
        store = self.session.store
        self._set_sort(store.sort_column, not store.is_descending)

    def _sort_by(self, column: Column) -> None:
        self._set_sort(column, is_descending=column.metric is not None and column.align_right)
        self.table.scroll_to_column(column)

    def _set_sort(self, column: Column, is_descending: bool) -> None:
        store = self.session.store
        store.has_sort_order = True
        store.sort_column, store.is_descending = column, is_descending
        store.rebuild_order(self.session.clock())
        self.table.update_order()

    def action_filter(self) -> None:
        """Opens the filter's prompt with the current filter."""
        self.filter.open()

    # Actions: panes and screens.

    async def action_back(self) -> None:
        """Goes up one level: closes the prompt with the filter in effect, or the details, else shows all rows.

        Nothing is lost: the history of the prompt has every filter that was in effect.
        """
        if self.filter.is_open:
            self.filter.close()
        elif self.dashboard.details.display:
            self.dashboard.show_details(False)
        else:
            self.filter.clear()

    def action_close(self) -> None:
        """Closes what is on top: the details, else the console."""
        if self.dashboard.details.display:
            self.dashboard.show_details(False)
        else:
            self.exit()

    def action_interrupt(self) -> None:
        """Cancels the input of the prompt. Elsewhere, a second Ctrl+C ends the console."""
        if self.filter.is_open:
            self.filter.cancel()
        elif monotonic() - self._interrupted_at < QUIT_CONFIRMATION_S:
            self.exit()
        else:
            self._interrupted_at = monotonic()
            self.dashboard.footer.show_notice("Ctrl+C again ends the console", QUIT_CONFIRMATION_S)

    def action_next_pane(self) -> None:
        """Moves the focus from the table to the details and the sidebar; from the prompt, to the table."""
        if self.filter.is_open:
            self.filter.close()
        else:
            self.dashboard.focus_next_pane()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Leaves Tab and `/` to the screens above the main one, and `/` to the open prompt."""
        if action == "decide":
            return self.decisions.is_admin
        if action == "filter":
            return len(self.screen_stack) == 1 and not self.filter.is_open
        return action != "next_pane" or len(self.screen_stack) == 1

    def action_help(self) -> None:
        """Opens the help screen."""
        self.push_screen(HelpScreen(is_admin=self.decisions.is_admin))

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The actions of the registry, for the command palette."""
        for action in visible_actions(is_admin=self.decisions.is_admin):
            if action.name != "command_palette":
                title = action.help[:1].upper() + action.help[1:]
                yield SystemCommand(title, action.key_label, _action_callback(self, action.name))


def _action_callback(app: ConsoleApp, name: str) -> Callable[[], Awaitable[None]]:
    async def run_action() -> None:
        await app.run_action(name)

    return run_action
