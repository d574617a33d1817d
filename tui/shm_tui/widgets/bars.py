"""The lines at the top and the bottom: the connection, where one is, and the keys that work here."""

from math import ceil
from time import monotonic

from rich.cells import cell_len
from rich.text import Text
from textual.widget import Widget

from shm_tui.actions import footer
from shm_tui.model.live_session import Link, Phase, Watch
from shm_tui.text.cells import cut
from shm_tui.text.formatting import plural, span

FILTER = 28  # cells of a filter at the top; the prompt shows all of it
NARROW = 100  # below it the sidebar is away, and the bar says which application one is in


def link_text(link: Link) -> tuple[str, str]:
    """What the connection is, and the style to say it in."""
    now = monotonic()
    match link.phase:
        case Phase.CONNECTING:
            return "◌ connecting", "dim"
        case Phase.LIVE:
            return "● live", "good"
        case Phase.AWAY | Phase.REFUSED:
            word = "away" if link.phase is Phase.AWAY else "refused"
            wait = ceil((link.next_try or now) - now)
            again = f"next try in {wait}s" if wait > 0 else "trying"
            return f"◌ {word} {span(now - link.since)}, {again}", "bad"


class StatusBar(Widget):
    """Server, application and counts to the left; filter, freeze and connection to the right."""

    COMPONENT_CLASSES = {"bar--brand", "bar--dim", "bar--good", "bar--bad", "bar--warn"}  # noqa: RUF012

    watch_: Watch | None = None
    filter_: str = ""
    wide = False

    def render(self) -> Text:
        """One line, cut in the middle where it does not fit."""
        if self.watch_ is None:
            return Text()
        style = {name: self.get_component_rich_style(f"bar--{name}") for name in _NAMES}
        left = Text.assemble((" SHM ", style["brand"]), " ")
        left.append(self._where(), "")
        right = Text()
        store = self.watch_.store
        if self.filter_:
            right.append(f"/{cut(self.filter_, FILTER)}", style["warn"])
            right.append(f"  {len(store.ids):,} of {len(store.rows):,}  ", style["dim"])
        if store.frozen:
            right.append(f"paused, +{store.held_back:,} held  ", style["warn"])
        said, how = link_text(self.watch_.link)
        right.append(said, style[how])
        right.append(" ")
        room = self.size.width - cell_len(right.plain)
        left.truncate(max(6, room - 1), overflow="ellipsis", pad=False)
        left.append(" " * max(1, room - cell_len(left.plain)))
        return left + right

    def _where(self) -> str:
        watch = self.watch_
        if watch is None:
            return ""
        host = watch.client.server.partition("://")[2]
        stats = watch.overview.stats
        if self.wide:
            if stats is None:
                return host
            new = f"  +{stats.new_this_week:,} this week" if stats.new_this_week else ""
            return f"{host}   {plural(stats.total_instances, 'instance')}  {stats.active_instances:,} active{new}"
        if watch.kpis is not None:
            return f"{watch.kpis.name}  {watch.kpis.instances.active:,} active of {watch.kpis.instances.total:,}"
        return f"{watch.slug or 'All'}" + (
            f"  {stats.active_instances:,} active of {stats.total_instances:,}" if stats and not watch.slug else ""
        )


_NAMES = ("brand", "dim", "good", "bad", "warn")


class KeysBar(Widget):
    """The keys that work here; and when something has to be said, that instead."""

    COMPONENT_CLASSES = {"keys--key", "keys--said"}  # noqa: RUF012

    said = ""
    place = "table"

    def at(self, place: str) -> None:
        """The keys of another place."""
        if place != self.place:
            self.place = place
            self.refresh()

    def say(self, sentence: str) -> None:
        """Shows a sentence, or with "" the keys again."""
        if sentence != self.said:
            self.said = sentence
            self.refresh()

    def render(self) -> Text:
        """As many keys as fit."""
        if self.said:
            return Text(f" {self.said}", self.get_component_rich_style("keys--said"), no_wrap=True, overflow="ellipsis")
        key = self.get_component_rich_style("keys--key")
        line = Text(" ", no_wrap=True)
        for shown, hint in footer(self.place):
            part = Text.assemble((shown, key), f" {hint}   ")
            if cell_len(line.plain) + cell_len(part.plain.rstrip()) > self.size.width:
                break
            line += part
        return line
