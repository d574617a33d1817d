"""Keys, signatures, IDs and registrations that are invalid, or valid in an unusual form."""

from collections.abc import Callable
from typing import Any

import nacl.bindings
from nacl.signing import SigningKey

from tests.support.hostile.case import STORED, Case, Verdict, post, signed
from tests.support.installs import Install

PRIME = 2**255 - 19  # of Ed25519's field
ORDER = 2**252 + 27742317777372353535851937790883648493  # of Ed25519's group
SIGN = 2**255  # the sign bit of an encoded point: which of two x it has
OF_ORDER_8 = tuple(
    int.from_bytes(bytes.fromhex(digits), "little")
    for digits in (
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    )
)


def encoded(number: int) -> bytes:
    """The encoding of a field element or a scalar in Ed25519."""
    return number.to_bytes(32, "little")


OF_SMALL_ORDER = {
    "of order 1": 1,
    "of order 2": PRIME - 1,
    "of order 4": 0,
    "of order 4 with its sign": SIGN,
    "of order 8": OF_ORDER_8[0],
    "of order 8 with its sign": OF_ORDER_8[0] + SIGN,
    "of order 8, the other": OF_ORDER_8[1],
    "of order 8, the other, with its sign": OF_ORDER_8[1] + SIGN,
}
NON_CANONICAL = {
    "of order 1 with an invalid sign": 1 + SIGN,
    "of order 2 with an invalid sign": PRIME - 1 + SIGN,
    "of order 4 written as the prime": PRIME,
    "of order 1 written as the prime and 1": PRIME + 1,
    "of order 1 written as the prime and 1, with a sign": PRIME + 1 + SIGN,
    "of large order written as the prime and 3": PRIME + 3,
    "of large order written as the prime and 18": PRIME + 18,
    "of ones only": 2**256 - 1,
}


def mixed(install: Install) -> bytes:
    """A valid key with a point of order 8 added to it."""
    return nacl.bindings.crypto_core_ed25519_add(install.key.verify_key.encode(), encoded(OF_ORDER_8[0]))


# Changes of a registration's body, and the response.
REGISTRATIONS: dict[str, tuple[dict[str, Any], Verdict]] = {
    **{
        f"a public key {name}": ({"public_key": encoded(point).hex()}, (400, "bad_public_key"))
        for name, point in (OF_SMALL_ORDER | NON_CANONICAL).items()
    },
    "a public key off the curve": ({"public_key": encoded(2).hex()}, (400, "bad_public_key")),
    "a public key of 63 digits": ({"public_key": "a" * 63}, (400, "bad_public_key")),
    "a public key of 65 digits": ({"public_key": "a" * 65}, (400, "bad_public_key")),
    "a public key of 60,000 digits": ({"public_key": "a" * 60_000}, (400, "bad_public_key")),
    "a public key that is not hex": ({"public_key": "g" * 64}, (400, "bad_public_key")),
    "a public key with spaces": ({"public_key": "aa " * 21 + "a"}, (400, "bad_public_key")),
    "a public key in full-width digits": ({"public_key": "１" * 64}, (400, "bad_public_key")),
    "a public key that is a number": ({"public_key": 7}, (400, "bad_field")),
    "no public key": ({"public_key": None}, (400, "bad_field")),
    "an instance_id that is not a UUID": ({"instance_id": "x"}, (400, "bad_instance_id")),
    "an instance_id without dashes": ({"instance_id": "c77af6829aa4412e904ac307d3a8a9c2"}, (400, "bad_instance_id")),
    "an instance_id in braces": (
        {"instance_id": "{c77af682-9aa4-412e-904a-c307d3a8a9c2}"},
        (400, "bad_instance_id"),
    ),
    "an instance_id with a line feed": (
        {"instance_id": "c77af682-9aa4-412e-904a-c307d3a8a9c2\n"},
        (400, "bad_instance_id"),
    ),
    "an instance_id that is an array": ({"instance_id": []}, (400, "bad_field")),
    "an application without a name": ({"app_name": " \t\u3000"}, (400, "bad_field")),
    "an application's name with U+0000": ({"app_name": "a\0b"}, (400, "nul_character")),
    "an application's name of 257 characters": ({"app_name": "x" * 257}, (400, "text_too_long")),
    "an application's name of 10,000 ideographs": ({"app_name": "鬱" * 10_000}, (400, "text_too_long")),
    "an application's name that is a lone surrogate": ({"app_name": "\ud800"}, (400, "bad_json")),
    "an application's name that is an object": ({"app_name": {}}, (400, "bad_field")),
    "no application's name": ({"app_name": None}, (400, "bad_field")),
    "a version of true": ({"app_version": True}, (400, "bad_field")),
    "an environment of 257 characters": ({"environment": "x" * 257}, (400, "text_too_long")),
    "a deployment mode with U+0000": ({"deployment_mode": "\0"}, (400, "nul_character")),
    "an architecture that is a number": ({"os_arch": 1e400}, (400, "bad_json")),  # Infinity
    "only the required fields": (
        dict.fromkeys(("app_version", "environment", "deployment_mode", "os_arch")),
        (200, None),
    ),
    "an application's name of 256 emojis": ({"app_name": "\U0001f600" * 256}, (200, None)),
    "an application's name that looks like SQL": ({"app_name": "'; DROP TABLE instances; --"}, (200, None)),
    "an application's name of escape sequences": ({"app_name": "\x1b]52;c;aGk=\x07\u202e"}, (200, None)),
    "unknown fields": ({"x": [{"y": "\0"}]}, (200, None)),
}

