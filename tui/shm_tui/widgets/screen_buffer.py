"""What the terminal shows, cell by cell, so that a frame writes only the cells that changed.

Textual writes the whole line of a widget for one changed cell, and selects and resets the style of each part.
"""

from collections.abc import Iterator

from rich.cells import cell_len
from rich.color import ColorSystem
from rich.console import Console
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate
from textual.strip import Strip

MAX_GAP = 4  # unchanged cells that take no more bytes than a movement of the cursor over them
BLANK = "\0"  # a cell with unknown content, in no frame


class Frame(CompositorUpdate):
    """The bytes of a frame, as an update of Textual's compositor."""

    def __init__(self, sequence: str) -> None:
        self._sequence = sequence

    def render_segments(self, console: Console) -> str:
        """The texts with their control sequences."""
        return self._sequence

    def __rich__(self) -> str:
        """The same, as Textual declares every update to be printable by Rich."""
        return self._sequence


class ScreenBuffer:
    """The cells of a terminal. The second cell of a wide character is the empty string.

    Terminals disagree on the width of some characters. So a line is written as a whole if it has a character that is
    not one cell wide.
    """

    def __init__(self) -> None:
        self._size = (0, 0)
        self._texts: list[list[str]] = []
        self._codes: list[list[str]] = []  # of each cell: the parameters of the sequence that selects its style
        self._uneven: set[int] = set()  # lines with a character that is not one cell wide

    def invalidate(self) -> None:
        """Forgets the content: the terminal has another size, or another program has written to it."""
        self._size = (0, 0)

    def apply(self, update: LayoutUpdate | ChopsUpdate, console: Console, size: tuple[int, int]) -> str:
        """Stores an update of a screen of `size` columns and lines. Returns the output that draws it."""
        columns, lines = size
        if size != self._size:
            self._size = size
            self._texts = [[BLANK] * columns for _ in range(lines)]
            self._codes = [[""] * columns for _ in range(lines)]
            self._uneven.clear()
        color_system = console._color_system or ColorSystem.TRUECOLOR
        changed: dict[int, set[int]] = {}
        for y, x, strip in _parts(update):
            if y < lines and (cells := self._put(y, x, strip, color_system)):
                changed.setdefault(y, set()).update(cells)
        return "".join(self._sequences(changed))

    def _put(self, y: int, x: int, strip: Strip, color_system: ColorSystem) -> set[int]:
        """Stores a part of a line. Returns the cells that changed."""
        texts, codes = self._texts[y], self._codes[y]
        changed: set[int] = set()
        for segment in strip:
            cells = _split_cells(segment.text)[: len(texts) - x]
            code = "" if segment.style is None else Strip.render_ansi(segment.style, color_system)
            end = x + len(cells)
            if texts[x:end] != cells or codes[x:end] != [code] * len(cells):
                changed.update(at for at in range(x, end) if texts[at] != cells[at - x] or codes[at] != code)
                if y in self._uneven:
                    changed.update(_blank_halves(texts, x, end))
                if not segment.text.isascii() and any(len(text) != 1 for text in cells):
                    self._uneven.add(y)
                texts[x:end] = cells
                codes[x:end] = [code] * len(cells)
            x = end
        return changed

    def _sequences(self, changed: dict[int, set[int]]) -> Iterator[str]:
        """Runs of changed cells, from top to bottom. A style is selected only where it differs from the last one."""
        selected = ""
        for y, cells in sorted(changed.items()):
            texts, codes = self._texts[y], self._codes[y]
            cursor = None
            for start, end in [(0, len(texts))] if y in self._uneven else _runs(sorted(cells), codes):
                if cursor is None:
                    yield f"\x1b[{y + 1};{start + 1}H"
                elif start > cursor:  # a movement by 0 is one by 1
                    yield f"\x1b[{start - cursor}C"
                cursor = end
                for text, code in zip(texts[start:end], codes[start:end], strict=True):
                    if code != selected and text:
                        selected = code
                        yield f"\x1b[0;{code}m" if code else "\x1b[0m"
                    yield " " if text == BLANK else text
            if all(len(text) == 1 for text in texts):
                self._uneven.discard(y)
        if selected:
            yield "\x1b[0m"


def _parts(update: LayoutUpdate | ChopsUpdate) -> Iterator[tuple[int, int, Strip]]:
    """The parts of lines that an update has: the line, the first cell, and the content."""
    if isinstance(update, LayoutUpdate):
        for y, strips in enumerate(update.strips, update.region.y):
            x = update.region.x
            for strip in strips:
                yield y, x, strip
                x += strip.cell_length
        return
    for y, start, end in update.spans:
        for chop_end, (x, chop) in zip(update.chop_ends[y], update.chops[y].items(), strict=False):
            if chop is not None and x < end and chop_end > start:
                yield y, x, chop


def _split_cells(text: str) -> list[str]:
    """The text of each cell. A character without a width belongs to the cell before it."""
    if text.isascii():
        return list(text)
    cells: list[str] = []
    leading = ""  # belongs to the cell before, and is written with the first one
    for character in text:
        width = cell_len(character)
        if width:
            cells += [leading + character, *[""] * (width - 1)]
            leading = ""
        elif cells:
            last = next(at for at in reversed(range(len(cells))) if cells[at])
            cells[last] += character
        else:
            leading += character
    width = cell_len(text)
    return cells if len(cells) == width else [text, *[""] * (width - 1)]  # several characters are drawn as one


def _blank_halves(texts: list[str], start: int, stop: int) -> Iterator[int]:
    """Blanks the other half of a wide character that lies partly between `start` and `stop`. Yields the cells."""
    first, end = start, stop
    while first > 0 and not texts[first]:
        first -= 1
    while end < len(texts) and not texts[end]:
        end += 1
    for at in (*range(first, start), *range(stop, end)):
        texts[at] = " "
        yield at


def _runs(changed: list[int], codes: list[str]) -> list[tuple[int, int]]:
    """The first cell and the end of each run. A short gap without another style is written too."""
    runs: list[tuple[int, int]] = []
    for cell in changed:
        if runs and cell - runs[-1][1] <= MAX_GAP and len(set(codes[runs[-1][1] - 1 : cell + 1])) == 1:
            runs[-1] = (runs[-1][0], cell + 1)
        else:
            runs.append((cell, cell + 1))
    return runs
