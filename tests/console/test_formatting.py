"""The format of numbers, shares and times, especially at the boundaries between two units."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm_client.model import MAX_EXPONENT
from shm_tui.text.formatting import (
    DAY,
    HOUR,
    MAX_EXACT_DIGITS,
    UNKNOWN,
    age,
    compact,
    duration,
    exact,
    plural,
    share,
    timestamp,
    with_unit,
)
from tests.support.console_rows import NOW, ago

numbers = st.integers() | st.decimals(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, UNKNOWN),
        (0, "0"),
        (-7, "-7"),
        (834, "834"),
        (999, "999"),
        (1000, "1.00k"),
        (45_721, "45.7k"),
        (-45_721, "-45.7k"),
        (999_499, "999k"),
        (999_500, "1.00M"),
        (1_284_000, "1.28M"),
        (10**9, "1.00B"),
        (10**14, "100T"),
        (10**15, "1e15"),
        (31 * 10**19, "3.1e20"),
        (Decimal("0.5"), "0.500"),
        (Decimal("12.50"), "12.5"),
        (Decimal("12.0"), "12"),
        (Decimal("0.00"), "0"),
        (Decimal("999.4"), "999"),
        (Decimal("999.6"), "1.00k"),
        (Decimal("0.0040"), "0.004"),
        (Decimal("0.00012345"), "0.000123"),
        (Decimal("0.000012345"), "1.23e-5"),
        (Decimal("1E+3"), "1.00k"),
    ],
)
def test_a_compact_number_has_three_digits_and_a_unit(number: int | Decimal | None, text: str) -> None:
    assert compact(number) == text


@given(numbers)
def test_a_compact_number_is_narrow_and_precise_to_a_hundredth(number: int | Decimal) -> None:
    """It fits a narrow column, and its error is less than a hundredth."""
    text = compact(number)
    assert len(text) <= 8 + len(str(abs(Decimal(number).adjusted())))
    factor = {"k": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}.get(text[-1], 1)
    read = Decimal(text.rstrip("kMBT")) * factor
    assert abs(read - number) <= abs(Decimal(number)) / 100


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, UNKNOWN),
        (45_721, "45,721"),
        (-1_000, "-1,000"),
        (Decimal("99120331.50"), "99,120,331.50"),
        (Decimal("1E+3"), "1,000"),
        (10**21 + 1, "1,000,000,000,000,000,000,001"),
        (10 ** (MAX_EXACT_DIGITS + 1), "1.00e+121"),
    ],
)
def test_an_exact_number_keeps_every_digit_that_was_sent(number: int | Decimal | None, text: str) -> None:
    assert exact(number) == text


@given(st.integers(-(10**MAX_EXACT_DIGITS), 10**MAX_EXACT_DIGITS) | st.decimals(-(10**15), 10**15, places=6))
def test_an_exact_number_reads_back_as_itself(number: int | Decimal) -> None:
    assert Decimal(exact(number).replace(",", "")) == number


@given(st.decimals(allow_nan=False, allow_infinity=False) | st.integers(4000, 6000).map(lambda power: 10**power))
def test_numbers_of_any_size_are_formatted(number: int | Decimal) -> None:
    assert compact(number)
    assert len(exact(number)) <= 2 * MAX_EXACT_DIGITS + 1


@pytest.mark.parametrize("power", [MAX_EXPONENT, -MAX_EXPONENT])
def test_the_largest_exponents_are_formatted(power: int) -> None:
    assert compact(Decimal(f"9.999e{power}")) == f"1e{power + 1}"
    assert exact(Decimal(f"9.999e{power}")).startswith("1.00e")


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 0, UNKNOWN),
        (3, 0, UNKNOWN),
        (0, 7, "0 %"),
        (7, 7, "100 %"),
        (12, 25, "48 %"),
        (1, 1000, "<1 %"),
        (5, 1000, "<1 %"),
        (6, 1000, "1 %"),
        (994, 1000, "99 %"),
        (999, 1000, ">99 %"),
    ],
)
def test_a_share_is_never_rounded_to_none_or_all(part: int, whole: int, text: str) -> None:
    assert share(part, whole) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0s"),
        (0.9, "0s"),
        (59.9, "59s"),
        (60, "1m"),
        (HOUR - 1, "59m"),
        (HOUR, "1h"),
        (DAY - 1, "23h"),
        (DAY, "1d"),
        (999 * DAY, "999d"),
        (1000 * DAY, "2y"),
        (1095 * DAY, "3y"),
    ],
)
def test_a_duration_is_formatted_in_its_largest_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_an_unknown_age_is_not_zero_and_a_future_time_is() -> None:
    assert age(None, NOW) == UNKNOWN
    assert age(ago(90), NOW) == "1m"
    assert age(NOW + timedelta(hours=1), NOW) == "0s"


def test_a_timestamp_is_formatted_to_the_second_in_utc() -> None:
    assert timestamp(None) == UNKNOWN
    assert timestamp(NOW) == "2026-03-01 12:00:00Z"


def test_one_is_singular() -> None:
    assert [plural(count, "instance") for count in (0, 1, 1284)] == ["0 instances", "1 instance", "1,284 instances"]


@pytest.mark.parametrize(
    ("number", "unit", "format_", "text"),
    [
        (None, "MB", "bytes", UNKNOWN),
        (12, None, "number", "12"),
        (12_300, "EUR", "number", "12.3k EUR"),
        (48, "%", "percent", "48 %"),
        (1_280, "MB", "bytes", "1.28 GB"),
        (999, "B", "bytes", "999 B"),
        (0, "MB", "bytes", "0 MB"),
        (-2_000_000, "B", "bytes", "-2 MB"),
        (5_000_000, "TB", "bytes", "5.00M TB"),
        (350, "ms", "duration", "350 ms"),
        (90_000, "ms", "duration", "1.50 min"),
        (36, "h", "duration", "1.50 d"),
        (Decimal("1e400"), "ms", "duration", "1.16e392 d"),
        (7, "fortnights", "duration", "7 fortnights"),
        (7, "MB", "a format of a newer server", "7 MB"),
    ],
)
def test_a_number_with_its_unit(number: Any, unit: str | None, format_: str, text: str) -> None:
    assert with_unit(number, unit, format_) == text
