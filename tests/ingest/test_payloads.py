"""The pure part of the protocol: headers and bodies become values or refusals."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm.core.errors import BadRequest, Forbidden, Refusal, Unauthorized
from shm.core.settings import Settings
from shm.ingest import payloads, signatures
from tests.support.installs import Install

LIMITS = Settings()
NOW = datetime(2026, 11, 23, 21, 45, tzinfo=UTC)
WIRE = Path(__file__).parent.parent / "wire"
RECORDINGS = sorted(WIRE.glob("official-*.json"))


def parse(install: Install, body: bytes) -> payloads.Snapshot:
    """Parses a body that `install` signed."""
    headers = signatures.SignatureHeaders(install.instance_id, install.key.sign(body).signature)
    return payloads.parse_snapshot(signatures.verify_body(headers, install.key.verify_key.encode(), body), NOW, LIMITS)


def refusal_of(metrics: str, install: Install | None = None) -> Refusal:
    """The refusal of a snapshot whose metrics are this JSON text."""
    install = install or Install("")
    body = b'{"instance_id":"%s","timestamp":"2026-11-23T21:44:00Z","metrics":%s}' % (
        install.instance_id.encode(),
        metrics.encode("utf-8", "surrogatepass"),
    )
    with pytest.raises(Refusal) as raised:
        parse(install, body)
    return raised.value


def read_recording(file: Path) -> tuple[payloads.Registration, list[tuple[signatures.SignatureHeaders, bytes]]]:
    """A recording's registration and its signed requests."""
    requests = json.loads(file.read_text())["requests"]
    signed = []
    for request in requests[1:]:
        headers = {name.lower(): value for name, value in request["headers"].items()}
        claimed = signatures.parse_signature_headers(headers["x-instance-id"], headers["x-signature"])
        signed.append((claimed, request["body"].encode()))
    return payloads.parse_registration(requests[0]["body"].encode(), LIMITS), signed


@pytest.mark.parametrize("file", RECORDINGS, ids=lambda file: file.stem)
def test_a_recorded_snapshot_of_an_official_client_is_parsed(file: Path) -> None:
    registration, [(activate, activate_body), (headers, body)] = read_recording(file)
    assert registration.app_slug == "cafe-ledger"
    signed = signatures.verify_body(activate, registration.public_key, activate_body)
    assert payloads.parse_activation(signed, NOW, LIMITS) is None
    snapshot = payloads.parse_snapshot(signatures.verify_body(headers, registration.public_key, body), NOW, LIMITS)
    sent = json.loads(body)
    assert json.loads(bytes(snapshot.flattened.metrics)) == sent["metrics"]
    leaves = json.loads(bytes(snapshot.flattened.leaves or snapshot.flattened.metrics))
    assert leaves["revenue_eur"] == 99120.55
    assert "nothing" not in leaves
    assert "nested.a" not in leaves


@pytest.mark.parametrize("file", RECORDINGS, ids=lambda file: file.stem)
def test_a_recorded_snapshot_with_any_one_byte_changed_is_refused(file: Path) -> None:
    registration, [_, (headers, body)] = read_recording(file)
    for position in range(len(body)):
        altered = bytearray(body)
        altered[position] ^= 1
        with pytest.raises(Forbidden):
            signatures.verify_body(headers, registration.public_key, bytes(altered))


def test_a_snapshot_signed_by_another_install_is_refused() -> None:
    attacker, victim = Install(""), Install("")
    body = victim.snapshot_body({"a": 1}, NOW)
    headers = signatures.SignatureHeaders(attacker.instance_id, attacker.key.sign(body).signature)
    with pytest.raises(Forbidden) as raised:
        payloads.parse_snapshot(signatures.verify_body(headers, attacker.key.verify_key.encode(), body), NOW, LIMITS)
    assert raised.value.code == "instance_mismatch"


