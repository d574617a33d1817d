"""The main screen's content: composes the widgets and draws a session with them."""

from textual import events
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import Static

from shm_tui.actions import view_context
from shm_tui.model.column_choice import ColumnChoice, arrange
from shm_tui.model.columns import SEEN, Column, build_columns
from shm_tui.model.empty_message import LOADING, empty_message, incomplete_message
from shm_tui.model.live_session import LiveSession, Phase
from shm_tui.model.place import ALL, Place
from shm_tui.model.row import Row
from shm_tui.model.row_store import numeric_keys
from shm_tui.model.tile_session import TileData
from shm_tui.model.tiles import overview_tiles, shown_tiles
from shm_tui.model.view_session import ViewSession
from shm_tui.widgets.detail_panel import DetailPanel
from shm_tui.widgets.footer import Footer
from shm_tui.widgets.headline import Headline, headline_facts, tile_facts
from shm_tui.widgets.live_table import LiveTable
from shm_tui.widgets.messages import LayoutChanged
from shm_tui.widgets.panes import Pane
from shm_tui.widgets.prompt import FILTER_PLACEHOLDER, PLACE_PLACEHOLDER, Prompt
from shm_tui.widgets.sidebar import Sidebar
from shm_tui.widgets.status_bar import MAX_LIVE_SILENCE_S, StatusBar
from shm_tui.widgets.tiles import Tiles
from shm_tui.widgets.view_pane import ViewPane

MIN_SIDEBAR_WIDTH = 100  # columns of a screen with a sidebar
MIN_DETAILS_WIDTH = 116  # columns of a screen with details beside the table; on a narrower one they fill it
MIN_CHART_WIDTH = 180  # columns of a screen with a chart beside the table
MIN_TILE_HEIGHT = 30  # lines of a screen with full tiles; below it the tiles are one line
MIN_WIDTH, MIN_HEIGHT = 40, 10  # cells and lines below which the screen says that it is too small
MIN_TWO_TILE_ROWS_HEIGHT = 34  # lines of a screen with two rows of tiles


