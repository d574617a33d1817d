"""The server accepts the sanitized metrics of any provider."""

import json
import math
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from enum import IntEnum, StrEnum
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from shm.core.settings import Settings
from shm.ingest import payloads, signatures
from shm_sdk.snapshot import (
    MAX_BODY_BYTES,
    MAX_DEPTH,
    MAX_KEY_CHARS,
    MAX_METRICS,
    Json,
    build_body,
    mark_ephemeral,
    sanitize,
)
from shm_sdk.values import MAX_STRING_CHARS

INSTANCE = str(uuid.uuid4())
KEY = SigningKey.generate()
LIMITS = Settings()


def accept(metrics: Mapping[str, Json]) -> payloads.Snapshot:
    """The snapshot that the server reads from these metrics; raises the server's refusal."""
    now = datetime.now(UTC)
    content = build_body(INSTANCE, now.isoformat().replace("+00:00", "Z"), metrics, "1.4.2", 1)
    assert len(content) <= LIMITS.max_body
    proof = signatures.parse_signature_headers(INSTANCE, KEY.sign(content).signature.hex())
    return payloads.parse_snapshot(signatures.verify_body(proof, bytes(KEY.verify_key), content), now, LIMITS)


class Hostile:
    """Raises when it is converted to a number."""

    def __getattribute__(self, name: str) -> object:
        if name in ("__index__", "__float__"):
            raise RuntimeError(name)
        return super().__getattribute__(name)


class HostileMapping(Mapping[str, object]):
    """A mapping that raises during iteration."""

    def __getitem__(self, key: str) -> object:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        yield "one"
        raise RuntimeError("changed during iteration")

    def __len__(self) -> int:
        return 1


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(10**400), max_value=10**400),
    st.floats(),
    st.text(st.characters(), max_size=40),
    st.text(st.characters(categories=["Cs", "Cc"]), max_size=5),
    st.sampled_from(["x" * 3000, "é€\0" * 1000, "😀" * 1024]),
    st.decimals(),
    st.fractions(),
    st.complex_numbers(),
    st.binary(max_size=5),
    st.datetimes(),
    st.just(Hostile()),
    st.just(HostileMapping()),
    st.sets(st.integers(), max_size=2),
)
keys = st.one_of(
    st.text(max_size=10), st.text("ab.", max_size=4), st.text(min_size=100, max_size=140), st.integers(), st.none()
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=1).map(lambda items: items * 150),
        st.dictionaries(keys, inner, max_size=6),
        st.tuples(inner),
    ),
    max_leaves=40,
)


@pytest.mark.parametrize(
    "max_examples", [pytest.param(15, id="short"), pytest.param(2_000, id="long", marks=pytest.mark.long)]
)
def test_the_server_accepts_sanitized_metrics(max_examples: int) -> None:
    @settings(max_examples=max_examples)
    @given(st.dictionaries(keys, values, max_size=12))
    def check(metrics: dict[object, object]) -> None:
        accept(sanitize(metrics).metrics)

    check()


def test_plain_json_is_unchanged() -> None:
    metrics = {
        "n": 1,
        "x": 1.5,
        "flag": True,
        "none": None,
        "text": "é<&>",
        "list": [1, "a", None],
        "deep": {"a": {"b": -7}},
    }
    sanitized = sanitize(metrics)
    assert (sanitized.metrics, sanitized.dropped) == (metrics, [])
    assert json.loads(bytes(accept(sanitized.metrics).flattened.metrics)) == metrics


def test_numbers_of_other_libraries_keep_their_value() -> None:
    sanitized = sanitize(
        {"sum": Decimal(10), "half": Decimal("0.5"), "third": Fraction(1, 3), "level": Level.HIGH, "c": Colour.RED}
    )
    assert sanitized.metrics == {"sum": 10, "half": 0.5, "third": 1 / 3, "level": 3, "c": "red"}
    assert sanitize({"huge": Decimal(2**60 + 1)}).metrics == {"huge": 2**60 + 1}


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -math.inf, Decimal("NaN"), 10**400, object(), b"x", 1j, Hostile(), "ada@example.com"],
)
def test_values_that_are_not_json_are_dropped(value: object) -> None:
    sanitized = sanitize(
        {"before": 1, "bad": value, "in": {"bad": value, "good": 2}, "list": [1, value, 2], "after": 3}
    )
    assert sanitized.metrics == {"before": 1, "in": {"good": 2}, "list": [1, 2], "after": 3}
    assert sanitized.dropped[2].startswith("list[1]: ")
    assert len(sanitized.dropped) == 3


