"""Aggregates: the functions that reduce a metric's numbers over instances to one value. Pure.

`sum` and `avg` follow from a total and a count, which the tallies and the series keep. The other aggregates need the
distribution of the values, which the part `distribution` in `sql/parts/lists.sql` computes. Every match is exhaustive,
so mypy reports each place that a new aggregate has to be added to.
"""

from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from typing import Literal, Protocol, assert_never

Aggregate = Literal["sum", "avg", "min", "max", "median"]

MEAN_DIGITS = 20  # in addition to the digits of the sum: the mean of doubles is exact to a double's last digit

EXACT = Context(prec=1_000)  # enough for a sum of doubles written in full: from 10^308 to 10^-324


class Distribution(Protocol):
    """The columns of the part `distribution`. Percentiles interpolate between the two nearest values."""

    @property
    def min(self) -> Decimal | None:
        """The smallest value."""

    @property
    def p50(self) -> Decimal | None:
        """The median."""

    @property
    def p90(self) -> Decimal | None:
        """The 90th percentile."""

    @property
    def max(self) -> Decimal | None:
        """The largest value."""


@dataclass(frozen=True, slots=True)
class _NoDistribution:
    min: None = None
    p50: None = None
    p90: None = None
    max: None = None


NO_DISTRIBUTION: Distribution = _NoDistribution()


def needs_distribution(aggregate: Aggregate) -> bool:
    """Whether the aggregate needs the values themselves, and not only their total and count."""
    match aggregate:
        case "sum" | "avg":
            return False
        case "min" | "max" | "median":
            return True
        case _:
            assert_never(aggregate)


def aggregate_value(
    aggregate: Aggregate, total: Decimal | None, instances: int, distribution: Distribution = NO_DISTRIBUTION
) -> Decimal | None:
    """The aggregate of `instances` values with this total and distribution; None if the input it needs is unknown."""
    match aggregate:
        case "sum":
            result = total
        case "avg":
            result = None if total is None else mean(total, instances)
        case "min":
            result = distribution.min
        case "max":
            result = distribution.max
        case "median":
            result = distribution.p50
        case _:
            assert_never(aggregate)
    return None if result is None else strip_trailing_zeros(result)


def mean(total: Decimal, instances: int) -> Decimal:
    """`total / instances`, with more digits than a double holds."""
    with localcontext() as context:
        context.prec = len(total.as_tuple().digits) + MEAN_DIGITS
        return strip_trailing_zeros(total / instances)


def strip_trailing_zeros(value: Decimal) -> Decimal:
    """The same value without trailing zeros after the decimal point."""
    digits = value.normalize(EXACT)
    return digits.quantize(Decimal(1), context=EXACT) if int(digits.as_tuple().exponent) > 0 else digits