@pytest.mark.parametrize(
    ("metrics", "code"),
    [
        ('{"a": "\\u0000"}', "nul_character"),
        ('{"\\u0000": 1}', "nul_character"),
        ('{"a": "\\ud800"}', "bad_json"),
        ('{"a": "\\ud800 "}', "bad_json"),
        ('{"a": NaN}', "bad_json"),
        ('{"a": -Infinity}', "bad_json"),
        ('{"a": 1e400}', "number_out_of_range"),
        ('{"a": 1e200000}', "number_out_of_range"),
        ('{"a": 1e-400}', "number_out_of_range"),
        ('{"a": 1e309}', "number_out_of_range"),
        ('{"a": 1e-324}', "number_out_of_range"),
        ('{"a": 1e' + "9" * 30 + "}", "number_out_of_range"),
        ('{"a": ' + "1" * 5000 + "}", "number_out_of_range"),
        ('{"a": ' + "1" * 1000 + "}", "number_out_of_range"),
        ('{"a": [1e400]}', "number_out_of_range"),
        ('{"a": 0e-16000}', "number_out_of_range"),
        ('{"a": [' + "0," * 300 + "0]}", "too_many_metrics"),
        ('{"a": "' + "x" * 1025 + '"}', "text_too_long"),
        ('{"' + "k" * 129 + '": 1}', "key_too_long"),
        ('{"a":' * 9 + "1" + "}" * 9, "too_deep"),
        ('{"a":' + "[" * 5000 + "]" * 5000 + "}", "too_deep"),
        ('{"a.b": 1, "a": {"b": 2}}', "ambiguous_metric"),
        (json.dumps({f"k{n}": n for n in range(257)}), "too_many_metrics"),
        ("[1]", "bad_field"),
        ("3", "bad_field"),
        ("null", "bad_field"),
    ],
)
def test_invalid_metrics_are_refused_with_a_code(metrics: str, code: str) -> None:
    assert refusal_of(metrics).code == code


@pytest.mark.parametrize(
    ("timestamp", "code"),
    [
        ("2026-11-23T21:50:01Z", "timestamp_ahead"),
        ("2026-10-24T21:44:59Z", "timestamp_too_old"),
        ("2026-11-23T21:45:00", "bad_timestamp"),
        ("2026-11-23T21:45:60Z", "bad_timestamp"),
        ("0000-01-01T00:00:00Z", "bad_timestamp"),
        ("0001-01-01T00:00:00+10:00", "bad_timestamp"),
        ("10000-01-01T00:00:00Z", "bad_timestamp"),
        ("yesterday", "bad_timestamp"),
        ("", "bad_timestamp"),
    ],
)
def test_an_invalid_timestamp_is_refused_with_a_code(timestamp: str, code: str) -> None:
    install = Install("")
    with pytest.raises(BadRequest) as raised:
        parse(install, install.snapshot_body({}, timestamp))
    assert raised.value.code == code


@pytest.mark.parametrize(
    "timestamp",
    ["2026-11-23T21:44:00.123456789Z", "2026-11-23T22:44:00.123456789+01:00", "2026-11-23t21:44:00.123457z"],
)
def test_a_timestamp_may_have_nanoseconds_and_an_offset(timestamp: str) -> None:
    install = Install("")
    snapshot_at = parse(install, install.snapshot_body({}, timestamp)).snapshot_at
    assert snapshot_at == datetime(2026, 11, 23, 21, 44, 0, 123457, tzinfo=UTC)


@pytest.mark.parametrize("timestamp", ["2026-10-31T23:59:60Z", "2026-10-31T15:59:60-08:00"])
def test_a_leap_second_becomes_the_first_second_of_the_next_month(timestamp: str) -> None:
    install = Install("")
    snapshot_at = parse(install, install.snapshot_body({}, timestamp)).snapshot_at
    assert snapshot_at == datetime(2026, 11, 1, tzinfo=UTC)


