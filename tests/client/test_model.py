"""The one door through which the server's answers come in: every digit kept, and nothing else let through."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shm_client.errors import AnswerError
from shm_client.messages import (
    HelloMessage,
    InstanceMessage,
    KpisMessage,
    RemovedMessage,
    ResyncMessage,
    decode_message,
)
from shm_client.model import MAX_EXPONENT, MAX_INT_DIGITS, Instance, Kpi, decode, leaves

unhurried = settings(deadline=None)  # a busy machine is no failure


def metrics(text: str) -> dict[str, Any]:
    """What `text` becomes as the metrics of an instance."""
    one: Instance = decode(f'{{"instance_id": "a", "status": "active", "metrics": {text}}}', Instance)
    return one.metrics


@unhurried
@given(st.integers())
def test_an_integer_keeps_every_digit(number: int) -> None:
    assert metrics(f'{{"k": {number}}}') == {"k": number}


@unhurried
@given(st.decimals(allow_nan=False, allow_infinity=False, places=9))
def test_a_decimal_keeps_every_digit_and_its_zeros(number: Decimal) -> None:
    (read,) = metrics(f'{{"k": {number:f}}}').values()
    assert f"{read:f}" == f"{number:f}"


def test_money_is_not_rounded_through_a_float() -> None:
    assert str(metrics('{"k": 99120331.50}')["k"]) == "99120331.50"
    assert str(metrics('{"k": 12345678901234567.89}')["k"]) == "12345678901234567.89"


@pytest.mark.parametrize("digits", [MAX_INT_DIGITS, MAX_INT_DIGITS + 1, 100_000])
def test_a_monstrous_integer_is_kept_without_being_converted_at_a_quadratic_cost(digits: int) -> None:
    (read,) = metrics(f'{{"k": {"7" * digits}}}').values()
    assert isinstance(read, int if digits <= MAX_INT_DIGITS else Decimal)
    assert Decimal(read).adjusted() == digits - 1


@pytest.mark.parametrize(
    "number", [f"1e{MAX_EXPONENT + 1}", "9.999e999999999999999999", "1e-1000000000000000015", f"1e{'9' * 40}"]
)
def test_an_exponent_beyond_reckoning_is_kept_as_its_text(number: str) -> None:
    assert metrics(f'{{"k": {number}}}') == {"k": number}


def test_the_figures_of_a_kpi_keep_their_digits_too() -> None:
    kpi: Kpi = decode('{"key": "k", "value": 36893488147419103232, "p50": 0.10}', Kpi)
    assert (kpi.value, str(kpi.p50)) == (2**65, "0.10")


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_what_json_does_not_have_is_not_an_answer(word: str) -> None:
    with pytest.raises(AnswerError, match=word):
        decode(f'{{"key": "k", "value": {word}}}', Kpi)


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
def test_an_answer_that_is_not_shms_is_an_answer_error_with_one_sentence(body: bytes) -> None:
    with pytest.raises(AnswerError, match="the server's answer is not what SHM says: ") as caught:
        decode(body, Instance)
    assert "\n" not in str(caught.value)


def test_texts_come_as_they_were_sent_unless_there_is_a_border() -> None:
    body = json.dumps({"instance_id": "a", "status": "active", "app_name": "L\x1b[2J"})
    sent: Instance = decode(body, Instance)
    bordered: Instance = decode(body, Instance, lambda value: {"instance_id": "b", "status": str(type(value))})
    assert (sent.app_name, bordered) == ("L\x1b[2J", Instance("b", "<class 'dict'>"))


def test_what_a_newer_server_adds_is_let_be() -> None:
    one: Instance = decode('{"instance_id": "a", "status": "active", "mood": "sunny"}', Instance)
    assert one.instance_id == "a"
    assert decode_message('{"type": "weather", "cursor": 1}') is None


@pytest.mark.parametrize("kind", ["[]", "{}", "1", "null"])
def test_a_type_that_is_no_word_is_none_of_the_known(kind: str) -> None:
    assert decode_message(f'{{"type": {kind}}}') is None


@pytest.mark.parametrize(
    ("message", "event"),
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
def test_each_message_of_the_feed_is_read(message: str, event: object) -> None:
    read = decode_message(message)
    if event is None:
        assert isinstance(read, KpisMessage)
        assert (read.app, read.cursor, str(read.kpis[0].value)) == ("ledger", 10, "0.10")
    else:
        assert read == event


@pytest.mark.parametrize(
    "message", ['{"type": "removed", "cursor": "x", "instance_id": "a"}', '{"type": "hello"}', "[]", "x"]
)
def test_a_message_that_is_broken_is_an_answer_error(message: str) -> None:
    with pytest.raises(AnswerError):
        decode_message(message)


def test_nested_metrics_are_joined_by_dots_and_lists_stay_whole() -> None:
    sent = {"mail": {"sent": 3, "by": {"smtp": 2}}, "tags": [1, {"a": 2}], "none": None, "empty": {}}
    assert dict(leaves(sent)) == {"mail.sent": 3, "mail.by.smtp": 2, "tags": [1, {"a": 2}], "none": None}
