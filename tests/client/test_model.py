"""Decoding of the server's responses: every digit is kept, and invalid responses are rejected."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm_client.errors import InvalidResponseError
from shm_client.messages import (
    HelloMessage,
    InstanceMessage,
    KpisMessage,
    RemovedMessage,
    ResyncMessage,
    decode_message,
)
from shm_client.model import MAX_EXPONENT, Instance, Kpi, decode, flatten_metrics
from shm_client.plain_json import MAX_INT_DIGITS


def decode_metrics(text: str) -> dict[str, Any]:
    """The metrics of an instance whose metrics object is `text`."""
    instance: Instance = decode(f'{{"instance_id": "a", "status": "active", "metrics": {text}}}', Instance)
    return instance.metrics


@given(st.integers())
def test_an_integer_keeps_every_digit(number: int) -> None:
    assert decode_metrics(f'{{"k": {number}}}') == {"k": number}


@given(st.decimals(allow_nan=False, allow_infinity=False, places=9))
def test_a_decimal_keeps_every_digit_and_its_zeros(number: Decimal) -> None:
    (read,) = decode_metrics(f'{{"k": {number:f}}}').values()
    assert f"{read:f}" == f"{number:f}"


def test_money_is_not_rounded_through_a_float() -> None:
    assert str(decode_metrics('{"k": 99120331.50}')["k"]) == "99120331.50"
    assert str(decode_metrics('{"k": 12345678901234567.89}')["k"]) == "12345678901234567.89"


@pytest.mark.parametrize("digits", [MAX_INT_DIGITS, MAX_INT_DIGITS + 1, 100_000])
def test_a_huge_integer_is_decoded_in_linear_time(digits: int) -> None:
    (read,) = decode_metrics(f'{{"k": {"7" * digits}}}').values()
    assert isinstance(read, int if digits <= MAX_INT_DIGITS else Decimal)
    assert Decimal(read).adjusted() == digits - 1


@pytest.mark.parametrize(
    "number", [f"1e{MAX_EXPONENT + 1}", "9.999e999999999999999999", "1e-1000000000000000015", f"1e{'9' * 40}"]
)
def test_a_number_with_a_huge_exponent_stays_text(number: str) -> None:
    assert decode_metrics(f'{{"k": {number}}}') == {"k": number}


def test_the_numbers_of_a_kpi_keep_their_digits() -> None:
    kpi: Kpi = decode('{"key": "k", "value": 36893488147419103232, "p50": 0.10}', Kpi)
    assert (kpi.value, str(kpi.p50)) == (2**65, "0.10")


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_nan_and_infinity_are_rejected(constant: str) -> None:
    with pytest.raises(InvalidResponseError, match=constant):
        decode(f'{{"key": "k", "value": {constant}}}', Kpi)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>login</html>",
        b"\xff\xfe\xfd",
        b"null",
        b"[]",
        b'{"status": "active"}',
        b'{"instance_id": 5, "status": "active"}',
        b'{"instance_id": "a", "status": "active", "metrics": null}',
        b'{"instance_id": "a", "status": "active", "last_seen_at": "yesterday"}',
        b'{"instance_id": "a", "status": "active", "last_seen_at": "2026-03-01T12:00:00"}',
        b"[" * 200_000,
    ],
    ids=lambda body: repr(body[:60]),
)
def test_an_invalid_response_raises_one_sentence(body: bytes) -> None:
    with pytest.raises(InvalidResponseError, match="the server sent an invalid response: ") as caught:
        decode(body, Instance)
    assert "\n" not in str(caught.value)


def test_strings_are_unchanged_without_a_sanitizer() -> None:
    body = json.dumps({"instance_id": "a", "status": "active", "app_name": "L\x1b[2J"})
    sent: Instance = decode(body, Instance)
    sanitized: Instance = decode(body, Instance, Replacing())
    assert (sent.app_name, sanitized) == ("L\x1b[2J", Instance("b", "<class 'dict'>"))


class Replacing:
    """A sanitizer that returns another value for every one."""

    keeps_plain_text = False

    def __call__(self, value: object) -> object:
        return {"instance_id": "b", "status": str(type(value))}


def test_a_plain_body_is_sanitized_if_the_sanitizer_asks_for_it() -> None:
    body = '{"instance_id": "a", "status": "active"}'
    assert decode(body, Instance, Replacing()) == Instance("b", "<class 'dict'>")


NUMBERS = st.integers() | st.decimals(allow_nan=False, allow_infinity=False) | st.integers(10**78, 10**83)
TEXTS = st.text(st.characters(max_codepoint=300)) | st.sampled_from(["}", "x" * 1024, "x" * 1025, "\\", '"'])
LEAVES = st.none() | st.booleans() | TEXTS | NUMBERS.map(lambda number: Number(f"{number}"))
METRICS = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3))


class Number(str):
    """The digits of a number, which `to_json` writes as they are."""


def to_json(value: object) -> str:
    """A JSON text without escapes where it can be."""
    if isinstance(value, Number):
        return value
    if isinstance(value, dict):
        return "{" + ",".join(f"{to_json(key)}: {to_json(inner)}" for key, inner in value.items()) + "}"
    return f"[{', '.join(map(to_json, value))}]" if isinstance(value, list) else json.dumps(value, ensure_ascii=False)


class Passing:
    """A sanitizer that changes nothing, and that no value passes by."""

    keeps_plain_text = False

    def __call__(self, value: object) -> object:
        return value


@given(st.dictionaries(TEXTS, METRICS, max_size=4))
def test_a_plain_body_is_decoded_like_any_other(metrics: dict[str, object]) -> None:
    instance = f'{{"instance_id": "a", "status": "active", "metrics": {to_json(metrics)}}}'
    body = f'{{"type": "instance", "cursor": 1, "instance": {instance}}}'
    assert repr(decode_message(body)) == repr(decode_message(body, Passing()))


def test_additions_of_a_newer_server_are_ignored() -> None:
    instance: Instance = decode('{"instance_id": "a", "status": "active", "mood": "sunny"}', Instance)
    assert instance.instance_id == "a"
    assert decode_message('{"type": "weather", "cursor": 1}') is None


@pytest.mark.parametrize("message_type", ["[]", "{}", "1", "null"])
def test_a_message_type_that_is_not_a_string_is_unknown(message_type: str) -> None:
    assert decode_message(f'{{"type": {message_type}}}') is None


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ('{"type": "hello", "cursor": 7, "heartbeat_s": 15}', HelloMessage(7)),
        (
            '{"type": "instance", "cursor": 8, "instance": {"instance_id": "a", "status": "pending"}}',
            InstanceMessage(8, Instance("a", "pending")),
        ),
        ('{"type": "removed", "cursor": 9, "instance_id": "a"}', RemovedMessage(9, "a")),
        ('{"type": "kpis", "cursor": 10, "app": "ledger", "kpis": [{"key": "k", "value": 0.10}]}', None),
        ('{"type": "resync", "reason": "too old"}', ResyncMessage("too old")),
    ],
    ids=["hello", "instance", "removed", "kpis", "resync"],
)
def test_each_message_of_the_feed_is_decoded(message: str, expected: object) -> None:
    decoded = decode_message(message)
    if expected is None:
        assert isinstance(decoded, KpisMessage)
        assert (decoded.app, decoded.cursor, str(decoded.kpis[0].value)) == ("ledger", 10, "0.10")
    else:
        assert decoded == expected


@pytest.mark.parametrize(
    "message", ['{"type": "removed", "cursor": "x", "instance_id": "a"}', '{"type": "hello"}', "[]", "x"]
)
def test_an_invalid_message_raises(message: str) -> None:
    with pytest.raises(InvalidResponseError):
        decode_message(message)


def test_nested_keys_are_joined_by_dots_and_lists_kept() -> None:
    metrics = {"mail": {"sent": 3, "by": {"smtp": 2}}, "tags": [1, {"a": 2}], "none": None, "empty": {}}
    assert dict(flatten_metrics(metrics)) == {"mail.sent": 3, "mail.by.smtp": 2, "tags": [1, {"a": 2}], "none": None}
