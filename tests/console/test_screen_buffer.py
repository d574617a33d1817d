"""A frame writes only the cells that changed, and the terminal then shows the same as after Textual's own output."""

import itertools

import pyte
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.geometry import Region
from textual.strip import Strip

from shm_tui.widgets.screen_buffer import ScreenBuffer

COLUMNS, LINES = 24, 3
ACCENT = "\u0301"  # is drawn on the character before it
SIZE = (COLUMNS, LINES)
CONSOLE = Console(color_system="truecolor", width=COLUMNS)
PLAIN, RED, ON_BLUE = Style(), Style(color="#ff0000"), Style(color="#00ff00", bgcolor="#0000ff", bold=True)
TEXTS = st.text(st.sampled_from("ab  ●…宽e" + ACCENT), max_size=12).filter(lambda text: not text.startswith(ACCENT))
# The last cell is blank: pyte wraps the line before a combining character at its end.
STRIPS = st.lists(st.builds(Segment, TEXTS, st.sampled_from([PLAIN, RED, ON_BLUE]), st.none()), max_size=4).map(
    lambda segments: Strip(segments).adjust_cell_length(COLUMNS - 1, PLAIN).adjust_cell_length(COLUMNS, PLAIN)
)
FRAMES = st.lists(STRIPS, min_size=LINES, max_size=LINES)
CUTS = st.tuples(st.integers(0, COLUMNS - 1), st.integers(1, COLUMNS)).map(lambda cut: (cut[0], max(*cut, cut[0] + 1)))


class Terminal:
    """A terminal emulator, and the bytes that it received."""

    def __init__(self) -> None:
        self._screen = pyte.Screen(*SIZE)
        self._stream = pyte.Stream(self._screen)
        self.received = ""

    def write(self, sequence: str) -> None:
        """Receives a frame."""
        self._screen.cursor.attrs = self._screen.default_char  # as between two frames of Textual
        self.received = sequence
        self._stream.feed(sequence)

    @property
    def cells(self) -> list[list[object]]:
        """Text, colours and weight of each cell."""
        return [[self._screen.buffer[y][x] for x in range(COLUMNS)] for y in range(LINES)]


def layout(frame: list[Strip]) -> LayoutUpdate:
    """A whole screen."""
    return LayoutUpdate([[strip] for strip in frame], Region(0, 0, *SIZE))


def ends(strip: Strip) -> set[int]:
    """The cells at which a widget may end: between two characters, none of which combines with the other."""
    cells = {cell_len(strip.text[:index]) for index in range(len(strip.text) + 1)}
    return cells - {cell_len(strip.text[:index]) for index, text in enumerate(strip.text) if text == ACCENT}


def part(frame: list[Strip], y: int, start: int, end: int) -> ChopsUpdate:
    """A part of a line, as the compositor sends it for a widget between these cells."""
    cuts = sorted({0, start, end, COLUMNS})
    chops = [{x: frame[line].crop(x, stop) for x, stop in itertools.pairwise(cuts)} for line in range(LINES)]
    return ChopsUpdate(chops, [(y, start, end)], [cuts[1:]] * LINES)


@settings(max_examples=60, derandomize=True)
@given(st.lists(st.tuples(FRAMES, st.none() | st.tuples(st.integers(0, LINES - 1), CUTS)), min_size=2, max_size=5))
def test_the_terminal_shows_what_textual_would_write(
    updates: list[tuple[list[Strip], tuple[int, tuple[int, int]] | None]],
) -> None:
    buffer, expected, terminal = ScreenBuffer(), Terminal(), Terminal()
    before: list[Strip] = []
    for frame, place in updates:
        if before and place is not None and set(place[1]) <= ends(before[place[0]]) & ends(frame[place[0]]):
            y, (start, end) = place
            update: LayoutUpdate | ChopsUpdate = part(frame, y, start, end)
            joined = [before[y].crop(0, start), frame[y].crop(start, end), before[y].crop(end, COLUMNS)]
            before[y] = Strip.join(joined)
        else:
            update, before = layout(frame), [*frame]
        terminal.write(buffer.apply(update, CONSOLE, SIZE))
        expected.write(update.render_segments(CONSOLE))
        assert terminal.cells == expected.cells


def test_only_changed_cells_are_written() -> None:
    buffer, terminal = ScreenBuffer(), Terminal()
    before = Strip([Segment("sent ", PLAIN), Segment("41", RED), Segment("   3m", PLAIN)]).adjust_cell_length(COLUMNS)
    after = Strip([Segment("sent ", PLAIN), Segment("42", RED), Segment("   4m", PLAIN)]).adjust_cell_length(COLUMNS)
    blank = Strip.blank(COLUMNS, PLAIN)
    terminal.write(buffer.apply(layout([before, blank, blank]), CONSOLE, SIZE))
    assert buffer.apply(layout([before, blank, blank]), CONSOLE, SIZE) == ""
    terminal.write(buffer.apply(layout([after, blank, blank]), CONSOLE, SIZE))
    assert terminal.received == "\x1b[1;7H\x1b[0;38;2;255;0;0m2\x1b[3C\x1b[0m4"


def test_everything_is_written_after_another_program_used_the_terminal() -> None:
    buffer, blank = ScreenBuffer(), [Strip.blank(COLUMNS, PLAIN)] * LINES
    first = buffer.apply(layout(blank), CONSOLE, SIZE)
    buffer.invalidate()
    assert buffer.apply(layout(blank), CONSOLE, SIZE) == first
