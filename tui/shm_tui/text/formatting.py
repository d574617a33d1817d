"""Formats numbers, times and shares: short for the table and the tiles, exact for the details."""

from datetime import UTC, datetime
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal

UNKNOWN = "–"  # a missing value; it is not zero
MAX_EXACT_DIGITS = 120  # a longer number is written with an exponent, because a person cannot read it

_MEAN_DIGITS = Context(prec=700)  # the protocol allows numbers from 1e-308 to 1e308
_THREE_DIGITS = Context(prec=3, Emax=MAX_EMAX, Emin=MIN_EMIN)
_SUFFIXES = ("", "k", "M", "B", "T")

MINUTE, HOUR, DAY = 60, 3600, 86400
MAX_AGE_IN_DAYS = 1000  # "400d" is precise enough; a longer time is written in years

Number = int | Decimal

# The units of a metric's format and their sizes, the smallest first.
UNIT_SIZES: dict[str, dict[str, Decimal]] = {
    "bytes": {name: Decimal(1000**power) for power, name in enumerate(("B", "kB", "MB", "GB", "TB"))},
    "duration": {
        "ms": Decimal("0.001"),
        "s": Decimal(1),
        "min": Decimal(MINUTE),
        "h": Decimal(HOUR),
        "d": Decimal(DAY),
    },
}


def compact(number: Number | None) -> str:
    """Three significant digits: 834, 45.7k, 1.28M, 0.004, 3.1e20."""
    if number is None:
        return UNKNOWN
    if isinstance(number, int) and -1000 < number < 1000:
        return str(number)
    rounded = _THREE_DIGITS.plus(Decimal(number))
    if not rounded:
        return "0"
    magnitude = rounded.adjusted()
    if magnitude < -4 or magnitude >= 3 * len(_SUFFIXES):
        mantissa = _strip_zeros(rounded.scaleb(-magnitude, _THREE_DIGITS))
        return f"{mantissa}e{magnitude}"
    if magnitude < 3:
        # A fraction keeps its trailing zeros, so that 0.970 aligns with 0.969. Numbers below 0.01 drop them.
        drop_zeros = isinstance(number, int) or number == number.to_integral_value() or magnitude < -1
        return (
            _strip_zeros(rounded) if drop_zeros else f"{rounded.quantize(Decimal(1).scaleb(min(magnitude, 2) - 2)):f}"
        )
    power = magnitude // 3
    scaled = rounded.scaleb(-3 * power)
    return f"{scaled.quantize(Decimal(1).scaleb(magnitude % 3 - 2)):f}{_SUFFIXES[power]}"


def with_unit(number: Number | None, unit: str | None, format_: str = "number") -> str:
    """Like `compact`, with the unit: 12.3k EUR, 48 %. Bytes and durations use the largest unit that fits: 1.28 GB."""
    if number is None or not unit:
        return compact(number)
    sizes = UNIT_SIZES.get(format_, {})
    if unit in sizes:
        amount = _THREE_DIGITS.multiply(_THREE_DIGITS.plus(Decimal(number)), sizes[unit])
        larger_units = [name for name, size in sizes.items() if sizes[unit] < size <= abs(amount)]
        if larger_units:
            unit, number = larger_units[-1], _THREE_DIGITS.divide(amount, sizes[larger_units[-1]])
    return f"{compact(number)} {unit}"


def exact(number: Number | None) -> str:
    """Every digit that was sent, with separators: 45,721 and 99,120,331.50."""
    if number is None:
        return UNKNOWN
    if abs(Decimal(number).adjusted()) > MAX_EXACT_DIGITS:
        # Python raises ValueError when an int of thousands of digits is converted to a string.
        return f"{_THREE_DIGITS.plus(Decimal(number)):e}"
    text = f"{number:,}" if isinstance(number, int) else f"{number:,f}"
    return text if len(text) <= 2 * MAX_EXACT_DIGITS else text[: 2 * MAX_EXACT_DIGITS] + "…"


def round_mean(value: Number | None) -> Number | None:
    """Rounds to three decimals: an average has any number of digits."""
    if isinstance(value, Decimal) and isinstance(exponent := value.as_tuple().exponent, int) and exponent < -3:
        return value.quantize(Decimal("0.001"), context=_MEAN_DIGITS)
    return value


def share(part: int, whole: int) -> str:
    """`part` in per cent of `whole`: 48 %. Only 0 is written as 0 %, and only all as 100 %; else <1 % and >99 %."""
    if whole <= 0:
        return UNKNOWN
    percent = round(100 * part / whole)
    if percent == 0 and part > 0:
        return "<1 %"
    if percent == 100 and part < whole:
        return ">99 %"
    return f"{percent} %"


def duration(seconds: float) -> str:
    """A duration in its largest unit, rounded down: 4s, 12m, 5h, 26d, 3y."""
    whole = int(seconds)
    if whole < MINUTE:
        return f"{max(whole, 0)}s"
    if whole < HOUR:
        return f"{whole // MINUTE}m"
    if whole < DAY:
        return f"{whole // HOUR}h"
    days = whole // DAY
    return f"{days}d" if days < MAX_AGE_IN_DAYS else f"{days // 365}y"


def age(time: datetime | None, now: datetime) -> str:
    """The time since `time`; 0s for a time in the future, because clocks differ."""
    return UNKNOWN if time is None else duration((now - time).total_seconds())


def timestamp(time: datetime | None) -> str:
    """A time to the second, in UTC as in the API."""
    return UNKNOWN if time is None else time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def clock_time(time: datetime) -> str:
    """The time of day in UTC, for figures of the past."""
    return time.astimezone(UTC).strftime("%H:%M:%SZ")


def plural(count: int, noun: str) -> str:
    """`1 instance`, `1,284 instances`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _strip_zeros(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