def test_integer_keys_become_strings() -> None:
    assert sanitize({"answers": {200: 5, 404: 1, True: 1, None: 2, 1.5: 3}}).metrics == {
        "answers": {"200": 5, "404": 1}
    }


def test_metrics_after_the_first_256_are_dropped() -> None:
    sanitized = sanitize({f"metric_{number}": number for number in range(MAX_METRICS + 2)})
    assert list(sanitized.metrics.values()) == list(range(MAX_METRICS))
    assert [line.split(":")[0] for line in sanitized.dropped] == ["metric_256", "metric_257"]


def test_values_in_arrays_count_as_the_server_counts_them() -> None:
    sanitized = sanitize({"long": list(range(300)), "deep": {"list": [[1, 2], {"a": [3]}] * 30}, "n": 1, "none": {}})
    assert list(sanitized.metrics) == ["deep", "n", "none"]
    assert "more than 256 values" in sanitized.dropped[0]
    accept(sanitized.metrics)
    full = sanitize({"list": list(range(MAX_METRICS - 3)), "empty": {}, "n": 1, "late": 2}).metrics
    assert list(full) == ["list", "empty", "n"]
    accept(full)
    assert list(mark_ephemeral(full)) == ["list", "empty", "sys_ephemeral"]
    accept(mark_ephemeral(full))


def test_long_strings_are_cut_and_long_keys_dropped() -> None:
    group = "g" * 100
    sanitized = sanitize(
        {"text": "x" * 5000, "k" * MAX_KEY_CHARS: 1, "k" * (MAX_KEY_CHARS + 1): 2, group: {"a" * 27: 3, "a" * 28: 4}}
    )
    assert sanitized.metrics == {"text": "x" * MAX_STRING_CHARS, "k" * MAX_KEY_CHARS: 1, group: {"a" * 27: 3}}
    accept(sanitized.metrics)


def test_the_maximum_depth_is_the_servers() -> None:
    def nested(levels: int) -> dict[str, object]:
        return {"a": 1} if levels == 1 else {"a": nested(levels - 1)}

    assert sanitize(nested(MAX_DEPTH)).metrics == nested(MAX_DEPTH)
    assert len(sanitize(nested(MAX_DEPTH + 1)).dropped) == 1
    accept(sanitize(nested(MAX_DEPTH)).metrics)


def test_a_structure_that_contains_itself_is_cut() -> None:
    wide: dict[str, object] = {"n": 1}
    wide.update({f"self_{number}": wide for number in range(50)})
    endless: list[object] = []
    endless.append(endless)
    accept(sanitize({"wide": wide, "endless": endless, "last": 1}).metrics)


def test_a_key_both_dotted_and_nested_is_sent_once() -> None:
    sanitized = sanitize({"mail.sent": 1, "mail": {"sent": 2, "read": 3}})
    assert sanitized.metrics == {"mail.sent": 1, "mail": {"read": 3}}


def test_the_largest_metrics_are_dropped_from_a_large_body() -> None:
    metrics: dict[object, object] = {
        "small": 1,
        **{f"text_{number}": "€" * MAX_STRING_CHARS for number in range(40)},
        "late": 2,
    }
    sanitized = sanitize(metrics)
    assert {"small", "late"} < sanitized.metrics.keys()
    assert 18 < len(sanitized.metrics) < 42
    assert len(build_body(INSTANCE, "x" * 40, sanitized.metrics, "v" * 256, 2**62)) <= MAX_BODY_BYTES


def test_characters_that_databases_reject_are_replaced() -> None:
    assert sanitize({"text": "a\0b\ud800c"}).metrics == {"text": "a?b?c"}
