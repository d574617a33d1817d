"""The panels beside and above the table: applications, the headline, and a tile for whatever metric arrives."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text
from textual import events
from textual.message import Message
from textual.widget import Widget

from shm_client import Application, Category, Flag, Kpi, Kpis, MetricKey, Stats
from shm_tui.model.columns import Described
from shm_tui.text.cells import fit
from shm_tui.text.formatting import NOTHING, compact, measured, plural, share

T = TypeVar("T", Kpi, Flag, Category)

TILE = 22  # cells of a tile, at least, with the gap behind it
MORE = 5  # cells that say how many tiles there was no room for
MARKS = {"sum": "", "avg": "⌀ "}  # before a value; another aggregate is named
BAR = 9  # cells of a share's bar


@dataclass(frozen=True, slots=True)
class Tile:
    """A label, a value, and a line below it."""

    label: str
    value: str
    below: str = ""
    bar: float | None = None  # a share from 0 to 1, drawn before `below`


def bar(part: float, cells: int = BAR) -> tuple[str, str]:
    """A share as a line, to half a cell, and what is left of the line."""
    full, half = divmod(round(max(0.0, min(1.0, part)) * cells * 2), 2)
    filled = "━" * full + "╸" * half
    return filled, "━" * (cells - len(filled))


def number_tile(kpi: Kpi) -> Tile:
    """A number's aggregate; below it the middle and the upper end of the installs."""
    mark = MARKS.get(kpi.aggregate, f"{kpi.aggregate} ")
    spread = f"p50 {compact(kpi.p50)}  p90 {compact(kpi.p90)}"
    return Tile(kpi.label or kpi.key, mark + measured(kpi.value, kpi.unit, kpi.format), spread)


def flag_tile(flag: Flag) -> Tile:
    """How many say yes, of how many that answered."""
    part = flag.true / flag.instances if flag.instances else 0.0
    return Tile(flag.label or flag.key, share(flag.true, flag.instances), f"of {flag.instances:,}", part)


def category_tile(category: Category) -> Tile:
    """The most frequent value, and the next ones below it."""
    if not category.values:
        return Tile(category.label or category.key, NOTHING)
    first, *others = category.values
    below = "  ".join(f"{each.value} {share(each.instances, category.instances)}" for each in others[:2])
    return Tile(
        category.label or category.key,
        f"{first.value} {share(first.instances, category.instances)}",
        below or f"all of {first.instances:,}",
    )


def tiles_of(kpis: Kpis) -> list[Tile]:
    """Business before system; of each, numbers before shares before categories, and what most installs say first."""
    return [
        tile
        for kind in ("business", "system")
        for tile in (
            *(number_tile(kpi) for kpi in _of(kind, kpis.kpis)),
            *(flag_tile(flag) for flag in _of(kind, kpis.flags)),
            *(category_tile(category) for category in _of(kind, kpis.categories)),
        )
    ]


def _of(kind: str, entries: Iterable[T]) -> list[T]:
    """Those of a kind. Counts that differ by less than a power of two stand by key, so that tiles stay in place."""
    return sorted(
        (entry for entry in entries if entry.kind == kind),
        key=lambda entry: (
            -entry.instances.bit_length(),
            getattr(entry, "aggregate", None) == "avg",
            entry.key,
        ),
    )


def tiles_of_all(stats: Stats, descriptions: Described) -> list[Tile]:
    """What is known over all applications."""
    apart = f"{stats.excluded_instances:,} dev and ci apart" if stats.excluded_instances else "all counted"
    return [
        Tile("active", f"{stats.active_instances:,}", f"of {stats.total_instances:,}"),
        Tile("counted", f"{stats.counted_instances:,}", apart),
        Tile("today", f"{stats.daily_active:,}", "seen in a day"),
        Tile("this week", f"{stats.weekly_active:,}", "seen in 7 days"),
        Tile("new this week", f"+{stats.new_this_week:,}", "first seen"),
        Tile("pending", f"{stats.pending_instances:,}", f"{stats.revoked_instances:,} revoked"),
        *(
            Tile(one.label, measured(stats.global_metrics[one.key], one.unit, one.format), _over_all(one))
            for one in sorted((descriptions[key] for key in stats.global_metrics), key=_business_first)
            if not one.hidden
        ),
    ]


def _over_all(described: MetricKey) -> str:
    return {"sum": "in total", "avg": "on average"}.get(described.aggregate or "", "over all")


def _business_first(described: MetricKey) -> tuple[bool, bool, str]:
    return described.kind == "system", described.aggregate == "avg", described.key


