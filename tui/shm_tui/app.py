"""The console: joins its parts, and passes the actions of the user and the messages of the widgets on to them."""

import asyncio
import os
import signal
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import ClassVar

from textual import events
from textual.app import ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Input

from shm_client import Client, Decision
from shm_client.figures import Period
from shm_tui.actions import ACTIONS, Action, visible_actions
from shm_tui.back_control import BackControl
from shm_tui.buffered_app import BufferedApp
from shm_tui.config.keys import config_name, with_keys
from shm_tui.config.settings import Settings
from shm_tui.decisions import Decisions
from shm_tui.drawing_control import DrawingControl
from shm_tui.filter_control import FilterControl
from shm_tui.hangup import end_without_terminal
from shm_tui.help_screen import HelpScreen
from shm_tui.instance_search import InstanceSearch
from shm_tui.model.live_session import LiveSession, Overview
from shm_tui.model.place import DEFAULT_APP, Place, ViewName
from shm_tui.model.row_store import MAX_ROWS
from shm_tui.navigation import Navigation
from shm_tui.output_control import OutputControl
from shm_tui.palette import palette_commands
from shm_tui.palette_screen import Palette, ThemePalette
from shm_tui.place_control import PlaceControl
from shm_tui.row_actions import RowActions
from shm_tui.settings_control import SettingsControl
from shm_tui.theme import BAND_DEFAULTS, SHM, THEMES
from shm_tui.theme_names import TERMINAL
from shm_tui.widgets.dashboard import Dashboard
from shm_tui.widgets.live_table import LiveTable
from shm_tui.widgets.messages import ApplicationChosen, ChartRequested, PlaceRequested, SortRequested

TERMINAL_CHECK_S = 1.0  # in which the application fills only a part of Textual's queue of output
# Handled before the next key is read: what follows belongs to the prompt, or to the palette.
PRIORITY_ACTIONS = {"next_pane", "filter", "command", "command_palette"}
HOST_ACTIONS = {"screenshot", "suspend_process"}  # Textual's own that write a file or stop the process


