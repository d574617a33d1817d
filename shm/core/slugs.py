"""How an application's name becomes its slug, and which names are the same application. Pure.

Names that differ only in case, Latin accents and the usual separators are the same. Whatever else a slug cannot keep,
another script or a symbol, tells applications apart by a hash at the slug's end, so that two never merge by accident.
"""

import hashlib
import re
import unicodedata

from anyascii import anyascii

MAX_SLUG_LENGTH = 100  # as in the original
HASH_DIGITS = 8
SEPARATORS = frozenset("-_./,:;'’\"()[]|&!?·")  # and white space
SYMBOLS = frozenset({"Sc", "Sk", "Sm", "So"})

PLAIN = re.compile(r"[a-z0-9]+( [a-z0-9]+)*")
LIKE_HASHED = re.compile(rf".+ [0-9a-f]{{{HASH_DIGITS}}}")


def make_slug(name: str) -> str:
    """`Café-Ledger` -> `cafe-ledger`, `C++ Tool` -> `c-tool-` and eight hex digits, `北京` -> `beijing-` and others.

    A hash also ends a slug that was cut, and one that would look like another's with its hash. A name with nothing left
    is `app-` and a hash.
    """
    said = fold_name(name)
    if len(said) <= MAX_SLUG_LENGTH and PLAIN.fullmatch(said) and not LIKE_HASHED.fullmatch(said):
        return said.replace(" ", "-")
    readable = re.sub(r"[^a-z0-9]+", "-", anyascii(said).lower()).strip("-") or "app"
    digest = hashlib.sha256((said or name.strip()).encode()).hexdigest()[:HASH_DIGITS]
    return f"{readable[: MAX_SLUG_LENGTH - HASH_DIGITS - 1].rstrip('-')}-{digest}"


def fold_name(name: str) -> str:
    """What two names of the same application have in common: no case, no Latin accents, one space for separators."""
    text = name
    for _ in range(2):  # what folding one makes of a character may have to be folded by the other again
        text = _decomposed(text).casefold()
    kept: list[str] = []
    after_latin = False
    for character in _decomposed(text):
        if after_latin and _is_accent(character):
            continue
        latin = _as_ascii(character)
        after_latin = latin is not None and not character.isdigit()
        kept.append(" " if _separates(character) else latin or character)
    return unicodedata.normalize("NFC", re.sub(" +", " ", "".join(kept)).strip(" "))


def _decomposed(text: str) -> str:
    """NFKD, but ™ and its like stay: they are more than the letters that they are made of."""
    parts = [each if _is_made_of_letters(each) else unicodedata.normalize("NFKD", each) for each in text]
    return unicodedata.normalize("NFD", "".join(parts))


def _is_made_of_letters(character: str) -> bool:
    return unicodedata.category(character) in SYMBOLS and any(
        map(str.isalnum, unicodedata.normalize("NFKD", character))
    )


def _separates(character: str) -> bool:
    return character in SEPARATORS or character.isspace()


def _is_accent(character: str) -> bool:
    return unicodedata.combining(character) > 0 and unicodedata.name(character, "").startswith("COMBINING ")


def _as_ascii(character: str) -> str | None:
    """A Latin letter, or a digit, in ASCII; None for all else."""
    if character.isascii():
        return character if character.isalnum() else None
    if not unicodedata.name(character, "").startswith("LATIN "):
        return None
    letters = anyascii(character).lower()
    return letters if letters.isalnum() else None
