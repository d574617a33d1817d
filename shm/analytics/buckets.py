"""The bounds of a histogram's buckets: round numbers, evenly spaced or in steps of 1, 2, 5, 10, … Pure.

Even buckets show nothing if half of the instances are in the first one, which is usual of counts that grow: then the
buckets grow too, in proportion to the values.
"""

from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from typing import Literal

from shm.core.aggregates import EXACT, strip_trailing_zeros

Scale = Literal["linear", "log"]

MAX_EVEN_BUCKETS = 20  # as many as a terminal of 80 columns can show with their labels
MAX_GROWING_BUCKETS = 40  # thirteen decades in steps of 1, 2, 5; of a wider range each bucket is a decade or several
LEADING_DIGITS = (Decimal(1), Decimal(2), Decimal(5))


@dataclass(frozen=True, slots=True)
class ValueRange:
    """What the bounds depend on. `min_positive`: the smallest value above zero, None if there is none."""

    min: Decimal
    p50: Decimal
    max: Decimal
    min_positive: Decimal | None
    are_integers: bool


def bucket_bounds(values: ValueRange) -> tuple[Scale, list[Decimal]]:
    """Ascending bounds: a bucket is from one bound up to the next, without it. The first and the last have values."""
    even = _even_bounds(values)
    has_few_values = values.are_integers and EXACT.subtract(values.max, values.min) < MAX_EVEN_BUCKETS
    is_skewed = values.min >= 0 and values.p50 < even[1] and not has_few_values
    if values.min_positive is None or not is_skewed:
        return "linear", even
    growing = _growing_bounds(values.min_positive, values.max)
    return "log", [*([Decimal(0)] if values.min == 0 else []), *growing]


def _even_bounds(values: ValueRange) -> list[Decimal]:
    span = EXACT.subtract(values.max, values.min)
    step = _round_up(EXACT.divide(span or abs(values.max) or Decimal(1), Decimal(MAX_EVEN_BUCKETS)))
    step = max(step, Decimal(1)) if values.are_integers else step
    first = EXACT.divide(values.min, step).to_integral_value(ROUND_FLOOR, EXACT)
    last = EXACT.divide(values.max, step).to_integral_value(ROUND_FLOOR, EXACT)
    count = int(EXACT.subtract(last, first)) + 1
    bounds = [EXACT.multiply(EXACT.add(first, Decimal(index)), step) for index in range(count + 1)]
    return [strip_trailing_zeros(bound) for bound in bounds]


def _growing_bounds(smallest: Decimal, largest: Decimal) -> list[Decimal]:
    decades = largest.adjusted() - smallest.adjusted() + 1
    is_fine = decades * len(LEADING_DIGITS) <= MAX_GROWING_BUCKETS
    steps, stride = (LEADING_DIGITS, 1) if is_fine else ((Decimal(1),), -(-decades // MAX_GROWING_BUCKETS))
    bounds = [
        strip_trailing_zeros(step.scaleb(exponent))
        for exponent in range(smallest.adjusted(), largest.adjusted() + stride + 1, stride)
        for step in steps
    ]
    first = max(index for index, bound in enumerate(bounds) if bound <= smallest)
    last = min(index for index, bound in enumerate(bounds) if bound > largest)
    return bounds[first : last + 1]


def _round_up(value: Decimal) -> Decimal:
    """The next of 1, 2, 5, 10, … in any decade."""
    decade = Decimal(1).scaleb(value.adjusted())
    return next(
        EXACT.multiply(step, decade) for step in (*LEADING_DIGITS, Decimal(10)) if EXACT.multiply(step, decade) >= value
    )
