"""The console: runs a session, draws it in intervals, and carries out the user's actions."""

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

from shm_client import Client, ClientError, Decision, Instance
from shm_tui.actions import ACTIONS, visible_actions
from shm_tui.decisions import DECISION_TEXTS, ConfirmScreen, question
from shm_tui.help_screen import HelpScreen
from shm_tui.model.columns import Column
from shm_tui.model.filter import MissingRankError
from shm_tui.model.filter_editor import FilterEditor
from shm_tui.model.live_session import LiveSession, Overview
from shm_tui.model.row_store import MAX_ROWS
from shm_tui.text.osc52 import copy_sequence
from shm_tui.theme import SHM
from shm_tui.widgets.dashboard import Dashboard
from shm_tui.widgets.detail_panel import DetailPanel, format_json
from shm_tui.widgets.filter_prompt import FilterPrompt
from shm_tui.widgets.footer import Footer
from shm_tui.widgets.live_table import LiveTable
from shm_tui.widgets.messages import ApplicationChosen, SortRequested
from shm_tui.widgets.sidebar import Sidebar

DRAW_INTERVAL_S = 0.25  # changes are drawn four times a second at any rate of events
AGE_INTERVAL_S = 1.0  # the smallest unit of an age
PRIORITY_KEYS = {"tab", "slash"}  # handled before the next key is read: what follows `/` belongs to the prompt
RESTART_DELAY_S = 1.0  # after an exception in the session
ROLE_RETRY_S = 5.0  # between two requests for the token's role
NOTICE_S = 4.0  # long enough to read a line
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
        self.is_admin = False  # until the server has said so
        self.overview = Overview()
        self._max_rows = max_rows
        self.session = LiveSession(client, slug, self._mark_changed, self.overview, max_rows=max_rows)
        self.data_shown = asyncio.Event()
        self.filter_editor = FilterEditor()
        self._has_changes = True  # since the last drawing
        self._is_application_chosen = slug is not None
        self._session_tasks: set[asyncio.Task[None]] = set()
        self._interrupted_at = -QUIT_CONFIRMATION_S  # the monotonic time of the last Ctrl+C
        self._submitted_filter: str | None = None  # closes the prompt once the ranks of its versions have arrived

    def compose(self) -> ComposeResult:
        """All widgets are in the dashboard."""
        yield Dashboard()

    def on_mount(self) -> None:
        """Starts the session and the timers."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.exit)
        self.table.focus()
        self._start_session()
        self.run_worker(self._request_role(), group="role")
        self.set_interval(DRAW_INTERVAL_S, self._draw_changes)
        self.set_interval(AGE_INTERVAL_S, self._draw_ages)

    async def on_unmount(self) -> None:
        """Ends the session, and with it the connection to the server."""
        tasks = list(self._session_tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def dashboard(self) -> Dashboard:
        """The container of all widgets."""
        return self.query_one(Dashboard)

    @property
    def table(self) -> LiveTable:
        """The table."""
        return self.query_one(LiveTable)

    @property
    def is_filter_open(self) -> bool:
        """Whether the filter's prompt is open."""
        return self.query_one(FilterPrompt).is_open

    # The session.

    def _start_session(self) -> None:
        """Runs the current session, and ends the previous one."""
        for task in self._session_tasks:
            task.cancel()
        task = asyncio.create_task(self._run_session(self.session))
        self._session_tasks.add(task)
        task.add_done_callback(self._session_tasks.discard)

    async def _run_session(self, session: LiveSession) -> None:
        """Restarts the session after an unexpected exception, so that it does not end the console."""
        while True:
            try:
                await session.run()
            except Exception as error:
                self.query_one(Footer).show_message(f"internal error ({error!r:.80}), restarting")
                await asyncio.sleep(RESTART_DELAY_S)

    def _mark_changed(self) -> None:
        self._has_changes = True

    def _draw_changes(self) -> None:
        if not self._has_changes or self._is_closing:
            return
        self._has_changes = False
        self._choose_first_application()
        self.dashboard.draw_changes(self.session, self.filter_editor.text)
        if self.dashboard.has_data and (self._is_application_chosen or not self.overview.applications):
            self.data_shown.set()

    def _draw_ages(self) -> None:
        if not self._is_closing:
            self.dashboard.draw_ages(self.session, self.filter_editor.text)

    @property
    def _is_closing(self) -> bool:
        """Whether the widgets are gone already: timers end a little later."""
        return not self.query(Footer)

    def _choose_first_application(self) -> None:
        """Without `slug`, shows the largest application: metrics of several applications rarely fit one table.

        A user who has opened an instance or the filter before keeps what is on the screen.
        """
        applications = self.overview.applications
        if self.is_filter_open or self.query_one(DetailPanel).display:
            self._is_application_chosen = True
        if not self._is_application_chosen and applications:
            self.show_application(max(applications, key=lambda app: app.instances.total).slug)

    def show_application(self, slug: str | None) -> None:
        """Starts a session for another application; None for all."""
        self._is_application_chosen = True
        if slug == self.session.slug and self.session.is_listed:
            return
        self.session = LiveSession(self.client, slug, self._mark_changed, self.overview, max_rows=self._max_rows)
        self._set_filter("")
        if self.is_filter_open:
            self._close_filter()
        self._show_details(False)
        self._start_session()
        self._mark_changed()

    # Messages of the widgets.

    def on_layout_changed(self) -> None:
        """Draws the columns that fit the new width."""
        self._mark_changed()

    def on_application_chosen(self, event: ApplicationChosen) -> None:
        """Shows the application that was clicked."""
        self.show_application(event.slug)

    def on_row_opened(self) -> None:
        """Opens the details of the row that was clicked."""
        self._open_details()

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
        self._submitted_filter = None
        if self.is_filter_open:
            self._set_filter(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Keeps the filter and closes the prompt, unless the filter is invalid."""
        self._submitted_filter = event.value
        if self._set_filter(event.value):
            self._close_filter()

    # Actions: moving and viewing.

    def action_move(self, lines: int) -> None:
        """Moves what has the focus: the prompt's history, the details, the application, or the table's cursor."""
        if self.is_filter_open:
            self.query_one(FilterPrompt).recall(self.filter_editor.history, lines)
        elif (panel := self.query_one(DetailPanel)).has_focus:
            panel.scroll_relative(y=lines, animate=False)
        elif self.query_one(Sidebar).has_focus:
            self._step_application(lines)
        else:
            self.table.move_cursor(lines)

    def action_page(self, direction: int) -> None:
        """Moves what has the focus by a page."""
        panel, sidebar = self.query_one(DetailPanel), self.query_one(Sidebar)
        if panel.has_focus:
            panel.scroll_relative(y=direction * panel.size.height, animate=False)
        elif sidebar.has_focus:
            self._step_application(direction * max(1, sidebar.content_size.height - 1))
        else:
            self.table.move_page(direction)

    def action_first(self) -> None:
        """Moves what has the focus to its first line."""
        panel, sidebar = self.query_one(DetailPanel), self.query_one(Sidebar)
        if panel.has_focus:
            panel.scroll_home(animate=False)
        elif sidebar.has_focus:
            self.show_application(sidebar.slugs()[0])
        else:
            self.table.move_to_first()

    def action_last(self) -> None:
        """Moves what has the focus to its last line."""
        panel, sidebar = self.query_one(DetailPanel), self.query_one(Sidebar)
        if panel.has_focus:
            panel.scroll_end(animate=False)
        elif sidebar.has_focus:
            self.show_application(sidebar.slugs()[-1])
        else:
            self.table.move_to_last()

    def action_columns(self, count: int) -> None:
        """Scrolls the columns, if the table has the focus."""
        if self.table.has_focus:
            self.table.scroll_columns(count)

    def action_application(self, offset: int) -> None:
        """Shows the previous or the next application of the sidebar; after the last one the first."""
        slugs = self.query_one(Sidebar).slugs()
        index = slugs.index(self.session.slug) if self.session.slug in slugs else 0
        self.show_application(slugs[(index + offset) % len(slugs)])

    def _step_application(self, offset: int) -> None:
        """Moves the selection of the sidebar, up to its ends."""
        slugs = self.query_one(Sidebar).slugs()
        index = slugs.index(self.session.slug) if self.session.slug in slugs else 0
        self.show_application(slugs[max(0, min(index + offset, len(slugs) - 1))])

    def action_open(self) -> None:
        """Opens the details of the instance under the cursor. In the sidebar, returns to the table."""
        if self.query_one(Sidebar).has_focus:
            self.table.focus()
        elif self.table.has_focus:
            self._open_details()

    def _open_details(self) -> None:
        panel = self.query_one(DetailPanel)
        row = self.session.store.rows.get(self.table.cursor_id or "")
        if row is None:
            return
        panel.pin(row)
        self._show_details(True)
        panel.focus()
        self.dashboard.draw_details(self.session)

    def action_copy(self) -> None:
        """Copies the ID of the instance under the cursor; while the details have the focus, its metrics as JSON."""
        panel = self.query_one(DetailPanel)
        if panel.has_focus and panel.row is not None:
            self._copy("metrics", format_json(panel.row.instance.metrics))
        elif self.table.cursor_id is not None:
            self._copy("ID", self.table.cursor_id)

    def _copy(self, name: str, text: str) -> None:
        """Sends a text to the terminal's clipboard. The terminal does not say whether it took it."""
        sequence = copy_sequence(text, os.environ)
        if sequence is None or self._driver is None:
            notice = f"The {name} are too long for a terminal's clipboard: {len(text):,} characters"
        else:
            self._driver.write(sequence)
            self._driver.flush()
            notice = f"Copied the {name}, {len(text):,} characters, if the terminal supports OSC 52"
        self.query_one(Footer).show_notice(notice, NOTICE_S)

    def action_neighbour(self, offset: int) -> None:
        """While the details are open, opens the next or the previous instance of the table."""
        panel = self.query_one(DetailPanel)
        if not panel.display:
            return
        index = self.session.store.index_of(panel.instance_id)
        if index is not None:  # a pinned instance that left the table has no neighbours: the cursor's instance is next
            self.table.move_cursor_to(index + offset)
        row = self.session.store.rows.get(self.table.cursor_id or "")
        if row is not None:
            panel.pin(row)
            self.dashboard.draw_details(self.session)

    def _show_details(self, is_open: bool) -> None:
        panel = self.query_one(DetailPanel)
        has_focus = panel.has_focus
        panel.display = is_open
        self.query_one(Footer).show_keys("details" if is_open else "table")
        if not is_open and has_focus:  # the focus remains where the user put it
            self.table.focus()

    def action_pause(self) -> None:
        """Pauses or resumes the rows. Changes are counted meanwhile."""
        store = self.session.store
        store.is_paused = not store.is_paused
        self._mark_changed()
        self._draw_changes()

    def action_reload(self) -> None:
        """Lists all instances again."""
        self.session.reload()

    # Actions: deciding on an instance.

    async def _request_role(self) -> None:
        """Finds out whether the token is an admin's, when the server answers."""
        while True:
            try:
                self.is_admin = await self.client.is_admin()
            except ClientError:  # the feed shows it
                await asyncio.sleep(ROLE_RETRY_S)
            else:
                return

    def action_decide(self, decision: Decision) -> None:
        """Asks before it approves, revokes or erases the instance of the details, else the one under the cursor."""
        panel = self.query_one(DetailPanel)
        row = panel.row if panel.display else self.session.store.rows.get(self.table.cursor_id or "")
        if row is None:
            return
        instance = row.instance  # what the question names is what the decision hits, whatever moves meanwhile

        def decide(is_confirmed: bool | None) -> None:
            if is_confirmed:
                self.run_worker(self._decide(decision, instance), group="decisions")

        self.push_screen(ConfirmScreen(question(decision, instance, self.session.clock())), decide)

    async def _decide(self, decision: Decision, instance: Instance) -> None:
        name = f"{instance.instance_id[:8]} of {instance.app_name}"
        try:
            await self.client.decide(instance.instance_id, decision)
        except ClientError as error:
            notice = f"{name}: {error}"
        else:
            notice = f"{DECISION_TEXTS[decision].done} {name}"
        self.query_one(Footer).show_notice(notice, NOTICE_S)

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
        self.filter_editor.begin()
        self.query_one(Footer).show_keys("filter")
        self.query_one(FilterPrompt).open(self.filter_editor.text)

    def _set_filter(self, text: str) -> bool:
        """Applies a filter. Returns False for an invalid one, which leaves the previous filter in effect."""
        store = self.session.store
        error = self.filter_editor.apply(text, store, self.session.descriptions)
        self.session.narrowing.request(store.filter.server_filter)
        if isinstance(error, MissingRankError):
            self.run_worker(self._request_rank(error.version), group="ranks", exclusive=True)
        self.query_one(Footer).show_message(str(error) if error else store.filter.warning)
        store.rebuild_order(self.session.clock())
        self.table.update_order()
        self.dashboard.draw_panels(self.session, self.filter_editor.text)
        return error is None

    async def _request_rank(self, version: str) -> None:
        """Requests the rank of a version, then applies the text in the prompt again."""
        try:
            self.filter_editor.ranks[version] = await self.client.version_rank(version)
        except ClientError as error:
            self.query_one(Footer).show_message(f"the rank of version {version} is unknown: {error}")
            return
        text = self.query_one(FilterPrompt).value
        if self.is_filter_open and self._set_filter(text) and self._submitted_filter == text:
            self._close_filter()

    def _close_filter(self) -> None:
        self.filter_editor.remember()
        self.query_one(FilterPrompt).close()
        self.query_one(Footer).show_message("")
        self.query_one(Footer).show_keys("table")
        self.table.focus()

    # Actions: panes and screens.

    async def action_back(self) -> None:
        """Goes up one level: closes the prompt with the filter in effect, or the details, else shows all rows.

        Nothing is lost: the history of the prompt has every filter that was in effect.
        """
        if self.is_filter_open:
            self._close_filter()
        elif self.query_one(DetailPanel).display:
            self._show_details(False)
        elif self.filter_editor.text:
            self.filter_editor.remember()
            self._set_filter("")

    def action_close(self) -> None:
        """Closes what is on top: the details, else the console."""
        if self.query_one(DetailPanel).display:
            self._show_details(False)
        else:
            self.exit()

    def action_interrupt(self) -> None:
        """Cancels the input of the prompt. Elsewhere, a second Ctrl+C ends the console."""
        if self.is_filter_open:
            self.filter_editor.remember()
            self._set_filter(self.filter_editor.begun_with)
            self._close_filter()
        elif monotonic() - self._interrupted_at < QUIT_CONFIRMATION_S:
            self.exit()
        else:
            self._interrupted_at = monotonic()
            self.query_one(Footer).show_notice("Ctrl+C again ends the console", QUIT_CONFIRMATION_S)

    def action_next_pane(self) -> None:
        """Moves the focus from the table to the details and the sidebar; from the prompt, to the table."""
        if self.is_filter_open:
            self._close_filter()
            return
        panes = [pane for pane in (self.table, self.query_one(DetailPanel), self.query_one(Sidebar)) if pane.display]
        focused = next((index for index, pane in enumerate(panes) if pane.has_focus), -1)
        panes[(focused + 1) % len(panes)].focus()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Leaves Tab and `/` to the screens above the main one, and `/` to the open prompt."""
        if action == "decide":
            return self.is_admin
        if action == "filter":
            return len(self.screen_stack) == 1 and not self.is_filter_open
        return action != "next_pane" or len(self.screen_stack) == 1

    def action_help(self) -> None:
        """Opens the help screen."""
        self.push_screen(HelpScreen(is_admin=self.is_admin))

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The actions of the registry, for the command palette."""
        for action in visible_actions(is_admin=self.is_admin):
            if action.name != "command_palette":
                title = action.help[:1].upper() + action.help[1:]
                yield SystemCommand(title, action.key_label, _action_callback(self, action.name))


def _action_callback(app: ConsoleApp, name: str) -> Callable[[], Awaitable[None]]:
    async def run_action() -> None:
        await app.run_action(name)

    return run_action
