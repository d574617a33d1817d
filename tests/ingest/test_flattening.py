"""Flattening of the metrics object, and its limits."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from shm.core.errors import BadRequest
from shm.core.settings import Settings
from shm.ingest import flattening


def aggregated(metrics: dict[str, Any]) -> Any:
    """The aggregated leaves of a metrics object."""
    flattened = flattening.flatten(metrics, Settings())
    return msgspec.json.decode(flattened.metrics if flattened.leaves is None else flattened.leaves)


def test_nested_keys_are_joined_by_dots() -> None:
    assert aggregated({"mail": {"sent": 3, "by": {"smtp": True}}, "e": {}}) == {"mail.sent": 3, "mail.by.smtp": True}


def test_long_strings_arrays_and_nulls_are_stored_but_not_aggregated() -> None:
    metrics: dict[str, Any] = {"short": "x" * 64, "long": "x" * 65, "list": [1, {"x": 2}], "none": None, "no": False}
    assert aggregated(metrics) == {"short": "x" * 64, "no": False}
    assert msgspec.json.decode(flattening.flatten(metrics, Settings()).metrics) == metrics


@pytest.mark.parametrize(
    ("metrics", "code"),
    [
        ({"a": [[[[[[[[1]]]]]]]]}, "too_deep"),
        ({"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": {"i": 1}}}}}}}}}, "too_deep"),
        ({"a": list(range(257))}, "too_many_metrics"),
        ({"a": [{str(n): n for n in range(257)}]}, "too_many_metrics"),
        ({"a": [{"x" * 1025: 1}]}, "text_too_long"),
        ({f"k{n}": {} for n in range(257)}, "too_many_metrics"),
        ({"a": {"b": {str(n): {} for n in range(257)}}}, "too_many_metrics"),
        ({"a": ["\0"]}, "nul_character"),
        ({"a": [{"\0": 1}]}, "nul_character"),
        ({"\0": {}}, "nul_character"),
        ({"x" * 129: {}}, "key_too_long"),
        ({"a": [10**400]}, "number_out_of_range"),
        ({"a": [{"b": 10**400}]}, "number_out_of_range"),
        ({"a.b": 1, "a": {"b": None}}, "ambiguous_metric"),
    ],
)
def test_limits_apply_to_nested_values(metrics: dict[str, Any], code: str) -> None:
    with pytest.raises(BadRequest) as raised:
        flattening.flatten(metrics, Settings())
    assert raised.value.code == code


@pytest.mark.parametrize("key", ["k" * 1000, "\x1b]52;c;\u202e" * 100, "\U0001f600" * 1000])
def test_a_refusal_abbreviates_the_key_to_one_line_of_ascii(key: str) -> None:
    with pytest.raises(BadRequest) as raised:
        flattening.flatten({key: 1}, Settings())
    assert len(raised.value.detail) < 120
    assert raised.value.detail.isprintable()
    assert raised.value.detail.replace("…", "").isascii()


@pytest.mark.parametrize("number", [Decimal("1.7976931348623157e308"), Decimal("-5e-324"), 10**308])
def test_numbers_in_the_range_of_a_double_are_stored(number: int | Decimal) -> None:
    assert msgspec.json.decode(flattening.flatten({"a": number}, Settings()).metrics, type=dict[str, Decimal]) == {
        "a": number
    }
