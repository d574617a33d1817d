"""What a provider returns becomes a body that the server takes, whatever it returned."""

import json
import math
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from enum import IntEnum, StrEnum
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from shm.core.settings import Settings
from shm.ingest import envelope
from shm_sdk.snapshot import DEEPEST, LARGEST_BODY, LONGEST_KEY, LONGEST_TEXT, MOST_METRICS, Json, body, clean

INSTANCE = str(uuid.uuid4())
KEY = SigningKey.generate()
LIMITS = Settings()


def accepted(metrics: Mapping[str, Json]) -> envelope.Snapshot:
    """What the server makes of these metrics; raises what it would refuse them with."""
    now = datetime.now(UTC)
    sent = body(INSTANCE, now.isoformat().replace("+00:00", "Z"), metrics, "1.4.2", 1)
    assert len(sent) <= LIMITS.max_body
    proof = envelope.proof(INSTANCE, KEY.sign(sent).signature.hex())
    return envelope.snapshot(envelope.verify(proof, bytes(KEY.verify_key), sent), now, LIMITS)


class Hostile:
    """Fails when it is looked at."""

    def __getattribute__(self, name: str) -> object:
        if name in ("__index__", "__float__"):
            raise RuntimeError(name)
        return super().__getattribute__(name)


class HostileMapping(Mapping[str, object]):
    """A mapping that fails while it is read."""

    def __getitem__(self, key: str) -> object:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        yield "one"
        raise RuntimeError("changed while it was read")

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
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=6), st.tuples(inner)),
    max_leaves=40,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(keys, values, max_size=12))
def test_whatever_a_provider_returns_the_server_takes_what_is_left(metrics: dict[object, object]) -> None:
    accepted(clean(metrics).metrics)


def test_plain_json_goes_through_unchanged() -> None:
    metrics = {
        "n": 1,
        "x": 1.5,
        "flag": True,
        "none": None,
        "text": "é<&>",
        "list": [1, "a", None],
        "deep": {"a": {"b": -7}},
    }
    cleaned = clean(metrics)
    assert (cleaned.metrics, cleaned.dropped) == (metrics, [])
    assert json.loads(bytes(accepted(cleaned.metrics).metrics)) == metrics


def test_numbers_of_other_libraries_keep_their_value() -> None:
    cleaned = clean(
        {"sum": Decimal(10), "half": Decimal("0.5"), "third": Fraction(1, 3), "level": Level.HIGH, "c": Colour.RED}
    )
    assert cleaned.metrics == {"sum": 10, "half": 0.5, "third": 1 / 3, "level": 3, "c": "red"}
    assert clean({"huge": Decimal(2**60 + 1)}).metrics == {"huge": 2**60 + 1}


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -math.inf, Decimal("NaN"), 10**400, object(), b"x", {1, 2}, datetime.now(UTC), 1j, Hostile()],
)
def test_what_is_no_json_is_left_out_and_the_rest_goes(value: object) -> None:
    cleaned = clean({"before": 1, "bad": value, "in": {"bad": value, "good": 2}, "list": [1, value], "after": 3})
    assert cleaned.metrics == {"before": 1, "in": {"good": 2}, "after": 3}
    assert len(cleaned.dropped) == 3


def test_counters_keyed_by_an_integer_go_under_its_text() -> None:
    assert clean({"answers": {200: 5, 404: 1, True: 1, None: 2, 1.5: 3}}).metrics == {"answers": {"200": 5, "404": 1}}


def test_the_first_256_metrics_go_and_the_others_are_named() -> None:
    cleaned = clean({f"metric_{number}": number for number in range(MOST_METRICS + 2)})
    assert list(cleaned.metrics.values()) == list(range(MOST_METRICS))
    assert [line.split(":")[0] for line in cleaned.dropped] == ["metric_256", "metric_257"]


def test_long_texts_are_cut_and_long_keys_left_out() -> None:
    group = "g" * 100
    cleaned = clean(
        {"text": "x" * 5000, "k" * LONGEST_KEY: 1, "k" * (LONGEST_KEY + 1): 2, group: {"a" * 27: 3, "a" * 28: 4}}
    )
    assert cleaned.metrics == {"text": "x" * LONGEST_TEXT, "k" * LONGEST_KEY: 1, group: {"a" * 27: 3}}
    accepted(cleaned.metrics)


def test_nesting_ends_at_the_depth_that_the_server_reads() -> None:
    def nested(levels: int) -> dict[str, object]:
        return {"a": 1} if levels == 1 else {"a": nested(levels - 1)}

    assert clean(nested(DEEPEST)).metrics == nested(DEEPEST)
    assert len(clean(nested(DEEPEST + 1)).dropped) == 1
    accepted(clean(nested(DEEPEST)).metrics)


def test_a_structure_that_contains_itself_comes_to_an_end() -> None:
    wide: dict[str, object] = {"n": 1}
    wide.update({f"self_{number}": wide for number in range(50)})
    endless: list[object] = []
    endless.append(endless)
    accepted(clean({"wide": wide, "endless": endless, "last": 1}).metrics)


def test_a_key_said_twice_once_with_a_dot_goes_once() -> None:
    cleaned = clean({"mail.sent": 1, "mail": {"sent": 2, "read": 3}})
    assert cleaned.metrics == {"mail.sent": 1, "mail": {"read": 3}}


def test_the_largest_metrics_give_way_when_the_body_would_be_too_large() -> None:
    metrics: dict[object, object] = {
        "small": 1,
        **{f"text_{number}": "€" * LONGEST_TEXT for number in range(40)},
        "late": 2,
    }
    cleaned = clean(metrics)
    assert {"small", "late"} < cleaned.metrics.keys()
    assert 18 < len(cleaned.metrics) < 42
    assert len(body(INSTANCE, "x" * 40, cleaned.metrics, "v" * 256, 2**62)) <= LARGEST_BODY


def test_characters_that_no_database_takes_become_question_marks() -> None:
    assert clean({"text": "a\0b\ud800c"}).metrics == {"text": "a?b?c"}
