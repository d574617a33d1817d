"""The console: one screen, one registry of actions, and one watch that keeps it true."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterable
from typing import ClassVar

from textual import events
from textual.app import App, ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.geometry import Size
from textual.screen import Screen
from textual.widgets import Input, Static

from shm_client import Client, ClientError
from shm_tui.actions import ACTIONS
from shm_tui.help_screen import Help
from shm_tui.model.columns import SEEN, Column, columns_for
from shm_tui.model.empty_message import why_empty, why_not_all
from shm_tui.model.filter import EVERYTHING, QueryError, RankWanted, parse
from shm_tui.model.live_session import Overview, Phase, Watch
from shm_tui.model.row_store import numeric_keys
from shm_tui.theme import SHM
from shm_tui.widgets.bars import NARROW, KeysBar, StatusBar
from shm_tui.widgets.detail_panel import Drawer
from shm_tui.widgets.live_table import LiveTable
from shm_tui.widgets.panels import Headline, Sidebar, Tiles, headline_of, tiles_of, tiles_of_all

FLUSH_S = 0.25  # what came is drawn four times a second, however much it is
TICK_S = 1.0  # ages and the connection's clock
RESTART_S = 1.0  # after a fault of our own in the watch
LOW = 30  # rows of a screen below which the tiles are one line
TALL = 34  # and from which they are two rows


class ConsoleApp(App[None]):
    """Shows one server. `settled` is set once the first data is drawn."""

    CSS_PATH = "app.tcss"
    TITLE = "SHM"
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(action.keys, action.name, action.help, show=False, priority=action.keys == "tab")
        for action in ACTIONS
        if action.name != "command_palette"
    ]

    def __init__(self, client: Client, slug: str | None = None) -> None:
        super().__init__(ansi_color=True if os.environ.get("NO_COLOR") else None)
        self.register_theme(SHM)
        self.theme = "ansi-dark" if self.no_color else SHM.name
        self.client = client
        self.overview = Overview()
        self.watch_ = Watch(client, slug, self._stir, self.overview)
        self.settled = asyncio.Event()  # rows, counts and tiles, or that there are none, are on the screen
        self._stirred = True
        self._shape: object = None  # what the columns were made from
        self._sort_chosen = False
        self._place_chosen = slug is not None
        self._watching: set[asyncio.Task[None]] = set()
        self._filter = ""
        self._filter_before = ""  # what stood when the prompt was opened
        self._submitted: str | None = None  # a filter that closes the prompt once the ranks in it are known
        self._ranks: dict[str, str] = {}  # of versions that filters compared with, as the server told them

    def compose(self) -> ComposeResult:
        """The panes, from top to bottom."""
        yield StatusBar()
        with Horizontal(id="body"):
            yield Sidebar()
            with Vertical(id="main"):
                yield Headline()
                yield Tiles()
                yield LiveTable()
                yield Static(id="empty", markup=False)
            yield Drawer()
        with Horizontal(id="ask"):
            yield Static("/", id="slash")
            yield Input(id="prompt", placeholder="word  -word  version:1.4  env:production  invoices_sent>10k  seen<1h")
        yield KeysBar()

    def on_mount(self) -> None:
        """Starts watching."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.exit)
        self.table.focus()
        self._lay_out(self.size)
        self._follow()
        self.set_interval(FLUSH_S, self._draw_news)
        self.set_interval(TICK_S, self._tick)

    @property
    def table(self) -> LiveTable:
        """The table."""
        return self.query_one(LiveTable)

    @property
    def asking(self) -> bool:
        """Whether the prompt is open."""
        return bool(self.query_one("#ask").display)

    # Keeping it true.

    def _follow(self) -> None:
        """Watches what is shown now, and ends what was watched before."""
        for task in self._watching:
            task.cancel()
        task = asyncio.create_task(self._keep_watching(self.watch_))
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)

    async def _keep_watching(self, watch: Watch) -> None:
        """A fault of ours in the watch must not end the console: it is said, and the watch begins anew."""
        while True:
            try:
                await watch.run()
            except Exception as error:
                self.query_one(KeysBar).say(f"a fault in the console ({error!r:.80}), starting over")
                await asyncio.sleep(RESTART_S)

    async def on_unmount(self) -> None:
        """Ends the watch, and with it the connection to the server."""
        tasks = list(self._watching)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _stir(self) -> None:
        self._stirred = True

    def _draw_news(self) -> None:
        """Draws what has come since the last time."""
        if not self._stirred or self._is_leaving:
            return
        self._stirred = False
        self._begin_somewhere()
        watch, moment = self.watch_, self.watch_.moment()
        flush = watch.store.flush(moment)
        self._columns()
        self.table.filling = not watch.complete
        self.table.flushed(flush, moment)
        self._panels()
        if self.table.cursor_id in flush.changed:
            self._details()

    def _begin_somewhere(self) -> None:
        """Nobody said where to begin: with the largest application, whose metrics can be shown together."""
        applications = self.overview.applications
        if not self._place_chosen and applications:
            self._place_chosen = True
            self._go_to(max(applications, key=lambda one: one.instances.total).slug)

    @property
    def _is_leaving(self) -> bool:
        """Whether the screen is being taken down already: timers go on a little longer."""
        return not self.query(StatusBar)

    def _tick(self) -> None:
        if self._is_leaving:
            return
        watch = self.watch_
        if watch.store.query.timed and not watch.store.frozen:  # what matches changes as time passes
            watch.store.arrange(watch.moment())
            self.table.arranged()
        self.table.fade(watch.link.phase in {Phase.AWAY, Phase.REFUSED} and watch.listed)
        self.table.tick(watch.moment())
        self._details()  # ages go on there too
        if watch.link.phase is not Phase.LIVE:
            self._panels()

    def _columns(self) -> None:
        """Columns are made anew only when keys, their order or the width of the screen changed."""
        watch = self.watch_
        store, descriptions = watch.store, watch.descriptions
        answered = {key: count for key, count in store.answered.items() if count > 0}
        descriptions.want(answered)
        columns = columns_for(
            answered if descriptions.ready else {},
            numeric_keys(store),
            descriptions,
            one_application=watch.slug is not None,
            width=self.size.width,
        )
        shape = (id(store), [(column.id, column.label, column.right) for column in columns], self.size.width)
        if shape == self._shape:
            return
        self._shape = shape
        if not self._sort_chosen:
            self._sort_by_what_matters(columns)
        self.table.show(store, columns, watch.moment())

    def _sort_by_what_matters(self, columns: list[Column]) -> None:
        """By the first number of the business, the largest first; the rows then stand stiller than by age."""
        first = next((column for column in columns if column.metric and column.right), SEEN)
        store = self.watch_.store
        if first.id != store.column.id:
            store.column, store.descending = first, first is not SEEN
            store.arrange(self.watch_.moment())

    def _panels(self) -> None:
        watch = self.watch_
        bar = self.query_one(StatusBar)
        bar.watch_, bar.filter_, bar.wide = watch, self._filter, self.size.width >= NARROW
        bar.refresh()
        stats, kpis = self.overview.stats, watch.kpis
        self.query_one(Sidebar).show(self.overview.applications, stats, watch.slug)
        headline, tiles = self.query_one(Headline), self.query_one(Tiles)
        if watch.slug is None:
            headline.show("All applications", *([f"{stats.active_instances:,} active"] if stats else []))
            tiles.show(tiles_of_all(stats, watch.descriptions) if stats else [])
        else:
            headline.show(kpis.name if kpis else watch.slug, *(headline_of(kpis) if kpis else []))
            tiles.show(tiles_of(kpis) if kpis else [])
        self._emptiness()
        known = stats is not None and (watch.slug is None or kpis is not None or not watch.store.rows)
        known = known and watch.link.phase is not Phase.CONNECTING and watch.descriptions.ready
        if watch.listed and known and (self._place_chosen or not self.overview.applications):
            self.settled.set()

    def _emptiness(self) -> None:
        said = why_empty(self.watch_, self._filter)
        empty = self.query_one("#empty", Static)
        empty.display = bool(said)
        empty.update(said)
        self.table.set_class(bool(said), "-empty")
        if not said and not self.asking:
            self.query_one(KeysBar).say(why_not_all(self.watch_))

    def _details(self) -> None:
        drawer, table = self.query_one(Drawer), self.table
        row = self.watch_.store.rows.get(table.cursor_id or "")
        if drawer.display and row is not None:
            drawer.show(row, self.watch_.moment(), self.watch_.descriptions)

    def _lay_out(self, size: Size) -> None:
        """What there is room for."""
        width, height = size
        self.set_class(width < NARROW, "narrow")
        self.set_class(height < LOW, "low")
        self.set_class(height >= TALL, "tall")

    def on_resize(self, event: events.Resize) -> None:
        """Another size of the terminal; the app itself learns of it only after this."""
        self._lay_out(event.size)
        self._stirred = True

    # What a person does.

    def action_move(self, lines: int) -> None:
        """Up or down: in the drawer its text, in the sidebar the application, else the table's cursor."""
        drawer = self.query_one(Drawer)
        if drawer.has_focus:
            drawer.scroll_relative(y=lines, animate=False)
        elif self.query_one(Sidebar).has_focus:
            self.action_application(lines)
        else:
            self.table.move(lines)

    def action_page(self, direction: int) -> None:
        """A screenful."""
        drawer = self.query_one(Drawer)
        if drawer.has_focus:
            drawer.scroll_relative(y=direction * drawer.size.height, animate=False)
        else:
            self.table.page(direction)

    def action_first(self) -> None:
        """To the first row."""
        self.table.first()

    def action_last(self) -> None:
        """To the last row."""
        self.table.last()

    def action_columns(self, by: int) -> None:
        """Other columns."""
        self.table.shift(by)

    def action_application(self, by: int) -> None:
        """The application before or after."""
        slugs = self.query_one(Sidebar).slugs()
        here = slugs.index(self.watch_.slug) if self.watch_.slug in slugs else 0
        self._go_to(slugs[(here + by) % len(slugs)])

    def on_sidebar_chosen(self, event: Sidebar.Chosen) -> None:
        """A click on an application."""
        self._go_to(event.slug)

    def _go_to(self, slug: str | None) -> None:
        self._place_chosen = True
        if slug == self.watch_.slug and self.watch_.listed:
            return
        self.watch_ = Watch(self.client, slug, self._stir, self.overview)
        self._sort_chosen = False
        self._set_filter("")
        if self.asking:
            self._close_prompt()
        self._show_drawer(False)
        self._follow()
        self._stirred = True

    def action_open(self) -> None:
        """The drawer on the instance under the cursor."""
        drawer = self.query_one(Drawer)
        if self.query_one(Sidebar).has_focus:
            self.table.focus()
            return
        if self.table.cursor_id is None or drawer.display:
            return
        self._show_drawer(True)
        drawer.scroll_home(animate=False)
        drawer.focus()
        self._details()

    def _show_drawer(self, shown: bool) -> None:
        self.query_one(Drawer).display = shown
        self.set_class(shown, "reading")
        self.query_one(KeysBar).at("details" if shown else "table")
        if not shown:
            self.table.focus()

    def on_live_table_opened(self) -> None:
        """A second click on a row."""
        self.action_open()

    def on_live_table_cursor_moved(self) -> None:
        """The drawer goes with the cursor."""
        self._details()

    def on_live_table_sort_asked(self, event: LiveTable.SortAsked) -> None:
        """A click on a head sorts by it; another one turns it round."""
        if event.column.id == self.watch_.store.column.id:
            self.action_reverse()
        else:
            self._sort_by(event.column)

    def action_sort(self, by: int) -> None:
        """The column beside the one that is sorted by."""
        columns = [column for column in self.table.columns if column.label]
        ids = [column.id for column in columns]
        if columns:
            here = ids.index(self.watch_.store.column.id) if self.watch_.store.column.id in ids else 0
            self._sort_by(columns[(here + by) % len(columns)])

    def _sort_by(self, column: Column) -> None:
        store = self.watch_.store
        self._sort_chosen = True
        store.column, store.descending = column, column.metric is not None and column.right
        store.arrange(self.watch_.moment())
        self.table.reveal(column)
        self.table.arranged()

    def action_reverse(self) -> None:
        """The other way round."""
        store = self.watch_.store
        self._sort_chosen = True
        store.descending = not store.descending
        store.arrange(self.watch_.moment())
        self.table.arranged()

    def action_freeze(self) -> None:
        """Holds what is shown; what comes is counted, and applied at the end."""
        store = self.watch_.store
        store.frozen = not store.frozen
        self._stirred = True
        self._draw_news()

    def action_look_again(self) -> None:
        """List anew."""
        self.watch_.ask_again()

    def action_filter(self) -> None:
        """Opens the prompt on the filter there is."""
        prompt = self.query_one("#prompt", Input)
        self.query_one("#ask").display = True
        self.query_one(KeysBar).at("prompt")
        self._filter_before = self._filter
        prompt.value = self._filter
        prompt.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filters as one types."""
        self._submitted = None
        if self.asking:
            self._set_filter(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Keeps the filter and goes back to the table; one that is not understood keeps the prompt open."""
        self._submitted = event.value
        if self._set_filter(event.value):
            self._close_prompt()

    def _set_filter(self, text: str) -> bool:
        """Filters the rows; while `text` is not understood, by what stood before the prompt was opened."""
        store, bar = self.watch_.store, self.query_one(KeysBar)
        said, understood = "", True
        try:
            store.query = parse(text, store.answered, self._ranks) if text.strip() else EVERYTHING
        except QueryError as error:
            if isinstance(error, RankWanted):
                self.run_worker(self._learn_rank(error.version), group="ranks", exclusive=True)
            said, understood, text = str(error), False, self._filter_before
            store.query = parse(text, store.answered, self._ranks) if text else EVERYTHING
        self._filter = text.strip()
        bar.say(said or store.query.note)
        store.arrange(self.watch_.moment())
        self.table.arranged()
        self._panels()
        return understood

    async def _learn_rank(self, version: str) -> None:
        """Asks the server for the rank of a version, then filters by what stands in the prompt."""
        try:
            self._ranks[version] = await self.client.version_rank(version)
        except ClientError as error:
            self.query_one(KeysBar).say(f"no rank of version {version}: {error}")
            return
        text = self.query_one("#prompt", Input).value
        if self.asking and self._set_filter(text) and self._submitted == text:
            self._close_prompt()

    def _close_prompt(self) -> None:
        self.query_one("#ask").display = False
        self.query_one(KeysBar).say("")
        self.query_one(KeysBar).at("table")
        self.table.focus()

    async def action_back(self) -> None:
        """Closes the prompt or the drawer, else clears the filter."""
        drawer = self.query_one(Drawer)
        if self.asking:
            self._set_filter("")
            self._close_prompt()
        elif drawer.display:
            self._show_drawer(False)
        elif self._filter:
            self._set_filter("")

    def action_next_pane(self) -> None:
        """Table, details, applications, in turn; from the prompt, back to the table."""
        if self.asking:
            self._close_prompt()
            return
        panes = [self.table, self.query_one(Drawer), self.query_one(Sidebar)]
        shown = [pane for pane in panes if pane.display]
        here = next((place for place, pane in enumerate(shown) if pane.has_focus), -1)
        shown[(here + 1) % len(shown)].focus()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Tab belongs to whatever stands above the panes."""
        return action != "next_pane" or len(self.screen_stack) == 1

    def action_help(self) -> None:
        """The keys."""
        self.push_screen(Help())

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The palette is the registry."""
        for action in ACTIONS:
            if action.name != "command_palette":
                yield SystemCommand(action.help[:1].upper() + action.help[1:], action.shown, _caller(self, action.name))


def _caller(app: ConsoleApp, name: str) -> Callable[[], Awaitable[None]]:
    async def call() -> None:
        await app.run_action(name)

    return call