MISSING: Verdict = (401, "missing_signature")
BAD: Verdict = (403, "bad_signature")
CORRUPT_SIGNATURES: dict[str, tuple[Callable[[bytes], str], Verdict]] = {
    "in upper case": (lambda signature: signature.hex().upper(), STORED),
    "with S beyond the group's order": (lambda signature: beyond_the_order(signature).hex(), BAD),
    "with S of ones only": (lambda signature: (signature[:32] + b"\xff" * 32).hex(), BAD),
    "with one bit of S changed": (lambda signature: (signature[:63] + bytes([signature[63] ^ 1])).hex(), BAD),
    "with one bit of R changed": (lambda signature: (bytes([signature[0] ^ 1]) + signature[1:]).hex(), BAD),
    "with R of small order": (lambda signature: (encoded(1) + signature[32:]).hex(), BAD),
    "of zeros": (lambda signature: "0" * 128, BAD),
    "of R = 1 and S = 0": (lambda signature: (encoded(1) + encoded(0)).hex(), BAD),
    "with R and S exchanged": (lambda signature: (signature[32:] + signature[:32]).hex(), BAD),
    "of 127 digits": (lambda signature: signature.hex()[:-1], BAD),
    "of 129 digits": (lambda signature: signature.hex() + "0", BAD),
    "of 12,000 digits": (lambda signature: signature.hex() * 94, BAD),
    "that is not hex": (lambda signature: "g" * 128, BAD),
    "with spaces": (lambda signature: signature.hex(" "), BAD),
    "after 0x": (lambda signature: "0x" + signature.hex()[2:], BAD),
    "in superscript digits": (lambda signature: "²" * 128, BAD),
    "given twice": (lambda signature: f"{signature.hex()}\r\nX-Signature: {signature.hex()}", BAD),
    "that is empty": (lambda signature: "", MISSING),
}

