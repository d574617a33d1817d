"""The characters that charts are drawn with, and their ASCII forms for terminals that lack them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Glyphs:
    """`levels` are bars from the lowest to the highest. `has_braille`: lines are drawn with dots, eight in a cell."""

    levels: str
    full: str
    half: str
    rest: str
    axis: str
    cursor: str
    up: str
    down: str
    has_braille: bool


UNICODE = Glyphs("▁▂▃▄▅▆▇█", "━", "╸", "─", "│", "│", "▲", "▼", has_braille=True)
ASCII = Glyphs("_.-=+*%#", "=", "-", ".", "|", "|", "^", "v", has_braille=False)

CONSOLES_WITHOUT_BRAILLE = ("linux", "cons25", "vt100", "vt220")  # values of TERM


def choose_glyphs(encoding: str, term: str = "") -> Glyphs:
    """ASCII where the encoding or the terminal has no braille and no blocks."""
    if term in CONSOLES_WITHOUT_BRAILLE:
        return ASCII
    try:
        "⣿█━".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return UNICODE
