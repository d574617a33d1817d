"""The bounds of a histogram's buckets."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm.analytics.buckets import MAX_EVEN_BUCKETS, MAX_GROWING_BUCKETS, ValueRange, bucket_bounds

decimals = st.decimals(allow_nan=False, allow_infinity=False)
whole_numbers = st.integers(-(10**12), 10**12).map(Decimal)


def value_range(values: list[Decimal]) -> ValueRange:
    """What the bounds of these values depend on. The median is the upper one of two."""
    ordered = sorted(values)
    return ValueRange(
        ordered[0],
        ordered[len(ordered) // 2],
        ordered[-1],
        min((value for value in values if value > 0), default=None),
        all(value == value.to_integral_value() for value in values),
    )


@given(st.lists(decimals, min_size=1, max_size=9) | st.lists(whole_numbers, min_size=1, max_size=9))
def test_every_value_is_in_one_of_a_few_buckets(values: list[Decimal]) -> None:
    scale, bounds = bucket_bounds(value_range(values))
    assert bounds == sorted(set(bounds))
    assert bounds[0] <= min(values) < bounds[1]
    assert bounds[-2] <= max(values) < bounds[-1]
    assert len(bounds) - 1 <= (MAX_EVEN_BUCKETS if scale == "linear" else MAX_GROWING_BUCKETS) + 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1, 2, 3], ("linear", "0 1 2 3 4")),
        ([7], ("linear", "7 8")),
        ([-30, 20, 50], ("linear", "-30 -25 -20 -15 -10 -5 0 5 10 15 20 25 30 35 40 45 50 55")),
        ([0, 3, 4, 700], ("log", "0 2 5 10 20 50 100 200 500 1000")),
        (["0.02", "0.03", "1.5"], ("log", "0.02 0.05 0.1 0.2 0.5 1 2")),
        (["0.1", "0.3", "0.5"], ("linear", " ".join(str(Decimal(step) * 2 / 100) for step in range(5, 27)))),
    ],
)
def test_bounds_are_round_numbers(values: list[float | str], expected: tuple[str, str]) -> None:
    scale, bounds = bucket_bounds(value_range([Decimal(str(value)) for value in values]))
    assert (scale, bounds) == (expected[0], [Decimal(bound) for bound in expected[1].split()])
