"""How numbers, times and shares are written: short where they are compared, exact where they are read."""

from datetime import UTC, datetime
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal

NOTHING = "–"  # a value that is not known, which is not zero
MAX_EXACT = 120  # characters of an exact number before its digits stop informing anyone

_THREE = Context(prec=3, Emax=MAX_EMAX, Emin=MIN_EMIN)
_SUFFIXES = ("", "k", "M", "B", "T")

MINUTE, HOUR, DAY = 60, 3600, 86400
DAYS_BEFORE_YEARS = 1000  # "400d" still says when; "3y" is enough beyond

Number = int | Decimal

# Units of a format by their size, the smallest first.
LADDERS: dict[str, dict[str, Decimal]] = {
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
        return NOTHING
    if isinstance(number, int) and -1000 < number < 1000:
        return str(number)
    rounded = _THREE.plus(Decimal(number))
    if not rounded:
        return "0"
    magnitude = rounded.adjusted()
    if magnitude < -4 or magnitude >= 3 * len(_SUFFIXES):
        mantissa = _trimmed(rounded.scaleb(-magnitude, _THREE))
        return f"{mantissa}e{magnitude}"
    if magnitude < 3:
        # A fraction keeps three digits, so that 0.970 stands straight below 0.969; far behind the point it does not.
        whole = isinstance(number, int) or number == number.to_integral_value() or magnitude < -1
        return _trimmed(rounded) if whole else f"{rounded.quantize(Decimal(1).scaleb(min(magnitude, 2) - 2)):f}"
    power = magnitude // 3
    scaled = rounded.scaleb(-3 * power)
    return f"{scaled.quantize(Decimal(1).scaleb(magnitude % 3 - 2)):f}{_SUFFIXES[power]}"


def measured(number: Number | None, unit: str | None, format_: str = "number") -> str:
    """The same with its unit: 12.3k EUR, 48 %; an amount of data or a time in the largest unit that fits, 1.28 GB."""
    if number is None or not unit:
        return compact(number)
    ladder = LADDERS.get(format_, {})
    if unit in ladder:
        amount = _THREE.multiply(_THREE.plus(Decimal(number)), ladder[unit])
        larger = [name for name, size in ladder.items() if ladder[unit] < size <= abs(amount)]
        if larger:
            unit, number = larger[-1], _THREE.divide(amount, ladder[larger[-1]])
    return f"{compact(number)} {unit}"


def exact(number: Number | None) -> str:
    """Every digit as it was sent, thousands apart: 45,721 and 99,120,331.50."""
    if number is None:
        return NOTHING
    if abs(Decimal(number).adjusted()) > MAX_EXACT:
        # Python refuses to write an int of thousands of digits, and nobody wants to read it.
        return f"{_THREE.plus(Decimal(number)):e}"
    text = f"{number:,}" if isinstance(number, int) else f"{number:,f}"
    return text if len(text) <= 2 * MAX_EXACT else text[: 2 * MAX_EXACT] + "…"


def share(part: int, whole: int) -> str:
    """A part of a whole in per cent, never rounded to none or all of it: 48 %, <1 %, >99 %."""
    if whole <= 0:
        return NOTHING
    percent = round(100 * part / whole)
    if percent == 0 and part > 0:
        return "<1 %"
    if percent == 100 and part < whole:
        return ">99 %"
    return f"{percent} %"


def span(seconds: float) -> str:
    """A length of time in one unit: 4s, 12m, 5h, 26d, 3y."""
    whole = int(seconds)
    if whole < MINUTE:
        return f"{max(whole, 0)}s"
    if whole < HOUR:
        return f"{whole // MINUTE}m"
    if whole < DAY:
        return f"{whole // HOUR}h"
    days = whole // DAY
    return f"{days}d" if days < DAYS_BEFORE_YEARS else f"{days // 365}y"


def age(moment: datetime | None, now: datetime) -> str:
    """How long ago `moment` was; a clock that runs ahead of ours reads 0s."""
    return NOTHING if moment is None else span((now - moment).total_seconds())


def stamp(moment: datetime | None) -> str:
    """A moment to the second, in UTC as the API has it."""
    return NOTHING if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def plural(count: int, noun: str) -> str:
    """`1 instance`, `1,284 instances`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _trimmed(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
