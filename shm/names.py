"""How an application's name becomes its slug. Pure."""

import hashlib
import re

from anyascii import anyascii

LONGEST_SLUG = 100  # as in the original; longer ones end in a hash, so that two never merge by being cut
HASH_DIGITS = 8


def slug(name: str) -> str:
    """`Café Ledger` -> `cafe-ledger`; other scripts are transliterated, any other run of characters becomes one `-`.

    A name with nothing left is `app-` and eight hex digits of its SHA-256, so two never merge by accident.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", anyascii(name).lower()).strip("-")
    if not plain:
        return f"app-{_digest(name)}"
    if len(plain) > LONGEST_SLUG:
        return f"{plain[: LONGEST_SLUG - HASH_DIGITS - 1].rstrip('-')}-{_digest(name)}"
    return plain


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:HASH_DIGITS]
