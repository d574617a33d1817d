"""The border: what came from an install is hostile until it has been through here.

A cleaned text is one line that no terminal can mistake for a command and whose width every terminal agrees on: no
escape sequences, C0 or C1, no bidi controls, no zero-width or unassigned characters, no joiners that some terminals
draw as one glyph and others as four. What is taken out leaves a mark, so that two different names do not become one.
"""

import unicodedata
from collections import Counter
from functools import lru_cache

from rich.cells import cell_len

MAX_TEXT = 1024  # the protocol's longest string; nothing longer is shown, whoever sent it
MAX_DEPTH = 16  # the protocol's objects are 8 deep; the rest is a server that is not ours
MAX_CACHED = 64  # longer texts hardly repeat, and would make the cache's size theirs to choose
MAX_COMBINING = 4  # marks on one letter: Burmese writes as many; more of them climb over the lines above

MARK = "�"
ELLIPSIS = "…"

# Ordinary in emoji, Persian and Hindi, and drawn differently everywhere: dropped silently. After ASCII they are not
# ordinary but for the emoji of digits, and leave a mark like all that is taken out.
_JOINERS = frozenset("\u200c\u200d\ufe0e\ufe0f")
_KEYCAPS = frozenset("0123456789#*")
_SKIN_TONES = range(0x1F3FB, 0x1F400)  # one cell pair or two, depending on the terminal
_BLANK_LETTERS = frozenset("\u115f\u1160\u3164\uffa0\u2800")  # letters by category, nothing by sight
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn"}


def clean(text: str, limit: int = MAX_TEXT) -> str:
    """`text` as one harmless line of at most `limit` characters, the last being … when it was cut."""
    if text.isascii() and text.isprintable() and len(text) <= limit:
        return text
    return _cached(text, limit) if len(text) <= MAX_CACHED else _scrub(text, limit)


def clean_json(value: object, depth: int = 0) -> object:
    """A JSON value with every string in it, keys too, cleaned."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        if depth == MAX_DEPTH:
            return ELLIPSIS
        cleaned: dict[str, object] = {}
        twins: Counter[str] = Counter()
        for key, inner in value.items():
            cleaned[_apart(clean(str(key)), cleaned, twins)] = clean_json(inner, depth + 1)
        return cleaned
    if isinstance(value, list):
        return ELLIPSIS if depth == MAX_DEPTH else [clean_json(inner, depth + 1) for inner in value]
    return value


def _apart(name: str, taken: dict[str, object], twins: Counter[str]) -> str:
    """`name`, or where another key has become the same by cleaning, a marked and numbered one."""
    apart = name
    while apart in taken:
        twins[name] += 1
        apart = f"{name}{MARK}{twins[name] + 1}"
    return apart


@lru_cache(maxsize=8192)
def _cached(text: str, limit: int) -> str:
    return _scrub(text, limit)


def _scrub(text: str, limit: int) -> str:
    # Twice the limit is enough to fill it, and keeps ten megabytes of one character from costing a second.
    kept: list[str] = []
    combining = 0
    for character in unicodedata.normalize("NFC", text[: limit * 2]):
        category = unicodedata.category(character)
        if (character in _JOINERS or ord(character) in _SKIN_TONES) and _takes_joiners(kept):
            continue
        if character.isspace() or character in _BLANK_LETTERS:
            combining, shown = 0, " "
        elif category in _UNSEEN or ord(character) in _SKIN_TONES:
            combining, shown = 0, MARK
        elif category in {"Mn", "Me"} or not cell_len(character):
            combining += 1
            shown = character if kept and combining <= MAX_COMBINING and character not in _JOINERS else MARK
        else:
            combining, shown = 0, character
        repeats = shown == MARK and kept[-1:] == [MARK]  # it says that something was taken out, not how much
        leads = shown == " " and not kept  # what stands on it would stand on the cell before
        if not repeats and not leads:
            kept.append(shown)
    line = "".join(kept).rstrip()
    return line if len(line) <= limit and len(text) <= limit * 2 else line[: limit - 1] + ELLIPSIS


def _takes_joiners(kept: list[str]) -> bool:
    return bool(kept) and (not kept[-1].isascii() or kept[-1] in _KEYCAPS)
