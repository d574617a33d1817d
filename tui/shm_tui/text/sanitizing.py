"""Sanitizes strings that installs sent. Every string passes through here before it reaches a widget or a file.

A sanitized string is one line of printable characters whose width is the same in every terminal. It has no escape
sequences, C0 or C1 controls, bidi controls, zero-width or unassigned characters. It has no joiners either, because some
terminals draw joined emoji as one glyph and others as several. REPLACEMENT marks each removal, so that two different
names never become equal.
"""

import unicodedata
from collections import Counter
from collections.abc import Callable
from functools import lru_cache

from rich.cells import cell_len

MAX_CHARS = 1024  # the longest string of the protocol
MAX_DEPTH = 16  # the protocol allows objects 8 levels deep; the rest of the depth is for the server's own objects
MAX_CACHED_CHARS = 64  # longer strings rarely repeat, and caching them would let installs choose the cache's size
MAX_COMBINING = 4  # combining marks on one letter: Burmese needs four; more of them would cover the lines above

REPLACEMENT = "�"
ELLIPSIS = "…"

# Common in emoji, Persian and Hindi, and drawn differently by every terminal: removed without a REPLACEMENT. After an
# ASCII character only the emoji of digits use them; elsewhere they are replaced like every other removed character.
_JOINERS = frozenset("\u200c\u200d\ufe0e\ufe0f")
_KEYCAPS = frozenset("0123456789#*")
_SKIN_TONES = range(0x1F3FB, 0x1F400)  # two cells or four, depending on the terminal
_BLANK_LETTERS = frozenset("\u115f\u1160\u3164\uffa0\u2800")  # their category is letter, and they are drawn as blanks
_INVISIBLE_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn"}


def sanitize(text: str, limit: int = MAX_CHARS) -> str:
    """`text` as one safe line of at most `limit` characters; … replaces the end of a text that is cut."""
    if text.isascii() and text.isprintable() and len(text) <= limit:
        return text
    return _sanitize_cached(text, limit) if len(text) <= MAX_CACHED_CHARS else _sanitize(text, limit)


def sanitize_json(value: object, depth: int = 0, clean: Callable[[str], str] = sanitize) -> object:
    """A JSON value with every string in it sanitized by `clean`, keys as well. `depth`: the levels above `value`."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        if depth == MAX_DEPTH:
            return ELLIPSIS
        sanitized: dict[str, object] = {}
        collisions: Counter[str] = Counter()
        for key, inner in value.items():
            sanitized[_unique_key(clean(str(key)), sanitized, collisions)] = sanitize_json(inner, depth + 1, clean)
        return sanitized
    if isinstance(value, list):
        return ELLIPSIS if depth == MAX_DEPTH else [sanitize_json(inner, depth + 1, clean) for inner in value]
    return value


def _unique_key(key: str, used: dict[str, object], collisions: Counter[str]) -> str:
    """`key`, with a REPLACEMENT and a number appended where another key has the same sanitized form."""
    unique = key
    while unique in used:
        collisions[key] += 1
        unique = f"{key}{REPLACEMENT}{collisions[key] + 1}"
    return unique


@lru_cache(maxsize=8192)
def _sanitize_cached(text: str, limit: int) -> str:
    return _sanitize(text, limit)


def _sanitize(text: str, limit: int) -> str:
    # Twice the limit is enough to fill the line. Ten megabytes of one character would take a second.
    kept: list[str] = []
    combining = 0
    for character in unicodedata.normalize("NFC", text[: limit * 2]):
        category = unicodedata.category(character)
        if (character in _JOINERS or ord(character) in _SKIN_TONES) and _accepts_joiner(kept):
            continue
        if character.isspace() or character in _BLANK_LETTERS:
            combining, visible = 0, " "
        elif category in _INVISIBLE_CATEGORIES or ord(character) in _SKIN_TONES:
            combining, visible = 0, REPLACEMENT
        elif category in {"Mn", "Me"} or not cell_len(character):
            combining += 1
            visible = character if kept and combining <= MAX_COMBINING and character not in _JOINERS else REPLACEMENT
        else:
            combining, visible = 0, character
        is_repeated = visible == REPLACEMENT and kept[-1:] == [REPLACEMENT]  # one mark for a run of removed characters
        # A leading space is dropped: a combining mark on it would be drawn on the cell before the text.
        is_leading_space = visible == " " and not kept
        if not is_repeated and not is_leading_space:
            kept.append(visible)
    line = "".join(kept).rstrip()
    return line if len(line) <= limit and len(text) <= limit * 2 else line[: limit - 1] + ELLIPSIS


def _accepts_joiner(kept: list[str]) -> bool:
    return bool(kept) and (not kept[-1].isascii() or kept[-1] in _KEYCAPS)
