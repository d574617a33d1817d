"""The border: what came from an install is hostile until it has been through here.

A cleaned text is one line that no terminal can mistake for a command and whose width every terminal agrees on: no
escape sequences, C0 or C1, no bidi controls, no zero-width or unassigned characters, no joiners that some terminals
draw as one glyph and others as four. What is taken out leaves a mark, so that two different names do not become one.
"""

import unicodedata
from functools import lru_cache

MAX_TEXT = 1024  # the protocol's longest string; nothing longer is shown, whoever sent it
MAX_DEPTH = 16  # the protocol's objects are 8 deep; the rest is a server that is not ours
MAX_CACHED = 64  # longer texts hardly repeat, and would make the cache's size theirs to choose
MAX_COMBINING = 2  # marks on one letter: more than any script's orthography needs, fewer than a stack of them

MARK = "�"
ELLIPSIS = "…"

_JOINERS = frozenset(
    "\u200c\u200d\ufe0e\ufe0f"
)  # ordinary in emoji, and drawn differently everywhere: dropped silently
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
        return {clean(str(key)): clean_json(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list):
        return ELLIPSIS if depth == MAX_DEPTH else [clean_json(inner, depth + 1) for inner in value]
    return value


@lru_cache(maxsize=8192)
def _cached(text: str, limit: int) -> str:
    return _scrub(text, limit)


def _scrub(text: str, limit: int) -> str:
    # Twice the limit is enough to fill it, and keeps ten megabytes of one character from costing a second.
    kept: list[str] = []
    combining = 0
    for character in unicodedata.normalize("NFC", text[: limit * 2]):
        category = unicodedata.category(character)
        if category in {"Mn", "Me"}:
            combining += 1
            if combining > MAX_COMBINING or character in _JOINERS or not kept:
                continue
            kept.append(character)
            continue
        combining = 0
        if character in _JOINERS or ord(character) in _SKIN_TONES:
            continue
        if character.isspace() or category in {"Zl", "Zp"} or character in _BLANK_LETTERS:
            kept.append(" ")
        elif category not in _UNSEEN:
            kept.append(character)
        elif not kept or kept[-1] != MARK:
            kept.append(MARK)
    line = "".join(kept).strip()
    return line if len(line) <= limit and len(text) <= limit * 2 else line[: limit - 1] + ELLIPSIS