class Dashboard(Vertical):
    """Draws a session. `has_data` becomes true when rows, counts and tiles have been drawn, or there are none."""

    def __init__(self) -> None:
        super().__init__()
        self.sidebar, self.table, self.details = Sidebar(), LiveTable(), DetailPanel()
        self.view, self.footer = ViewPane(), Footer()
        self.chart = ViewPane()  # beside the table
        self.chart.id = "chart"
        self.prompt = Prompt("/", FILTER_PLACEHOLDER)
        self.place_prompt = Prompt(":", PLACE_PLACEHOLDER)
        self.place = Place()  # for the parts that say what is shown
        self.tile_data = TileData()
        self.has_data = False
        self._message: str | None = None  # in place of rows
        self._was_silent = False  # at the last drawing, while the connection was open
        self.column_choices: dict[str, ColumnChoice] = {}  # by application, `*` for the list of all
        self.all_columns: list[Column] = []  # before the user's choice among them
        self._columns_signature: object = None  # of the columns that the table has

    def compose(self) -> ComposeResult:
        """The widgets, from top to bottom."""
        yield StatusBar()
        with Horizontal(id="body"):
            yield self.sidebar
            with Vertical(id="main"):
                with Vertical(id="list"):
                    yield Headline()
                    yield Tiles()
                    with Horizontal(id="rows"):
                        with Vertical(id="table"):
                            yield self.table
                            yield Static(id="empty", markup=False)
                        yield self.chart
                yield self.view
            yield self.details
        yield self.prompt
        yield self.place_prompt
        yield Static(id="too-small", markup=False)
        yield self.footer

    def on_resize(self, event: events.Resize) -> None:
        """Chooses the layout for the size."""
        width, height = event.size
        self.set_class(width < MIN_SIDEBAR_WIDTH, "narrow")
        self.set_class(width < MIN_DETAILS_WIDTH, "one-pane")
        self.set_class(width >= MIN_CHART_WIDTH, "wide")
        self.set_class(height < MIN_TILE_HEIGHT, "low")
        self.set_class(height >= MIN_TWO_TILE_ROWS_HEIGHT, "tall")
        self.set_class(width < MIN_WIDTH or height < MIN_HEIGHT, "too-small")
        needed = f"Needs {MIN_WIDTH} columns and {MIN_HEIGHT} lines, has {width} and {height}."
        self.query_one("#too-small", Static).update(needed)
        self.post_message(LayoutChanged())

    def draw_waiting(self, session: LiveSession) -> None:
        """Draws the state of the connection, until it is known which application to show."""
        self.query_one(StatusBar).show(session, "", has_sidebar=True, place=self.place)
        self._show_message(LOADING)

    def draw_changes(self, session: LiveSession, filter_text: str) -> None:
        """Applies the changes that the session has received, and draws them."""
        clock = session.clock()
        session.window.sync()
        flush = session.store.flush(clock)
        if (
            self.place.past is not None
        ):  # the rows are the present ones, next to figures of the past: none is highlighted
            flush.changed = {instance_id: set() for instance_id in flush.changed}
        self._update_columns(session)
        self.table.is_loading = not session.is_complete
        self.table.apply_flush(flush, clock)
        self.draw_panels(session, filter_text)
        if flush.order_changed or self.details.instance_id in flush.changed:
            self.draw_details(session)

    def draw_ages(self, session: LiveSession, filter_text: str) -> None:
        """Draws what changes with time alone."""
        store, clock = session.store, session.clock()
        if store.filter.is_time_dependent and not store.is_paused:
            store.rebuild_order(clock)
            self.table.update_order()
        self._dim_table(session)
        self.table.update_ages(clock)
        self.draw_details(session)
        if session.connection.phase is not Phase.LIVE or session.silence_s() >= MAX_LIVE_SILENCE_S or self._was_silent:
            self._was_silent = session.silence_s() >= MAX_LIVE_SILENCE_S
            self.draw_panels(session, filter_text)

    def draw_panels(self, session: LiveSession, filter_text: str) -> None:
        """Draws everything but the table and the details."""
        stats, kpis = session.overview.stats, session.kpis
        is_fleet = self.view.display and self.view.place is not None and self.view.place.view == "fleet"
        self.query_one(StatusBar).show(
            *(session, filter_text, self.size.width >= MIN_SIDEBAR_WIDTH),
            is_list=not self.view.display,
            is_fleet=is_fleet,
            place=self.place,
        )
        self._dim_table(session)
        self.sidebar.show(session.overview.applications, stats, None if is_fleet else session.slug)
        headline, tiles = self.query_one(Headline), self.query_one(Tiles)
        for widget in (self.sidebar, headline, tiles):  # figures of then
            widget.set_class(session.connection.is_lost, "-old")
        if session.slug is None:
            headline.show("All applications", *([f"{stats.active_instances:,} active"] if stats else []))
            tiles.show(overview_tiles(stats, session.descriptions, session.clock().now) if stats else [])
        else:
            facts = tile_facts(self.tile_data, bool(filter_text), is_lost=session.connection.is_lost)
            facts += headline_facts(kpis) if kpis else []
            headline.show(kpis.name if kpis else session.slug, *facts)
            tiles.show(shown_tiles(self.tile_data, kpis))
        self._draw_messages(session, filter_text)
        has_counts = stats is not None and (session.slug is None or kpis is not None or not session.store.rows)
        has_answer = session.connection.phase is not Phase.CONNECTING and session.descriptions.is_ready
        self.has_data = session.is_listed and has_counts and has_answer

    def show_context(self, name: str) -> None:
        """Names the server's context in the top line."""
        self.query_one(StatusBar).context = name

    def _dim_table(self, session: LiveSession) -> None:
        """Dims rows of another time than the rest of the screen: old ones, or present ones next to past figures."""
        is_old = session.connection.is_lost and session.is_listed
        self.table.set_dimmed(is_old or self.place.past is not None)

    def draw_row_number(self) -> None:
        """Draws the number of the row under the cursor, if the table shows a part of a larger fleet."""
        status_bar = self.query_one(StatusBar)
        if status_bar.row_index is not None:
            status_bar.refresh()

    def draw_details(self, session: LiveSession) -> None:
        """Draws the details, if they are open."""
        if self.details.display:
            self.details.show(session.store, session.clock(), session.descriptions)

    # Panes.

    @property
    def focused_pane(self) -> Pane:
        """The pane that the keys move: the view or the table, unless the details or the sidebar have the focus."""
        panes: tuple[DetailPanel | Sidebar | ViewPane, ...] = (self.chart, self.details, self.sidebar)
        return next((pane for pane in panes if pane.has_focus), self.main_pane)

    @property
    def main_pane(self) -> ViewPane | LiveTable:
        """The view, or the table where no view is open."""
        return self.view if self.view.display else self.table

    def focus_main(self) -> None:
        """Moves the focus to the view or the table."""
        self._show_keys()
        self.screen.set_focus(self.main_pane)

    def _show_keys(self) -> None:
        if self.view.display and self.view.place is not None:
            self.footer.show_keys(view_context(self.view.place.view))
        elif self.details.display:
            self.footer.show_keys("details")
        else:
            self.footer.show_keys("marked" if self.table.store.marked else "table")

    @property
    def has_chart_room(self) -> bool:
        """Whether a chart fits beside the table."""
        return self.size.width >= MIN_CHART_WIDTH

    def show_chart(self, session: ViewSession | None) -> None:
        """Shows a chart beside the table, or none."""
        if session is None and self.chart.has_focus:
            self.focus_main()
        self.chart.display = session is not None
        if session is not None:
            self.chart.show(session)

    def show_view(self, session: ViewSession) -> None:
        """Shows a view in place of the list."""
        self.show_details(False)
        self.query_one("#list").display, self.view.display = False, True
        self.view.show(session)
        self.focus_main()

    def show_list(self) -> None:
        """Shows the list of instances in place of a view."""
        self.query_one("#list").display, self.view.display = True, False
        self.focus_main()

    def focus_next_pane(self) -> None:
        """Moves the focus from the table to the chart, the details and the sidebar."""
        chart = [self.chart] if self.chart.display and not self.view.display else []
        panes = [pane for pane in (self.main_pane, *chart, self.details, self.sidebar) if pane.display]
        focused = next((index for index, pane in enumerate(panes) if pane.has_focus), -1)
        panes[(focused + 1) % len(panes)].focus()

    def current_row(self, session: LiveSession) -> Row | None:
        """The instance of the open details, else the one under the cursor."""
        return self.details.row if self.details.display else self._row_at_cursor(session)

    def open_details(self, session: LiveSession) -> None:
        """Opens the details of the instance under the cursor."""
        row = self._row_at_cursor(session)
        if row is not None:
            self.details.pin(row)
            self.show_details(True)
            self.details.focus()
            self.draw_details(session)

    def open_neighbour(self, session: LiveSession, offset: int) -> None:
        """While the details are open, opens the next or the previous instance of the table."""
        if not self.details.display:
            return
        index = session.store.index_of(self.details.instance_id)
        if index is not None:  # a pinned instance that left the table has no neighbours: the cursor's instance is next
            self.table.move_cursor_to(index + offset)
        row = self._row_at_cursor(session)
        if row is not None:
            self.details.pin(row)
            self.draw_details(session)

    def show_details(self, is_open: bool) -> None:
        """Opens or closes the details. The focus remains where the user put it."""
        has_focus = self.details.has_focus
        self.details.display = is_open
        self._show_keys()
        if not is_open and has_focus:
            self.screen.set_focus(self.main_pane)

    def _row_at_cursor(self, session: LiveSession) -> Row | None:
        return session.store.rows.get(self.table.cursor_id or "")

    def _draw_messages(self, session: LiveSession, filter_text: str) -> None:
        message = empty_message(session, filter_text)
        self._show_message(message)
        if not (self.prompt.is_open or self.place_prompt.is_open):  # a prompt shows why its text is invalid
            self._show_keys()
            store = session.store
            warning = store.filter.warning(store.key_counts) if store.rows else ""  # else no key is known yet
            self.footer.show_message(warning if message else incomplete_message(session))

    def _show_message(self, message: str) -> None:
        """Shows a message in place of rows; "" shows the rows."""
        if message == self._message:
            return
        self._message = message
        empty = self.query_one("#empty", Static)
        empty.display = bool(message)
        empty.update(message)
        self.table.set_class(bool(message), "-empty")

    def choose_columns(self, session: LiveSession, choice: ColumnChoice) -> None:
        """Draws the table with these columns from now on."""
        self.column_choices[session.slug or ALL] = choice
        self._update_columns(session)

    def column_choice(self, session: LiveSession) -> ColumnChoice:
        """The user's choice of columns for the session's list."""
        return self.column_choices.get(session.slug or ALL) or ColumnChoice()

    def _update_columns(self, session: LiveSession) -> None:
        """Rebuilds the columns when the keys, their order, the choice or the width of the screen changed."""
        store, descriptions = session.store, session.descriptions
        key_counts = {key: count for key, count in store.key_counts.items() if count > 0}
        descriptions.request(key_counts)
        beside = [pane for pane in (self.chart, self.details) if pane.display and not self.has_class("one-pane")]
        width = self.size.width - sum(pane.outer_size.width for pane in beside)
        self.all_columns = build_columns(
            key_counts if descriptions.is_ready else {},
            numeric_keys(store),
            descriptions,
            one_application=session.slug is not None,
            width=width,
            shown_before=[column.metric for column in self.all_columns if column.metric]
            if self.table.store is store
            else (),
        )
        columns = arrange(self.all_columns, self.column_choice(session), width)
        layout = [
            (column.id, column.label, column.align_right, column.pinning, column.min_width, column.max_width)
            for column in columns
        ]
        signature = (id(store), layout, width)
        if signature == self._columns_signature:
            return
        self._columns_signature = signature
        if not store.has_sort_order and store.rows and descriptions.is_ready:
            _set_default_sort(session, columns)
        self.table.show(store, columns, session.clock())


def _set_default_sort(session: LiveSession, columns: list[Column]) -> None:
    """Sorts by the first business number, the largest first: an order by age would change all the time.

    The order is chosen with the first rows. Another one while pages arrive would move rows under the user's hands.
    """
    store = session.store
    store.has_sort_order = True
    default = next((column for column in columns if column.metric and column.align_right), SEEN)
    if default.id != store.sort_column.id:
        store.sort_column, store.is_descending = default, default is not SEEN
        store.rebuild_order(session.clock())
