"""Rotate, erase and disclose as nobody should ask for them. None of these changes anything."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from nacl.signing import SigningKey

from tests.support.hostile.case import Case, Verdict, signed
from tests.support.hostile.identities import NON_CANONICAL, OF_SMALL_ORDER, beyond_the_order, encoded, mixed
from tests.support.installs import Install

NEW_KEY = SigningKey.generate()
BAD_KEY: Verdict = (400, "bad_public_key")
BAD_SIGNATURE: Verdict = (401, "bad_signature")


def body(install: Install, name: str, **changes: Any) -> bytes:
    """The body of an action."""
    said = {"action": name, "instance_id": install.instance_id, "timestamp": datetime.now(UTC).isoformat()}
    return json.dumps(said | changes).encode()


def rotate(install: Install, new_key: str, spoil: Callable[[bytes], bytes] = bytes) -> bytes:
    """A rotate to a key, signed by it; or signed by one that is good, where none can sign."""
    asked = body(install, "rotate", new_public_key=new_key)
    return signed("/v1/rotate", install, asked, X_New_Signature=spoil(NEW_KEY.sign(asked).signature).hex())


def to(new_key: str) -> Callable[[Install], bytes]:
    """A rotate to this key."""
    return lambda install: rotate(install, new_key)


def asking(name: str, **changes: Any) -> Callable[[Install], bytes]:
    """An action with something else in its body."""
    return lambda install: signed(f"/v1/{name}", install, body(install, name, **changes))


def erase_signed_beyond_the_order(install: Install) -> bytes:
    """An erase whose signature a lax verifier would take."""
    asked = body(install, "erase")
    return signed(*("/v1/erase", install, asked), X_Signature=beyond_the_order(install.key.sign(asked).signature).hex())


GOOD_KEY = NEW_KEY.verify_key.encode().hex()

CASES: tuple[Case, ...] = (
    *(
        Case(f"rotate: to a key {name}", to(encoded(point).hex()), (BAD_KEY,))
        for name, point in (OF_SMALL_ORDER | NON_CANONICAL).items()
    ),
    Case(
        "rotate: to a key with a point of order 8 added to it",
        lambda install: rotate(install, mixed(install).hex()),
        (BAD_KEY,),
    ),
    Case("rotate: to a key of 63 digits", to("a" * 63), (BAD_KEY,)),
    Case("rotate: to a key of 65 digits", to("a" * 65), (BAD_KEY,)),
    Case("rotate: to no key", asking("rotate"), (BAD_KEY,)),
    Case("rotate: to a key that is a number", asking("rotate", new_public_key=7), ((400, "bad_field"),)),
    Case(
        "rotate: to a key that signed nothing", asking("rotate", new_public_key=GOOD_KEY), ((401, "missing_signature"),)
    ),
    Case(
        "rotate: signed by the new key with S beyond the group's order",
        lambda install: rotate(install, GOOD_KEY, beyond_the_order),
        (BAD_SIGNATURE,),
    ),
    Case("erase: with S beyond the group's order", erase_signed_beyond_the_order, (BAD_SIGNATURE,)),
    *(
        case
        for name in ("erase", "disclose")
        for case in (
            Case(f"{name}: an action of another name", asking(name, action="dance"), ((400, "bad_field"),)),
            Case(f"{name}: an action of 60 KB", asking(name, action="x" * 60_000), ((400, "bad_field"),)),
            Case(f"{name}: an action that is null", asking(name, action=None), ((400, "bad_field"),)),
            Case(
                f"{name}: in the name of another",
                asking(name, instance_id=Install("").instance_id),
                ((403, "instance_mismatch"),),
            ),
            Case(f"{name}: at no time", asking(name, timestamp="now"), ((400, "bad_timestamp"),)),
            Case(f"{name}: at a number", asking(name, timestamp=1704110400), ((400, "bad_timestamp"),)),
            Case(
                f"{name}: long ago",
                asking(name, timestamp="2024-01-01T00:00:00Z"),
                ((400, "timestamp_too_old"),),
            ),
        )
    ),
)
