"""The line above the tiles: the application's name and its counts."""

from rich.cells import cell_len
from rich.text import Text
from textual.widget import Widget

from shm_client import Kpis
from shm_tui.model.tile_session import TileData
from shm_tui.text.formatting import plural


class Headline(Widget):
    """A name and facts about it. A fact that does not fit is omitted as a whole."""

    COMPONENT_CLASSES = {"headline--name", "headline--fact"}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self._name = ""
        self._facts: tuple[str, ...] = ()

    def show(self, name: str, *facts: str) -> None:
        """Draws a name and its facts, the most important first."""
        if (name, facts) != (self._name, self._facts):
            self._name, self._facts = name, facts
            self.refresh()

    def render(self) -> Text:
        """One line."""
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append(f" {self._name}", self.get_component_rich_style("headline--name"))
        for index, fact in enumerate(self._facts):
            part = f"  ·  {fact}" if index else f"   {fact}"
            if cell_len(line.plain) + cell_len(part) > self.size.width:
                break
            line.append(part, self.get_component_rich_style("headline--fact"))
        return line


def tile_facts(data: TileData, has_filter: bool, *, is_lost: bool = False) -> list[str]:
    """What the tiles are of, if that is not all that is live now. `has_filter`: the list has one.

    `is_lost`: the connection is lost, and the bottom line says why.
    """
    if data.error and not is_lost and data.filtered is None and data.past is None and data.series is None:
        return [f"tiles: {data.error}"]
    if data.request.at is not None:
        if data.past is None:
            return ["tiles: loading"]
        instances = f"{plural(data.past.reporting, 'instance')} with a snapshot"
        return [f"as of {data.request.at}, 00:00 UTC: {instances}", *(["tiles: of all"] if has_filter else [])]
    if not has_filter:
        return []
    if not data.request.is_filtered:
        return ["tiles: of all"]
    if data.filtered is None:
        return ["tiles: loading"]
    counts = data.filtered.instances
    return [f"tiles: of the {counts.total + counts.unproven:,} that match"]


def headline_facts(kpis: Kpis) -> list[str]:
    """The counts of an application in words, the most important first."""
    counts = kpis.instances
    facts = [f"{counts.active:,} active of {plural(counts.total, 'instance')}"]
    if kpis.keys.refused_at is not None:
        facts.append("some keys are not aggregated (limit reached)")
    if counts.excluded:
        facts.append(f"{counts.counted:,} counted, {counts.excluded:,} excluded (dev, ci, ephemeral)")
    others = (counts.unreported, "active without a snapshot"), (counts.pending, "pending"), (counts.revoked, "revoked")
    facts += [f"{count:,} {word}" for count, word in others if count]
    return facts
