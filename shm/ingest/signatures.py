"""Ed25519 signatures of requests: parses the headers and the keys, and verifies the bytes of a body. Pure.

A body is parsed (`shm.ingest.payloads`) only after `verify_body` has returned its `SignedBody`.
"""

import re

import msgspec
import nacl.bindings
import nacl.exceptions

from shm.core.errors import BadRequest, Forbidden, Unauthorized

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
PUBLIC_KEY = re.compile(r"[0-9a-f]{64}")
SIGNATURE = re.compile(r"[0-9a-f]{128}")


class SignatureHeaders(msgspec.Struct, frozen=True):
    """`X-Instance-ID` in lower case and the 64 bytes of `X-Signature`; not yet verified."""

    instance_id: str
    signature: bytes


class SignedBody(msgspec.Struct, frozen=True):
    """A body with a valid signature by `public_key`. Only this module creates it; the parsers of bodies require it."""

    instance_id: str
    public_key: bytes
    body: bytes


def parse_signature_headers(instance_id: str | None, signature: str | None) -> SignatureHeaders:
    """Parses `X-Instance-ID` and `X-Signature`. Raises Unauthorized for a missing one, Forbidden for an invalid one."""
    if not instance_id:
        raise Unauthorized("missing_instance_id", "The header X-Instance-ID is missing.")
    if not UUID.fullmatch(instance_id.lower()):
        raise Forbidden("bad_instance_id", "The header X-Instance-ID is not a UUID.")
    return SignatureHeaders(instance_id.lower(), _parse_signature("X-Signature", signature))


def verify_body(headers: SignatureHeaders, public_key: bytes, body: bytes) -> SignedBody:
    """Verifies a signature over the exact bytes of a body. Raises Forbidden."""
    _verify_signature("X-Signature", headers.signature, public_key, body)
    return SignedBody(headers.instance_id, public_key, body)


def verify_new_key(headers: SignatureHeaders, new_key: bytes, body: bytes, new_signature: str | None) -> SignedBody:
    """Verifies `X-New-Signature`, the signature of a rotation by its new key.

    Raises Unauthorized if it is missing, Forbidden if it is invalid.
    """
    signature = _parse_signature("X-New-Signature", new_signature)
    _verify_signature("X-New-Signature", signature, new_key, body)
    return SignedBody(headers.instance_id, new_key, body)


def parse_public_key(field: str, digits: str) -> bytes:
    """Parses the 64 hex digits of an Ed25519 public key. Raises BadRequest, which names `field`.

    A key of small order is refused because anybody can make a signature that verifies with it. A non-canonical key is
    refused because it is a second spelling of another key. libsodium verifies no signature with either, so an instance
    with such a key could never sign a request.
    """
    if not PUBLIC_KEY.fullmatch(digits.lower()):
        raise BadRequest("bad_public_key", f"{field} is not 64 hex digits, an Ed25519 public key.")
    key = bytes.fromhex(digits)
    if not nacl.bindings.crypto_core_ed25519_is_valid_point(key):
        raise BadRequest("bad_public_key", f"{field} is not a valid Ed25519 public key: no private key belongs to it.")
    return key


def _parse_signature(header: str, digits: str | None) -> bytes:
    if not digits:
        raise Unauthorized("missing_signature", f"The header {header} is missing.")
    if not SIGNATURE.fullmatch(digits.lower()):
        raise Forbidden("bad_signature", f"The header {header} is not 128 hex digits, an Ed25519 signature.")
    return bytes.fromhex(digits)


def _verify_signature(header: str, signature: bytes, public_key: bytes, body: bytes) -> None:
    try:
        nacl.bindings.crypto_sign_open(signature + body, public_key)
    except nacl.exceptions.BadSignatureError:
        raise Forbidden(
            "bad_signature", f"The signature is invalid: {header} must be made over the exact bytes of the body."
        ) from None
