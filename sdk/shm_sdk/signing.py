"""Ed25519, by the library that the host has.

`cryptography` signs where the process has imported it already, which loads nothing more. Otherwise PyNaCl signs, which
this distribution requires and which takes a sixth of the memory. Where a packager has left PyNaCl out, an installed
`cryptography` replaces it. The choice is made when this module is imported. Both libraries make the same signatures.
"""

import os
import sys
from contextlib import suppress
from typing import Protocol

SEED_BYTES = 32  # as many as a public key has
SIGNATURE_BYTES = 64
CRYPTOGRAPHY = "cryptography.hazmat.primitives.asymmetric.ed25519"


class Library(Protocol):
    """Ed25519. Seeds and public keys have 32 bytes, signatures 64."""

    def derive_public_key(self, seed: bytes) -> bytes:
        """The public key of a private one."""

    def sign(self, seed: bytes, message: bytes) -> bytes:
        """The signature over exactly these bytes."""

    def is_valid(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        """Whether the signature is of this message, by this key."""


class Sodium:
    """The library inside PyNaCl, without the three quarters of PyNaCl's memory that are not for signing.

    PyNaCl does not promise its module `_sodium`: raises ImportError where it is missing or signs in another way.
    """

    def __init__(self) -> None:
        from nacl._sodium import ffi, lib  # type: ignore[import-not-found]  # an extension module without types

        try:
            self._ffi = ffi
            self._derive = lib.crypto_sign_seed_keypair
            self._sign = lib.crypto_sign
            self._open = lib.crypto_sign_open
            seed = bytes(SEED_BYTES)
            works = lib.sodium_init() >= 0 and self.is_valid(self.derive_public_key(seed), b"", self.sign(seed, b""))
        except Exception:  # other functions, or other arguments of them
            works = False
        if not works:
            raise ImportError("PyNaCl has no such module")

    def derive_public_key(self, seed: bytes) -> bytes:
        """See Library."""
        return self._derive_keys(seed)[0]

    def sign(self, seed: bytes, message: bytes) -> bytes:
        """See Library."""
        signed, length = self._ffi.new("unsigned char[]", SIGNATURE_BYTES + len(message)), self._new_length()
        if self._sign(signed, length, message, len(message), self._derive_keys(seed)[1]) != 0:
            raise RuntimeError("libsodium does not sign")
        return bytes(self._ffi.buffer(signed, SIGNATURE_BYTES))

    def is_valid(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        """See Library."""
        if len(public_key) != SEED_BYTES or len(signature) != SIGNATURE_BYTES:
            return False
        signed = signature + message
        opened = self._ffi.new("unsigned char[]", len(signed))
        return bool(self._open(opened, self._new_length(), signed, len(signed), public_key) == 0)

    def _derive_keys(self, seed: bytes) -> tuple[bytes, bytes]:
        if len(seed) != SEED_BYTES:
            raise ValueError("a private key has 32 bytes")
        public_key, private_key = (self._ffi.new("unsigned char[]", length) for length in (SEED_BYTES, 2 * SEED_BYTES))
        if self._derive(public_key, private_key, seed) != 0:
            raise RuntimeError("libsodium makes no keys")
        return bytes(self._ffi.buffer(public_key)), bytes(self._ffi.buffer(private_key))

    def _new_length(self) -> object:
        return self._ffi.new("unsigned long long *")


class Nacl:
    """PyNaCl. Raises ImportError without it."""

    def __init__(self) -> None:
        from nacl import bindings, exceptions

        self._bindings = bindings
        self._error = exceptions.BadSignatureError

    def derive_public_key(self, seed: bytes) -> bytes:
        """See Library."""
        return self._bindings.crypto_sign_seed_keypair(seed)[0]

    def sign(self, seed: bytes, message: bytes) -> bytes:
        """See Library."""
        _, private_key = self._bindings.crypto_sign_seed_keypair(seed)
        return self._bindings.crypto_sign(message, private_key)[: self._bindings.crypto_sign_BYTES]

    def is_valid(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        """See Library."""
        try:
            self._bindings.crypto_sign_open(signature + message, public_key)
        except self._error:
            return False
        return True


class Cryptography:
    """The host's `cryptography`. Raises ImportError without it, or if it is older than version 40."""

    def __init__(self) -> None:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric import ed25519

        self._ed25519 = ed25519
        self._error = InvalidSignature
        try:
            self.derive_public_key(bytes(SEED_BYTES))
        except Exception:  # an old version, or an OpenSSL without Ed25519
            raise ImportError("cryptography has no Ed25519") from None

    def derive_public_key(self, seed: bytes) -> bytes:
        """See Library."""
        return self._ed25519.Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()

    def sign(self, seed: bytes, message: bytes) -> bytes:
        """See Library."""
        return self._ed25519.Ed25519PrivateKey.from_private_bytes(seed).sign(message)

    def is_valid(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        """See Library."""
        try:
            self._ed25519.Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
        except (self._error, ValueError):
            return False
        return True


def generate_seed() -> bytes:
    """A new private key."""
    return os.urandom(SEED_BYTES)


def choose_library() -> Library:
    """The library to use in this process. Raises ImportError where there is none."""
    preferred: tuple[type[Library], ...] = (Sodium, Nacl, Cryptography)
    if CRYPTOGRAPHY in sys.modules:
        preferred = (Cryptography, Sodium, Nacl)
    for library in preferred:
        with suppress(ImportError):
            return library()
    raise ImportError("PyNaCl is not installed, and neither is cryptography 40 or newer")


library = choose_library()
