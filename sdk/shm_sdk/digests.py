"""SHA-256 by the interpreter's own module, as `random` uses it: `hashlib` initializes all of OpenSSL's digests."""

from collections.abc import Callable
from typing import Any

sha256: Callable[[bytes], Any]
try:
    from _sha2 import sha256  # type: ignore[import-not-found,no-redef]  # since Python 3.12
except ImportError:
    try:
        from _sha256 import sha256  # type: ignore[import-not-found,no-redef]
    except ImportError:  # a build without them
        from hashlib import sha256


def hash_hex(content: bytes) -> str:
    """The SHA-256 of bytes, as hex digits."""
    digits: str = sha256(content).hexdigest()
    return digits
