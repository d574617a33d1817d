"""Backlogs: an invalid member is refused alone, and an invalid body is refused as a whole."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from tests.support.hostile.case import STORED, Case, Verdict, signed
from tests.support.installs import Install

# Metrics that are refused alone: the JSON text and the code.
BAD_METRICS: dict[bytes, str] = {
    rb'{"a":"\u0000"}': "nul_character",
    b'{"a":1e400}': "number_out_of_range",
    b'{"a":1e200000}': "number_out_of_range",
    b'{"a":1e' + b"9" * 30 + b"}": "number_out_of_range",
    b'{"a":' + b"7" * 5000 + b"}": "number_out_of_range",
    b'{"a":' * 9 + b"1" + b"}" * 9: "too_deep",
    b'{"a":"' + b"x" * 1025 + b'"}': "text_too_long",
    b'{"' + b"k" * 129 + b'":1}': "key_too_long",
    b'{"a.b":1,"a":{"b":2}}': "ambiguous_metric",
    json.dumps({f"k{n}": n for n in range(257)}).encode(): "too_many_metrics",
    b"null": "bad_field",
    b"[]": "bad_field",
}
# Members that are refused alone: the JSON text and the code.
INVALID_MEMBERS: dict[bytes, str] = {
    b"{}": "bad_field",
    b"[]": "bad_field",
    b"3": "bad_field",
    b"null": "bad_field",
    b'"{}"': "bad_field",
    b'{"timestamp":7,"metrics":{}}': "bad_timestamp",
    b'{"timestamp":"yesterday","metrics":{}}': "bad_timestamp",
    b'{"timestamp":"9999-12-31T23:59:59Z","metrics":{}}': "timestamp_ahead",
}
GOOD = b'{"a":1}'


def member(metrics: bytes, ago_s: int = 0) -> bytes:
    """A snapshot within a backlog."""
    at = (datetime.now(UTC) - timedelta(seconds=ago_s)).isoformat()
    return b'{"timestamp":"%s","metrics":%s}' % (at.encode(), metrics)


def mixed() -> list[bytes]:
    """Refused members, each between two that are stored."""
    bad = [*map(member, BAD_METRICS), *INVALID_MEMBERS]
    return [member(GOOD, len(bad)), *(each for ago_s, text in enumerate(bad) for each in (text, member(GOOD, ago_s)))]


def backlog(install: Install, members: Sequence[bytes]) -> bytes:
    """A complete signed backlog of these members."""
    body = b'{"instance_id":"%s","snapshots":[%s]}' % (install.instance_id.encode(), b",".join(members))
    return signed("/v1/snapshots", install, body)


# The JSON texts of the members, and the response.
BACKLOGS: dict[str, tuple[Sequence[bytes], Verdict]] = {
    "no members": ([], STORED),
    "a member of 80,000 keys": (
        [member(json.dumps({str(n): 0 for n in range(80_000)}, separators=(",", ":")).encode())],
        STORED,
    ),
    "101 members": ([b"{}"] * 101, (400, "too_many_snapshots")),
    "300,000 members": ([b"{}"] * 300_000, (400, "too_many_snapshots")),
    "a member that is NaN": ([b"NaN"], (400, "bad_json")),
    "a member with NaN in it": ([member(b'{"a":NaN}')], (400, "bad_json")),
    "a member with a lone surrogate in it": ([member(rb'{"a":"\ud800"}')], (400, "bad_json")),
    "a member with a byte that is not UTF-8 in it": ([member(b'{"a":"\xff"}')], (400, "bad_json")),
    "a member 10,000 levels deep": ([b"[" * 10_000 + b"]" * 10_000], (400, "too_deep")),
    "a member 500,000 levels deep": ([b"[" * 500_000], (400, "too_deep")),
    "two megabytes": ([member(GOOD)] * 32_000, (413, "body_too_large")),
}
BODIES: dict[str, tuple[bytes, Verdict]] = {
    "nothing": (b"", (400, "bad_json")),
    "an array": (b"[]", (400, "bad_field")),
    "a BOM before the object": (b"\xef\xbb\xbf{}", (400, "bad_json")),
    "an empty object": (b"{}", (400, "bad_field")),
    "a megabyte of spaces": (b" " * 1_048_576, (400, "bad_json")),
    "one byte more than a megabyte": (b" " * 1_048_577, (413, "body_too_large")),
}


def backlog_of(members: Sequence[bytes]) -> Callable[[Install], bytes]:
    """A backlog of these members."""
    return lambda install: backlog(install, members)


def with_body(body: bytes) -> Callable[[Install], bytes]:
    """Exactly this body, signed."""
    return lambda install: signed("/v1/snapshots", install, body)


CASES: tuple[Case, ...] = (
    *(
        Case(f"a backlog: {name}", backlog_of(members), (verdict,), stores=0)
        for name, (members, verdict) in BACKLOGS.items()
    ),
    *(Case(f"/v1/snapshots: {name}", with_body(body), (verdict,)) for name, (body, verdict) in BODIES.items()),
    Case(
        "a backlog: bad members between good ones",
        lambda install: backlog(install, mixed()),
        (STORED,),
        stores=len(BAD_METRICS) + len(INVALID_MEMBERS) + 1,
        shows={"a": 1},
    ),
    Case(
        "a backlog: the same member a hundred times",
        lambda install: backlog(install, [member(GOOD)] * 100),
        (STORED,),
        shows={"a": 1},
    ),
)