IDS: dict[str, tuple[Callable[[str], str], Verdict]] = {
    "in upper case": (str.upper, STORED),
    "that is empty": (lambda instance_id: "", (401, "missing_instance_id")),
    "without dashes": (lambda instance_id: instance_id.replace("-", ""), (403, "bad_instance_id")),
    "of one digit too many": (lambda instance_id: instance_id + "0", (403, "bad_instance_id")),
    "of bytes that are not text": (lambda instance_id: "\xff\xfe\x80", (403, "bad_instance_id")),
    "that looks like SQL": (lambda instance_id: "' OR 1=1 --", (403, "bad_instance_id")),
    "given twice": (
        lambda instance_id: f"{instance_id}\r\nX-Instance-ID: {instance_id}",
        (403, "bad_instance_id"),
    ),
    "of an unknown instance": (lambda instance_id: "c77af682-9aa4-412e-904a-c307d3a8a9c2", (403, "unknown_instance")),
}


def beyond_the_order(signature: bytes) -> bytes:
    """Another signature of the same body that a lax verifier would accept: S plus the group's order."""
    return signature[:32] + encoded(int.from_bytes(signature[32:], "little") + ORDER)


def registration(changes: dict[str, Any]) -> Callable[[Install], bytes]:
    """An unsigned registration with these changes, as the official clients send it."""
    return lambda install: post("/v1/register", install.registration(**changes), {"Content-Type": "application/json"})


def with_signature(corrupt: Callable[[bytes], str]) -> Callable[[Install], bytes]:
    """A snapshot with a corrupted signature."""

    def raw(install: Install) -> bytes:
        body = install.snapshot_body({"a": 1})
        return signed("/v1/snapshot", install, body, X_Signature=corrupt(install.key.sign(body).signature))

    return raw


def with_id(change: Callable[[str], str]) -> Callable[[Install], bytes]:
    """A snapshot whose header names another install."""
    return lambda install: signed(
        *("/v1/snapshot", install, install.snapshot_body({"a": 1})), X_Instance_ID=change(install.instance_id)
    )


def signed_by_another(install: Install) -> bytes:
    """A snapshot of an install, signed with another key."""
    body = install.snapshot_body({"a": 1})
    return signed("/v1/snapshot", install, body, X_Signature=SigningKey.generate().sign(body).signature.hex())


def with_another_id_in_the_body(install: Install) -> bytes:
    """A snapshot whose body has another ID than its header."""
    return signed("/v1/snapshot", install, Install("").snapshot_body({"a": 1}))


def with_a_line_feed_added(install: Install) -> bytes:
    """A snapshot to which a line feed was added after it was signed."""
    body = install.snapshot_body({"a": 1})
    return post("/v1/snapshot", body + b"\n", install.signed(body))


CASES: tuple[Case, ...] = (
    *(
        Case(f"a registration: {name}", registration(changes), (verdict,))
        for name, (changes, verdict) in REGISTRATIONS.items()
    ),
    Case(
        "a registration: a public key with a point of order 8 added to it",
        lambda install: registration({"public_key": mixed(install).hex()})(install),
        ((400, "bad_public_key"),),
    ),
    Case(
        "a registration: in upper case",
        lambda install: registration(
            {"instance_id": install.instance_id.upper(), "public_key": install.public_key.upper()}
        )(install),
        ((200, None),),
    ),
    Case(
        "a registration: with another key",
        lambda install: registration({"public_key": Install("").public_key})(install),
        ((409, "key_conflict"),),
    ),
    *(
        Case(f"a signature {name}", with_signature(corrupt), (verdict,), shows={"a": 1} if verdict == STORED else None)
        for name, (corrupt, verdict) in CORRUPT_SIGNATURES.items()
    ),
    *(
        Case(f"an X-Instance-ID {name}", with_id(change), (verdict,), shows={"a": 1} if verdict == STORED else None)
        for name, (change, verdict) in IDS.items()
    ),
    Case("a signature with another key", signed_by_another, (BAD,)),
    Case("a signature over a body without its last line feed", with_a_line_feed_added, (BAD,)),
    Case("a body with another ID", with_another_id_in_the_body, ((403, "instance_mismatch"),)),
)
