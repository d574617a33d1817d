"""Invalid rotate, erase and disclose requests. None of them changes anything."""

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
BAD_SIGNATURE: Verdict = (403, "bad_signature")


def body(install: Install, name: str, **changes: Any) -> bytes:
    """The body of an action."""
    payload = {"action": name, "instance_id": install.instance_id, "timestamp": datetime.now(UTC).isoformat()}
    return json.dumps(payload | changes).encode()


def rotate(install: Install, new_key: str, corrupt: Callable[[bytes], bytes] = bytes) -> bytes:
    """A rotation to `new_key`, signed with `NEW_KEY`, because nobody can sign with the invalid keys."""
    payload = body(install, "rotate", new_public_key=new_key)
    return signed("/v1/rotate", install, payload, X_New_Signature=corrupt(NEW_KEY.sign(payload).signature).hex())


def rotate_to(new_key: str) -> Callable[[Install], bytes]:
    """A rotation to this key."""
    return lambda install: rotate(install, new_key)


def with_changes(name: str, **changes: Any) -> Callable[[Install], bytes]:
    """An action with these changes in its body."""
    return lambda install: signed(f"/v1/{name}", install, body(install, name, **changes))


def erase_signed_beyond_the_order(install: Install) -> bytes:
    """An erasure with a signature that a lax verifier would accept."""
    payload = body(install, "erase")
    signature = beyond_the_order(install.key.sign(payload).signature)
    return signed("/v1/erase", install, payload, X_Signature=signature.hex())


GOOD_KEY = NEW_KEY.verify_key.encode().hex()

CASES: tuple[Case, ...] = (
    *(
        Case(f"rotate: to a key {name}", rotate_to(encoded(point).hex()), (BAD_KEY,))
        for name, point in (OF_SMALL_ORDER | NON_CANONICAL).items()
    ),
    Case(
        "rotate: to a key with a point of order 8 added to it",
        lambda install: rotate(install, mixed(install).hex()),
        (BAD_KEY,),
    ),
    Case("rotate: to a key of 63 digits", rotate_to("a" * 63), (BAD_KEY,)),
    Case("rotate: to a key of 65 digits", rotate_to("a" * 65), (BAD_KEY,)),
    Case("rotate: without a key", with_changes("rotate"), (BAD_KEY,)),
    Case("rotate: to a key that is a number", with_changes("rotate", new_public_key=7), ((400, "bad_field"),)),
    Case(
        "rotate: without a signature by the new key",
        with_changes("rotate", new_public_key=GOOD_KEY),
        ((401, "missing_signature"),),
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
            Case(f"{name}: an action with another name", with_changes(name, action="dance"), ((400, "bad_field"),)),
            Case(f"{name}: an action of 60 KB", with_changes(name, action="x" * 60_000), ((400, "bad_field"),)),
            Case(f"{name}: an action that is null", with_changes(name, action=None), ((400, "bad_field"),)),
            Case(
                f"{name}: with the ID of another install",
                with_changes(name, instance_id=Install("").instance_id),
                ((403, "instance_mismatch"),),
            ),
            Case(
                f"{name}: with a word as timestamp",
                with_changes(name, timestamp="now"),
                ((400, "bad_timestamp"),),
            ),
            Case(
                f"{name}: with a timestamp that is a number",
                with_changes(name, timestamp=1704110400),
                ((400, "bad_timestamp"),),
            ),
            Case(
                f"{name}: with an old timestamp",
                with_changes(name, timestamp="2024-01-01T00:00:00Z"),
                ((400, "timestamp_too_old"),),
            ),
        )
    ),
)
