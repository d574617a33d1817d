"""The KPI tiles above the table."""

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text
from textual import events
from textual.widget import Widget

from shm_tui.model.tiles import Tile
from shm_tui.text.cells import cut_middle, fit
from shm_tui.text.charts import share_bar, sparkline
from shm_tui.text.glyphs import UNICODE
from shm_tui.widgets.messages import ChartRequested

MIN_TILE_WIDTH = 22  # cells, with the gap after the tile
MAX_TILE_STRETCH = 4  # cells that a tile is widened by where there is space
OVERFLOW_WIDTH = 5  # cells of the number of tiles that do not fit
TILE_HEIGHT = 3  # lines; a blank line separates two rows of tiles
BAR_WIDTH = 9
MIN_TREND_WIDTH, MAX_TREND_WIDTH = 4, 10  # cells of a tile's history
MIN_TREND_LINE_WIDTH = 120  # cells of a line of tiles with histories


class Tiles(Widget):
    """Tiles in as many rows as fit; below the height of a tile, all in one line."""

    COMPONENT_CLASSES = {"tiles--label", "tiles--value", "tiles--note", "tiles--bar", "tiles--track", "tiles--change"}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.tiles: list[Tile] = []
        self._spans: list[tuple[int, int, int, Tile]] = []  # line, first and last cell of each tile on the screen

    def show(self, tiles: list[Tile]) -> None:
        """Draws these tiles."""
        if tiles != self.tiles:
            self.tiles = tiles
            self.refresh()

    def on_click(self, event: events.Click) -> None:
        """Asks for the chart of the tile under the mouse."""
        for y, start, end, tile in self._spans:
            if (
                tile.key is not None
                and y <= event.y < y + min(TILE_HEIGHT, self.size.height)
                and start <= event.x < end
            ):
                self.post_message(ChartRequested(tile.key))

    def render(self) -> Text:
        """The tiles that fit, and the number of those that do not."""
        self._spans = []
        return self._render_line() if self.size.height < TILE_HEIGHT else self._render_rows()

    def _render_line(self) -> Text:
        text, remaining = Text(" ", no_wrap=True), len(self.tiles)
        for tile in self.tiles:
            part = Text.assemble((tile.label.upper(), self._style("label")), " ", (tile.value, self._style("value")))
            if tile.change:
                part.append(f" {tile.change}", self._style("change"))
            if tile.trend and self.size.width >= MIN_TREND_LINE_WIDTH:
                part.append(f" {sparkline(tile.trend, MIN_TREND_WIDTH, UNICODE)}", self._style("bar"))
            overflow = f"+{remaining}"
            if cell_len(text.plain) + cell_len(part.plain) + 3 + len(overflow) > self.size.width:
                text.append(overflow, self._style("label"))
                break
            start = cell_len(text.plain)
            self._spans.append((0, start, start + cell_len(part.plain), tile))
            text += part
            text.append("   ")
            remaining -= 1
        return text

    def _render_rows(self) -> Text:
        tiles_per_row = max(1, (self.size.width - OVERFLOW_WIDTH) // MIN_TILE_WIDTH)
        stretched_width = (self.size.width - OVERFLOW_WIDTH) // tiles_per_row
        tile_width = max(MIN_TILE_WIDTH, min(MIN_TILE_WIDTH + MAX_TILE_STRETCH, stretched_width))
        row_count = (self.size.height + 1) // (TILE_HEIGHT + 1)
        capacity = tiles_per_row * row_count
        visible = self.tiles[:capacity]
        lines: list[Text] = []
        for start in range(0, len(visible), tiles_per_row):
            row = visible[start : start + tiles_per_row]
            self._spans += [
                (len(lines), 1 + number * tile_width, 1 + (number + 1) * tile_width, tile)
                for number, tile in enumerate(row)
            ]
            is_last_row = start + tiles_per_row >= capacity
            lines += [self._render_part(row, part, tile_width) for part in ("label", "value", "note")]
            if is_last_row and len(self.tiles) > capacity:
                lines[-1].append(f"+{len(self.tiles) - capacity}", self._style("label"))
            lines.append(Text())
        return Text("\n", no_wrap=True).join(lines[:-1])

    def _render_part(self, row: list[Tile], part: str, width: int) -> Text:
        """One line of a row of tiles: their labels, values or notes."""
        line = Text(" ", no_wrap=True)
        for tile in row:
            if part == "note" and tile.bar is not None:
                filled, rest = share_bar(tile.bar, BAR_WIDTH, UNICODE)
                line.append(filled, self._style("bar"))
                line.append(rest, self._style("track"))
                line.append(_pad(f" {tile.note}", width - BAR_WIDTH), self._style("note"))
                continue
            if part == "value":
                line += self._render_value(tile, width)
                continue
            text = {"label": tile.label.upper(), "note": tile.note}[part]
            if part == "label":  # names differ at their ends; a list of values is in order of importance
                text = cut_middle(text, width - 1)
            line.append(_pad(text, width), self._style(part))
        return line

    def _render_value(self, tile: Tile, width: int) -> Text:
        """The value, then the change and the history where there is space."""
        text = Text(fit(tile.value, min(cell_len(tile.value), width - 1)), self._style("value"), no_wrap=True)
        if tile.change and cell_len(text.plain) + 1 + cell_len(tile.change) < width:
            text.append(f" {tile.change}", self._style("change"))
        trend_width = min(MAX_TREND_WIDTH, width - 2 - cell_len(text.plain))
        if tile.trend and trend_width >= MIN_TREND_WIDTH:
            text.append(f" {sparkline(tile.trend, trend_width, UNICODE)}", self._style("bar"))
        text.append(" " * (width - cell_len(text.plain)))
        return text

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(f"tiles--{name}")


def _pad(text: str, width: int) -> str:
    """`text` in exactly `width` cells, the last one a space."""
    return fit(text, width - 1) + " "
