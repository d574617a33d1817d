"""The top line: the server or the application with its counts, and the state of the connection."""

from math import ceil
from time import monotonic

from rich.cells import cell_len
from rich.text import Text
from textual.widget import Widget

from shm_tui.access import is_unencrypted
from shm_tui.model.disk import disk_warning
from shm_tui.model.live_session import ConnectionStatus, LiveSession, Phase
from shm_tui.model.place import Place
from shm_tui.text.cells import cut
from shm_tui.text.formatting import duration, plural

MAX_FILTER_WIDTH = 28  # cells of the filter in the top line; the prompt shows the whole filter
MIN_LEFT_WIDTH = 6  # cells of the left part that always remain
UNKNOWN_COUNT = "?"  # a number of rows that the server has not counted, or could not count
MAX_LIVE_SILENCE_S = 4.0  # pings are answered every two seconds
STYLES = ("brand", "dim", "good", "bad", "warn", "past")


def connection_text(connection: ConnectionStatus, silence_s: float = 0.0) -> tuple[str, str]:
    """The connection's state in words, and the name of its style. `silence_s`: since the server's last answer."""
    now = monotonic()
    match connection.phase:
        case Phase.CONNECTING:
            return "◌ connecting", "dim"
        case Phase.LIVE:
            if silence_s >= MAX_LIVE_SILENCE_S:
                return f"◌ no answer for {duration(silence_s)}", "warn"
            return "● live", "good"
        case _:
            wait_s = ceil((connection.next_try or now) - now)
            retry = f"retry in {wait_s}s" if wait_s > 0 else "retrying"
            return f"◌ {connection.phase.value} {duration(now - connection.since)}, {retry}", "bad"


def past_text(place: Place) -> str:
    """The note that the screen shows a day in the past, and which part of it does not. "" for the present."""
    if place.at is None:
        return ""
    if place.past is None:
        return f" {place.view.upper()} OF NOW, NOT OF {place.at} "
    return f" AS OF {place.at}{', ROWS OF NOW' if place.view == 'instances' else ''} "


def match_count(session: LiveSession) -> str:
    """How many instances match the filter, of how many: of the fleet, or of the newest ones that it searches."""
    store, matches = session.store, session.server_matches
    total = session.total()
    if store.is_windowed and total is not None:
        if not session.window.is_shown or session.window.is_counting:
            return "counting…"
        return f"{_number(store.known_count)} of {total:,}"
    if not session.is_partial() or total is None:
        return f"{len(store.visible_ids):,} of {len(store.rows):,}"
    if store.filter.server_filter.is_whole and (matches.count is not None or matches.is_cut):
        return f"{_number(matches.count)} of {total:,}"
    if matches.has_all_matches:
        return f"{len(store.visible_ids):,} of {total:,}"
    return f"{len(store.visible_ids):,} of the newest {min(len(store.rows), store.limit):,}"


def _number(count: int | None) -> str:
    return UNKNOWN_COUNT if count is None else f"{count:,}"


class StatusBar(Widget):
    """Server, application and counts on the left; filter, pause and connection on the right."""

    COMPONENT_CLASSES = {f"bar--{name}" for name in STYLES}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self._session: LiveSession | None = None
        self._filter_text = ""
        self._has_sidebar = False
        self._is_list, self._is_fleet = True, False
        self._place = Place()
        self.context = ""  # the name of the server's context

    def show(
        self,
        session: LiveSession,
        filter_text: str,
        has_sidebar: bool,
        *,
        is_list: bool = True,
        is_fleet: bool = False,
        place: Place,
    ) -> None:
        """Draws the line. Without a sidebar it names the application, in the fleet all of them.

        `is_list`: the filter is of the rows.
        """
        self._place = place
        self._session, self._filter_text, self._has_sidebar = session, filter_text, has_sidebar
        self._is_list, self._is_fleet = is_list, is_fleet
        self.refresh()

    @property
    def row_index(self) -> int | None:
        """The index of the row under the cursor among those of a fleet that is larger than the table."""
        store = self._session.store if self._session is not None else None
        return store.index_of(store.anchor_id) if store is not None and store.is_windowed else None

    def render(self) -> Text:
        """One line. The left part is cut where both parts do not fit."""
        if self._session is None:
            return Text()
        style = {name: self.get_component_rich_style(f"bar--{name}") for name in STYLES}
        left = Text.assemble((" SHM ", style["brand"]), " ")
        if self.context:
            left.append(f"{self.context} › ", style["dim"])
        left.append(self._summary(self._session), style["dim"] if self._session.connection.is_lost else "")
        right = Text()
        store = self._session.store
        if self._filter_text:
            right.append(f"/{cut(self._filter_text, MAX_FILTER_WIDTH)}", style["warn"])
            right.append(f"  {match_count(self._session)}  " if self._is_list else "  ", style["dim"])
        if self._is_list and (index := self.row_index) is not None:
            right.append(f"row {index + 1:,}/{_number(store.known_count)}  ", style["dim"])
        if store.marked and self._is_list:
            right.append(f"{len(store.marked):,} marked  ", style["warn"])
        if store.is_paused:
            right.append(f"paused, +{store.pending_count:,} held  ", style["warn"])
        if is_unencrypted(self._session.client.server):
            right.append("not encrypted  ", style["warn"])
        stats = self._session.overview.stats
        if stats and (warning := disk_warning(stats.disk, self._session.clock().now)):
            right.append(f"{warning}  ", style["warn"])
        if past := past_text(self._place):
            right.append(past, style["past"])
            right.append("  ")
        text, style_name = connection_text(self._session.connection, self._session.silence_s())
        right.append(text, style[style_name])
        right.append(" ")
        left_width = self.size.width - cell_len(right.plain)
        left.truncate(max(MIN_LEFT_WIDTH, left_width - 1), overflow="ellipsis", pad=False)
        left.append(" " * max(1, left_width - cell_len(left.plain)))
        return left + right

    def _summary(self, session: LiveSession) -> str:
        host = session.client.server.partition("://")[2]
        stats, kpis = session.overview.stats, session.kpis
        if self._has_sidebar:
            if stats is None:
                return host
            new = f"  +{stats.new_this_week:,} this week" if stats.new_this_week else ""
            return f"{host}   {plural(stats.total_instances, 'instance')}  {stats.active_instances:,} active{new}"
        if kpis is not None and not self._is_fleet:
            return f"{kpis.name}  {kpis.instances.active:,} active of {kpis.instances.total:,}"
        if stats is None or (session.slug is not None and not self._is_fleet):
            return session.slug or "All"
        return f"All  {stats.active_instances:,} active of {stats.total_instances:,}"
