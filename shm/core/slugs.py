"""Slugs of application names. Names with the same slug are the same application. Pure.

Names that differ only in case, Latin accents and the usual separators have the same slug. A name with anything else
that a slug cannot represent, such as another script or a symbol, gets a hash at the end of its slug, so that two
applications never merge by accident.
"""

import hashlib
import re
import unicodedata

from anyascii import anyascii

MAX_SLUG_LENGTH = 100  # as in the original server
HASH_DIGITS = 8
SEPARATORS = frozenset("-_./,:;'’\"()[]|&!?·")  # in addition to white space
SYMBOLS = frozenset({"Sc", "Sk", "Sm", "So"})

PLAIN_NAME = re.compile(r"[a-z0-9]+( [a-z0-9]+)*")
HASHED_NAME = re.compile(rf".+ [0-9a-f]{{{HASH_DIGITS}}}")


def make_slug(name: str) -> str:
    """`Café-Ledger` -> `cafe-ledger`, `C++ Tool` -> `c-tool-` and 8 hex digits, `北京` -> `beijing-` and 8 hex digits.

    A truncated slug also ends with a hash, and so does one that looks like a slug with a hash. A name of which nothing
    remains becomes `app-` and a hash.
    """
    folded = fold_name(name)
    if len(folded) <= MAX_SLUG_LENGTH and PLAIN_NAME.fullmatch(folded) and not HASHED_NAME.fullmatch(folded):
        return folded.replace(" ", "-")
    readable = re.sub(r"[^a-z0-9]+", "-", anyascii(folded).lower()).strip("-") or "app"
    digest = hashlib.sha256((folded or name.strip()).encode()).hexdigest()[:HASH_DIGITS]
    return f"{readable[: MAX_SLUG_LENGTH - HASH_DIGITS - 1].rstrip('-')}-{digest}"


def fold_name(name: str) -> str:
    """The name without case and Latin accents, each run of separators as one space.

    Two names of the same application have the same folded name.
    """
    text = name
    for _ in range(2):  # decomposition and case folding may each produce characters that the other one changes
        text = _decomposed(text).casefold()
    folded: list[str] = []
    after_latin = False
    for character in _decomposed(text):
        if after_latin and _is_accent(character):
            continue
        latin = _as_ascii(character)
        after_latin = latin is not None and not character.isdigit()
        folded.append(" " if _is_separator(character) else latin or character)
    return unicodedata.normalize("NFC", re.sub(" +", " ", "".join(folded)).strip(" "))


def _decomposed(text: str) -> str:
    """NFKD, except for symbols such as ™, which mean more than the letters that they decompose to."""
    parts = [
        character if _is_made_of_letters(character) else unicodedata.normalize("NFKD", character) for character in text
    ]
    return unicodedata.normalize("NFD", "".join(parts))


def _is_made_of_letters(character: str) -> bool:
    return unicodedata.category(character) in SYMBOLS and any(
        map(str.isalnum, unicodedata.normalize("NFKD", character))
    )


def _is_separator(character: str) -> bool:
    return character in SEPARATORS or character.isspace()


def _is_accent(character: str) -> bool:
    return unicodedata.combining(character) > 0 and unicodedata.name(character, "").startswith("COMBINING ")


def _as_ascii(character: str) -> str | None:
    """A Latin letter or a digit in ASCII; None for any other character."""
    if character.isascii():
        return character if character.isalnum() else None
    if not unicodedata.name(character, "").startswith("LATIN "):
        return None
    letters = anyascii(character).lower()
    return letters if letters.isalnum() else None