class ConsoleApp(BufferedApp):
    """Shows one server."""

    CSS_PATH = "app.tcss"
    TITLE = "SHM"
    ENABLE_COMMAND_PALETTE = True
    COMMANDS = BufferedApp.COMMANDS | {InstanceSearch}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            *(action.keys, action.name, action.help),
            show=False,
            priority=action.name in PRIORITY_ACTIONS,
            id=config_name(action),
        )
        for action in ACTIONS
    ]

    def __init__(
        self,
        client: Client,
        slug: str | None = None,
        *,
        place: Place | None = None,
        theme: str | None = None,
        max_rows: int = MAX_ROWS,
        is_restricted: bool = False,
        settings: Settings | None = None,
    ) -> None:
        super().__init__(ansi_color=True if os.environ.get("NO_COLOR") else None)
        for each in THEMES:
            self.register_theme(each)
        settings = settings or Settings()
        self.theme = theme or (TERMINAL if self.no_color else settings.config.theme or SHM.name)
        self.actions = with_keys(settings.config.keys)
        self.set_keymap({name: ",".join(keys) for name, keys in settings.config.keys.items()})
        self.is_restricted = is_restricted  # `shm_tui.restricted`
        self.dashboard = Dashboard()
        self.dashboard.footer.actions = self.actions
        self.dashboard.column_choices.update(settings.config.columns)
        self.drawing = DrawingControl(self, self.dashboard)
        self.settings = SettingsControl(self, client, self.dashboard.footer, settings)
        self.navigation = Navigation(
            *(client, self.dashboard, place or Place(slug or DEFAULT_APP), self.drawing.mark_changed, max_rows),
            context=settings.context,
            switch=self.settings.switch,
        )
        self.commands = PlaceControl(self, self.dashboard)
        self.back_control = BackControl(self, self.dashboard, self.navigation, self.commands)
        self.outputs = OutputControl(self, self.dashboard, self.navigation, is_restricted=is_restricted)
        self.decisions = Decisions(client, self.dashboard.footer)
        self.rows = RowActions(self, self.dashboard, self.navigation, self.decisions)
        self.settings.bind(self.navigation, self.decisions)
        self.drawing.bind(self.navigation, self.back_control, self.settings)

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """The colours of bands in themes that have none."""
        return BAND_DEFAULTS

    def compose(self) -> ComposeResult:
        """All widgets are in the dashboard."""
        yield self.dashboard

    def on_load(self) -> None:
        """Starts the session: the server answers while the widgets are mounted."""
        # From here on Textual changes the terminal, and an unhandled signal would leave it so.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.exit)
        if self.settings.settings.has_token:
            self.navigation.start()

    def on_mount(self) -> None:
        """Shows the first place, and starts the timers."""
        self.dashboard.focus_main()
        if self.settings.settings.has_token:
            self.navigation.show()
            self.run_worker(self.decisions.request_role, group="role")  # type: ignore[arg-type] # mypy finds no overload
        else:
            self.settings.find_token()
        self.drawing.start()
        if not self.is_headless:
            self.set_interval(TERMINAL_CHECK_S, end_without_terminal)

    async def on_event(self, event: events.Event) -> None:
        """Draws the answers to keys and the mouse before other changes."""
        if isinstance(event, events.InputEvent):
            self.drawing.mark_input()
        await super().on_event(event)

    async def on_unmount(self) -> None:
        """Ends the session, and with it the connection to the server."""
        await self.navigation.stop()

    @property
    def place(self) -> Place:
        """The place that is shown."""
        return self.navigation.place

    @property
    def session(self) -> LiveSession:
        """The live instances of the place's application."""
        return self.navigation.session

    @property
    def overview(self) -> Overview:
        """Counts of all applications."""
        return self.navigation.overview

    @property
    def filter(self) -> FilterControl:
        """The filter and its prompt."""
        return self.navigation.filter

    @property
    def table(self) -> LiveTable:
        """The table."""
        return self.dashboard.table

    def go(self, place: Place) -> None:
        """Shows a place."""
        self.navigation.go(place)

    def show_application(self, slug: str | None) -> None:
        """Shows the same view of another application; None for all."""
        self.go(self.place.with_app(slug))

    @property
    def is_admin(self) -> bool:
        """Whether the token is an admin's, as far as is known."""
        return self.decisions.is_admin

    def run_command(self, action: str) -> None:
        """Carries out an action of the registry."""
        self.run_worker(self.run_action(action), group="commands")

    # Messages of the widgets.

    def on_layout_changed(self) -> None:
        """Draws the columns that fit the new width."""
        self.drawing.mark_changed()

    def on_application_chosen(self, event: ApplicationChosen) -> None:
        """Shows the application that was clicked or reached by a key."""
        self.show_application(event.slug)

    def on_row_opened(self) -> None:
        """Opens the details of the row that was clicked."""
        self.dashboard.open_details(self.session)

    def on_place_requested(self, event: PlaceRequested) -> None:
        """Goes to the place that was clicked."""
        self.go(event.place)

    def on_cursor_moved(self) -> None:
        """Draws the number of the row, and the details again: their instance may have left the table."""
        self.dashboard.draw_row_number()
        self.dashboard.draw_details(self.session)

    def on_sort_requested(self, event: SortRequested) -> None:
        """Sorts by the column that was clicked; a second click reverses the order."""
        self.navigation.sorting.choose(event.column)

    def on_chart_requested(self, event: ChartRequested) -> None:
        """Shows the chart of the tile that was clicked."""
        self.go(self.place.to_view("metric", event.key))

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filters while the user types."""
        if event.input is self.dashboard.prompt.field:
            self.filter.change(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Keeps the filter or goes to the place, unless the text is invalid."""
        if event.input is self.dashboard.prompt.field:
            self.filter.submit(event.value)
        elif event.input is self.dashboard.place_prompt.field:
            self.commands.submit(event.value)

    # Actions: moving and viewing.

    def action_move(self, lines: int) -> None:
        """Moves what has the focus: the prompt's history, the details, the application, or the table's cursor."""
        if self.filter.is_open:
            self.filter.recall(lines)
        elif self.commands.is_open:
            self.commands.recall(lines)
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
        """Scrolls the columns, reads another time of a chart, or shows another dimension of a breakdown."""
        place = self.navigation.view.step(count, 0) if self.dashboard.view.has_focus else None
        if place is not None:
            self.navigation.go(place, is_step=False)
        elif not self.back_control.is_prompt_open:
            self.dashboard.focused_pane.scroll_columns(count)

    def action_application(self, offset: int) -> None:
        """Shows the previous or the next application of the sidebar; after the last one the first."""
        slugs = self.dashboard.sidebar.slugs()
        index = slugs.index(self.session.slug) if self.session.slug in slugs else 0
        self.show_application(slugs[(index + offset) % len(slugs)])

    def action_open(self) -> None:
        """Opens what is under the cursor: an instance's details, from these the whole instance, or another place."""
        self.rows.open()

    def action_neighbour(self, offset: int) -> None:
        """While the details are open, opens the next or the previous instance of the table."""
        self.dashboard.open_neighbour(self.session, offset)

    def action_copy(self) -> None:
        """Copies the ID of the instance under the cursor; in the details, its metrics as JSON; in a view, the line."""
        self.outputs.copy_first()

    def action_copy_choice(self) -> None:
        """Asks what to copy."""
        self.outputs.ask_copy()

    def action_export(self) -> None:
        """Exports the rows of the list or the view."""
        self.outputs.export()

    def action_json(self) -> None:
        """Shows the JSON of the instance or the view in the pager."""
        self.outputs.show_json()

    def action_pause(self) -> None:
        """Holds rows, ages, tiles and counts, or shows what arrived meanwhile."""
        self.navigation.set_paused(not self.session.store.is_paused)
        self.drawing.mark_changed()
        self.drawing.draw()

    def action_reload(self) -> None:
        """Lists all instances again, loads the view again, and writes the whole screen again."""
        self.repaint()
        self.session.reload()
        self.navigation.tiles.reload()
        self.navigation.view.reload()
        self.navigation.chart.reload()

    def action_decide(self, decision: Decision) -> None:
        """Asks before it approves, revokes or erases."""
        self.rows.decide(decision)

    def action_mark(self) -> None:
        """Marks the instance under the cursor, or removes its mark."""
        self.rows.mark()

    def action_unmark(self) -> None:
        """Removes all marks."""
        self.rows.unmark()

    # Actions: sorting and filtering.

    def action_sort(self, offset: int) -> None:
        """Sorts by the column next to the one that is sorted by; in a view, shows another metric."""
        if self.place.view == "instances":
            self.navigation.sorting.step(offset)
        elif (place := self.navigation.view.step(0, offset)) is not None:
            self.navigation.go(place, is_step=False)

    def action_sort_choice(self) -> None:
        """Opens the list of the columns, to sort by one."""
        from shm_tui.sort_palette import SortPalette

        if self.place.view == "instances":
            self.push_screen(SortPalette())

    def action_column_choice(self) -> None:
        """Opens the list of the columns, to hide, pin, move and widen them."""
        from shm_tui.column_screen import ask_columns

        if self.place.view == "instances" and self.dashboard.all_columns:
            ask_columns(self, self.dashboard, self.session, self.settings.save_columns)

    def action_dimension(self) -> None:
        """In the view of a metric, shows its values by another dimension."""
        if (place := self.navigation.view.next_dimension()) is not None:
            self.navigation.go(place, is_step=False)

    def action_second_metric(self) -> None:
        """In the view of a metric, draws another one over it; after the last one none."""
        if (place := self.navigation.view.next_second()) is not None:
            self.navigation.go(place, is_step=False)

    def action_reverse(self) -> None:
        """Reverses the sort order."""
        if self.place.view == "instances":
            self.navigation.sorting.reverse()

    def action_filter(self) -> None:
        """Opens the filter's prompt with the current filter; in a view without one, that of the list."""
        if self.place.view not in ("instances", "fleet"):
            self.go(self.place.to_view("instances"))
        self.filter.open()

    # Actions: places.

    def action_command(self) -> None:
        """Opens the prompt of places and commands."""
        self.commands.open()

    def action_view(self, view: ViewName) -> None:
        """Shows a view of the same application; in the fleet, of the one under the cursor."""
        if view != self.place.view:
            self.go(self.navigation.place_at_cursor().to_view(view))

    def action_range(self, period: Period) -> None:
        """Changes the range of the view's charts and figures."""
        self.navigation.go(replace(self.place, range=period), is_step=False)

    def action_chart(self) -> None:
        """Shows the chart of the metric that the list is sorted by; in a view, of the one under the cursor."""
        self.navigation.show_chart()

    def action_previous_place(self) -> None:
        """Goes back to the previous place, with its filter and its sort order."""
        self.navigation.back()

    # Actions: panes and screens.

    async def action_back(self) -> None:
        """Goes up one level."""
        self.back_control.back()

    def action_close(self) -> None:
        """Closes what is on top: the details or the view, else the console."""
        self.back_control.close()

    def action_interrupt(self) -> None:
        """Cancels the input of the prompt. Elsewhere, a second Ctrl+C ends the console."""
        self.back_control.interrupt()

    def action_next_pane(self) -> None:
        """Moves the focus from the table to the details and the sidebar. Closes the filter, and completes a place."""
        self.back_control.next_pane()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Leaves Tab, `/` and `:` to the screens above the main one, and `/` and `:` to an open prompt."""
        if action == "decide":
            return self.is_admin
        if action in ("mark", "unmark"):
            return self.is_admin and not self.back_control.is_prompt_open
        if action in HOST_ACTIONS:
            return not self.is_restricted
        if action in ("filter", "command", "copy_choice", "export", "json", "sort_choice", "column_choice"):
            return len(self.screen_stack) == 1 and not self.back_control.is_prompt_open
        return action != "next_pane" or len(self.screen_stack) == 1

    def action_command_palette(self) -> None:
        """Opens the list of all actions."""
        if not isinstance(self.screen, Palette):
            self.push_screen(Palette())

    def search_themes(self) -> None:
        """Opens the list of themes."""
        self.push_screen(ThemePalette())

    def action_help(self) -> None:
        """Opens the help screen."""
        self.push_screen(HelpScreen(self._visible_actions))

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The actions of the registry, the applications, saved views and contexts, for the command palette."""
        applications = self.overview.applications or []
        yield from palette_commands(self.run_action, self.show_application, applications, self._visible_actions)
        yield from (
            SystemCommand(name, kind, partial(self.commands.follow, name)) for name, kind in self.settings.places()
        )

    @property
    def _visible_actions(self) -> list[Action]:
        return visible_actions(is_admin=self.is_admin, actions=self.actions)