@pytest.mark.parametrize("field", [b',"x":"\xff"', b',"\xff":1'])
def test_invalid_utf8_in_an_unknown_field_is_refused(field: bytes) -> None:
    install = Install("")
    with pytest.raises(BadRequest) as raised:
        parse(install, install.snapshot_body({}, NOW)[:-1] + field + b"}")
    assert raised.value.code == "bad_json"


def test_numbers_keep_all_their_digits() -> None:
    install = Install("")
    text = '{"big": 123456789012345678901234567890, "small": 0.10000000000000000000001, "price": 1.50}'
    body = b'{"instance_id":"%s","timestamp":"2026-11-23T21:44:00Z","metrics":%s}' % (
        install.instance_id.encode(),
        text.encode(),
    )
    snapshot = parse(install, body)
    assert bytes(snapshot.flattened.metrics).decode() == text.replace(": ", ":").replace(", ", ",")
    assert b"123456789012345678901234567890" in bytes(snapshot.flattened.leaves or snapshot.flattened.metrics)
    assert b"0.10000000000000000000001" in bytes(snapshot.flattened.leaves or snapshot.flattened.metrics)
    assert b"1.50" in bytes(snapshot.flattened.leaves or snapshot.flattened.metrics)


@pytest.mark.parametrize(
    ("instance_id", "signature"),
    [
        (None, "00" * 64),
        ("c77af682-9aa4-412e-904a-c307d3a8a9c2", None),
        ("c77af682-9aa4-412e-904a-c307d3a8a9c", "00" * 64),
        ("c77af682-9aa4-412e-904a-c307d3a8a9c2", "0" * 127),
        ("c77af682-9aa4-412e-904a-c307d3a8a9c2", "g" * 128),
    ],
)
def test_invalid_signature_headers_are_refused(instance_id: str | None, signature: str | None) -> None:
    is_missing = not instance_id or not signature
    with pytest.raises(Unauthorized if is_missing else Forbidden):
        signatures.parse_signature_headers(instance_id, signature)


def test_hex_digits_may_be_upper_case() -> None:
    install = Install("")
    body = install.snapshot_body({}, NOW)
    headers = signatures.parse_signature_headers(
        install.instance_id.upper(), install.key.sign(body).signature.hex().upper()
    )
    assert signatures.verify_body(headers, install.key.verify_key.encode(), body).instance_id == install.instance_id


def test_a_key_of_small_order_verifies_nothing() -> None:
    with pytest.raises(Forbidden):
        signatures.verify_body(signatures.SignatureHeaders("", bytes(64)), bytes(32), b"{}")


@pytest.mark.parametrize(
    "change",
    [
        {"instance_id": "x"},
        {"public_key": "0" * 63},
        {"public_key": "0" * 65},
        {"public_key": "z" * 64},
        {"public_key": "0" * 64},
        {"public_key": "f" * 64},
        {"app_name": "  "},
        {"app_name": "x" * 257},
        {"app_name": "a\0b"},
        {"app_version": 3},
    ],
)
def test_an_invalid_registration_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        payloads.parse_registration(Install("").registration(**change), LIMITS)


def test_of_two_equal_keys_only_the_last_is_validated_and_stored() -> None:
    install = Install("")
    body = install.snapshot_body("METRICS", NOW).replace(b'"METRICS"', b'{"a": "\\u0000", "a": 1e200000, "a": 1}')
    snapshot = parse(install, body)
    assert bytes(snapshot.flattened.metrics) == b'{"a":1}'
    assert snapshot.flattened.leaves is None  # equal to the metrics


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=20,
)


@given(value=json_values)
def test_any_signed_json_is_parsed_or_refused(value: Any) -> None:
    install = Install("")
    body = install.snapshot_body(value, NOW - timedelta(seconds=1))
    try:
        snapshot = parse(install, body)
    except Refusal:
        return
    assert json.loads(bytes(snapshot.flattened.metrics)) == value


@given(body=st.binary(max_size=200))
def test_any_signed_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(Refusal):
        parse(Install(""), body)