class Tiles(Widget):
    """Tiles in rows, as many as there is room for; one line when there is hardly any."""

    COMPONENT_CLASSES = {"tiles--label", "tiles--value", "tiles--below", "tiles--bar", "tiles--track"}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self._tiles: list[Tile] = []

    def show(self, tiles: list[Tile]) -> None:
        """Other tiles, or other values in them."""
        if tiles != self._tiles:
            self._tiles = tiles
            self.refresh()

    def render(self) -> Text:
        """Every tile that fits, and how many did not."""
        return self._line() if self.size.height < 3 else self._rows()

    def _line(self) -> Text:
        text, left = Text(" ", no_wrap=True), len(self._tiles)
        for tile in self._tiles:
            part = Text.assemble((tile.label.upper(), self._style("label")), " ", (tile.value, self._style("value")))
            more = f"+{left}"
            if cell_len(text.plain) + cell_len(part.plain) + 3 + len(more) > self.size.width:
                text.append(more, self._style("label"))
                break
            text += part
            text.append("   ")
            left -= 1
        return text

    def _rows(self) -> Text:
        across = max(1, (self.size.width - MORE) // TILE)
        tile = max(TILE, min(TILE + 4, (self.size.width - MORE) // across))
        down = (self.size.height + 1) // 4
        fit = across * down
        shown = self._tiles[:fit]
        lines: list[Text] = []
        for start in range(0, len(shown), across):
            row = shown[start : start + across]
            last = start + across >= fit and len(self._tiles) > fit
            lines += [self._part(row, part, tile) for part in ("label", "value", "below")]
            if last:
                lines[-1].append(f"+{len(self._tiles) - fit}", self._style("label"))
            lines.append(Text())
        return Text("\n", no_wrap=True).join(lines[:-1])

    def _part(self, row: list[Tile], part: str, width: int) -> Text:
        line = Text(" ", no_wrap=True)
        for tile in row:
            if part == "below" and tile.bar is not None:
                filled, rest = bar(tile.bar)
                line.append(filled, self._style("bar"))
                line.append(rest, self._style("track"))
                line.append(_cell(f" {tile.below}", width - BAR), self._style("below"))
                continue
            text = {"label": tile.label.upper(), "value": tile.value, "below": tile.below}[part]
            line.append(_cell(text, width), self._style(part))
        return line

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(f"tiles--{name}")


class Headline(Widget):
    """Whose table this is, in words."""

    COMPONENT_CLASSES = {"headline--name", "headline--more"}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self._said: tuple[str, tuple[str, ...]] = ("", ())

    def show(self, name: str, *more: str) -> None:
        """A name and what there is to say of it, the most important first."""
        if (name, more) != self._said:
            self._said = (name, more)
            self.refresh()

    def render(self) -> Text:
        """One line; what there is no room for is left out as a whole."""
        name, more = self._said
        line = Text(no_wrap=True, overflow="ellipsis").append(
            f" {name}", self.get_component_rich_style("headline--name")
        )
        for number, part in enumerate(more):
            part = f"  ·  {part}" if number else f"   {part}"
            if cell_len(line.plain) + cell_len(part) > self.size.width:
                break
            line.append(part, self.get_component_rich_style("headline--more"))
        return line


def headline_of(kpis: Kpis) -> list[str]:
    """The counts of an application in words, the most important first."""
    counts = kpis.instances
    said = [f"{counts.active:,} active of {plural(counts.total, 'instance')}"]
    if counts.excluded:
        said.append(f"{counts.counted:,} counted, {counts.excluded:,} dev and ci apart")
    said += [f"{count:,} {word}" for count, word in ((counts.pending, "pending"), (counts.revoked, "revoked")) if count]
    return said


class Sidebar(Widget, can_focus=True):
    """Applications with their counts; the one that is shown is marked."""

    COMPONENT_CLASSES = {"side--title", "side--here", "side--name", "side--count"}  # noqa: RUF012

    class Chosen(Message):
        """Another application is wanted; None for all."""

        def __init__(self, slug: str | None) -> None:
            super().__init__()
            self.slug = slug

    def __init__(self) -> None:
        super().__init__()
        self._applications: list[Application] = []
        self._total: int | None = None
        self._here: str | None = None

    def show(self, applications: list[Application] | None, stats: Stats | None, here: str | None) -> None:
        """What there is, and which is shown."""
        said = (applications or [], stats.total_instances if stats else None, here)
        if said != (self._applications, self._total, self._here):
            self._applications, self._total, self._here = said
            self.refresh()

    def slugs(self) -> list[str | None]:
        """All, then each application, in the order of the list."""
        return [None, *(application.slug for application in self._ordered())]

    def on_click(self, event: events.Click) -> None:
        """A click shows an application."""
        place = event.y - 1 + self._top()
        if 0 <= place < len(self.slugs()):
            self.post_message(self.Chosen(self.slugs()[place]))

    def render(self) -> Text:
        """A title, and a line for each."""
        lines = [Text(" APPLICATIONS", self._style("title"))]
        rows: list[tuple[str, int | None, str | None]] = [("All", self._total, None)]
        rows += [(one.name, one.instances.total, one.slug) for one in self._ordered()]
        top = self._top()
        for name, count, slug in rows[top : top + max(1, self.size.height - 1)]:
            here = slug == self._here
            number = NOTHING if count is None else f"{count:,}"
            width = self.size.width - 3 - len(number)
            lines.append(
                Text.assemble(
                    ("▌" if here else " ", self._style("here")),
                    (_cell(name, max(1, width)), self._style("here" if here else "name")),
                    (f" {number} ", self._style("count")),
                    no_wrap=True,
                )
            )
        return Text("\n").join(lines)

    def _ordered(self) -> list[Application]:
        return sorted(self._applications, key=lambda one: (-one.instances.total, one.name))

    def _top(self) -> int:
        slugs = self.slugs()
        place = slugs.index(self._here) if self._here in slugs else 0
        return max(0, place - max(1, self.size.height - 1) + 1)

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(f"side--{name}")


def _cell(text: str, width: int) -> str:
    """`text` in exactly `width` cells, the last one a space."""
    return fit(text, width - 1) + " "
