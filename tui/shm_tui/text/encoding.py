"""Text for an output that may not have every character, such as that of an ASCII or latin-1 locale."""

import unicodedata
from collections.abc import Callable

from shm_tui.text.cells import cell_width

# What replaces the console's own characters, each in one cell.
ASCII_FORMS = {
    "●": "*",
    "◐": "o",
    "○": "-",
    "…": ".",
    "✕": "x",
    "–": "-",
    "“": '"',
    "”": '"',
    "·": "-",
    "−": "-",
    "‹": "<",
    "›": ">",
}


UNKNOWN = "?"  # a cell of a character that has no other form


def in_encoding(text: str, encoding: str) -> str:
    """`text` with the characters that `encoding` has. The others get an ASCII form or an escape, such as \\u65e5."""
    return _replace_missing(text, encoding, lambda character: ASCII_FORMS.get(character) or _escape(character))


def table_in_encoding(text: str, encoding: str) -> str:
    """Aligned lines with the characters that `encoding` has. The others get forms of the same width in cells."""
    return _replace_missing(text, encoding, lambda character: _same_width(character, encoding))


def json_in_encoding(text: str, encoding: str) -> str:
    """A JSON document in `encoding`, with JSON's escapes for the characters that it lacks: the same values."""
    return _replace_missing(text, encoding, _escape_in_json)


def _replace_missing(text: str, encoding: str, replace: Callable[[str], str]) -> str:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return "".join(character if _has(encoding, character) else replace(character) for character in text)
    return text


def _has(encoding: str, character: str) -> bool:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _same_width(character: str, encoding: str) -> str:
    """The console's own form of a character, the letter without its accent, or a question mark for each cell."""
    base = unicodedata.normalize("NFD", character)[:1]
    if base != character and base.isalpha() and _has(encoding, base):
        return base
    return ASCII_FORMS.get(character) or UNKNOWN * cell_width(character)


def _escape(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode()


def _escape_in_json(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[index : index + 2].hex()}" for index in range(0, len(units), 2))
