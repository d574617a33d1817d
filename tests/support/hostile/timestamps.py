"""Timestamps in all forms of RFC 3339, and in others.

The server stores timestamps of RFC 3339 to the microsecond. It also accepts a space in place of the T and an offset
without a colon. It refuses all other forms. The expected responses are those of a server that accepts snapshots of any
age.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from tests.support.hostile.case import STORED, Case, snapshot
from tests.support.installs import Install

# A whole second two hours ago: no form of it is ahead of the server's clock, whatever its offset is.
THEN = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)
DAY, TIME = THEN.strftime("%Y-%m-%d"), THEN.strftime("%H:%M:%S")
MICROSECOND = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)


def local_time(hours: int, minutes: int = 0) -> str:
    """`THEN` in local time with this offset to UTC; the offset itself is not included."""
    return (THEN + timedelta(hours=hours, minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%S")


ACCEPTED: dict[str, tuple[str, datetime]] = {
    "in UTC": (f"{DAY}T{TIME}Z", THEN),
    "with t and z in lower case": (f"{DAY}t{TIME}z", THEN),
    "with a space in place of the T": (f"{DAY} {TIME}Z", THEN),
    "with an offset of +00:00": (f"{DAY}T{TIME}+00:00", THEN),
    "with an unknown offset, -00:00": (f"{DAY}T{TIME}-00:00", THEN),
    "with an offset to the east": (f"{local_time(5, 45)}+05:45", THEN),
    "with an offset to the west": (f"{local_time(-9, -30)}-09:30", THEN),
    "with the largest offset to the east": (f"{local_time(23, 59)}+23:59", THEN),
    "with the largest offset to the west": (f"{local_time(-23, -59)}-23:59", THEN),
    "with an offset as strftime writes it": (f"{local_time(1)}+0100", THEN),
    "with a tenth": (f"{DAY}T{TIME}.1Z", THEN + 100_000 * MICROSECOND),
    "with microseconds": (f"{DAY}T{TIME}.000001Z", THEN + MICROSECOND),
    "with nanoseconds": (f"{DAY}T{TIME}.123456789Z", THEN + 123_457 * MICROSECOND),
    "with nanoseconds and an offset": (f"{local_time(1)}.123456789+01:00", THEN + 123_457 * MICROSECOND),
    "with nanoseconds that round to the next second": (f"{DAY}T{TIME}.999999999Z", THEN + SECOND),
    "with a thousand digits of a second": (f"{DAY}T{TIME}.{'1' * 1000}Z", THEN + 111_111 * MICROSECOND),
    "the RFC's first example": ("1985-04-12T23:20:50.52Z", datetime(1985, 4, 12, 23, 20, 50, 520_000, UTC)),
    "the RFC's second example": ("1996-12-19T16:39:57-08:00", datetime(1996, 12, 20, 0, 39, 57, 0, UTC)),
    "the RFC's example of a leap second": ("1990-12-31T23:59:60Z", datetime(1991, 1, 1, tzinfo=UTC)),
    "the RFC's leap second in California": ("1990-12-31T15:59:60-08:00", datetime(1991, 1, 1, tzinfo=UTC)),
    "the RFC's example from the Netherlands": (
        "1937-01-01T12:00:27.87+00:20",
        datetime(1937, 1, 1, 11, 40, 27, 870_000, UTC),
    ),
    "half a second into a leap second": ("2016-12-31T23:59:60.5Z", datetime(2017, 1, 1, 0, 0, 0, 500_000, UTC)),
    "the 29th of February of a leap year": ("2024-02-29T12:00:00Z", datetime(2024, 2, 29, 12, tzinfo=UTC)),
}

REFUSED: dict[str, tuple[str, str]] = {
    "without an offset": (f"{DAY}T{TIME}", "bad_timestamp"),
    "without a time": (DAY, "bad_timestamp"),
    "without seconds": (f"{DAY}T12:00Z", "bad_timestamp"),
    "without a date": (f"{TIME}Z", "bad_timestamp"),
    "without anything": ("", "bad_timestamp"),
    "with a point and no digits": (f"{DAY}T{TIME}.Z", "bad_timestamp"),
    "with a decimal comma": (f"{DAY}T{TIME},5Z", "bad_timestamp"),
    "with an offset of 24 hours": (f"{DAY}T{TIME}+24:00", "bad_timestamp"),
    "with an offset of 60 minutes": (f"{DAY}T{TIME}+01:60", "bad_timestamp"),
    "with an offset of hours only": (f"{DAY}T{TIME}+01", "bad_timestamp"),
    "with a typographic minus": (f"{DAY}T{TIME}−01:00", "bad_timestamp"),
    "with the name of a zone": (f"{DAY}T{TIME} UTC", "bad_timestamp"),
    "with a zone in brackets": (f"{DAY}T{TIME}Z[Europe/Paris]", "bad_timestamp"),
    "with a space before it": (f" {DAY}T{TIME}Z", "bad_timestamp"),
    "with a line feed after it": (f"{DAY}T{TIME}Z\\n", "bad_timestamp"),
    "with U+0000 after it": (f"{DAY}T{TIME}Z\\u0000", "bad_timestamp"),
    "with Arabic digits": ("٢٠٢٦-٠١-٠١T٠٠:٠٠:٠٠Z", "bad_timestamp"),
    "of 60 KB": (f"{DAY}T{TIME}{'Z' * 60_000}", "bad_timestamp"),
    "a leap second in the middle of a month": ("1990-12-15T23:59:60Z", "bad_timestamp"),
    "a leap second in the middle of a day": ("1990-12-31T12:00:60Z", "bad_timestamp"),
    "a leap second at a local month's end only": ("1990-12-31T23:59:60-08:00", "bad_timestamp"),
    "a leap second without an offset": ("1990-12-31T23:59:60", "bad_timestamp"),
    "a leap second at the end of time": ("9999-12-31T23:59:60Z", "bad_timestamp"),
    "the second 61": ("1990-12-31T23:59:61Z", "bad_timestamp"),
    "the minute 60": (f"{DAY}T12:60:00Z", "bad_timestamp"),
    "the hour 24": (f"{DAY}T24:00:00Z", "bad_timestamp"),
    "the 29th of February of no leap year": ("2023-02-29T12:00:00Z", "bad_timestamp"),
    "the day 0": ("2024-01-00T12:00:00Z", "bad_timestamp"),
    "the month 13": ("2024-13-01T12:00:00Z", "bad_timestamp"),
    "the year 0": ("0000-06-01T12:00:00Z", "bad_timestamp"),
    "the year 1": ("0001-01-01T00:00:00Z", "timestamp_too_old"),
    "a year before the year 1 in UTC": ("0001-01-01T00:00:00+10:00", "bad_timestamp"),
    "the year 9999": ("9999-12-31T23:59:59Z", "timestamp_ahead"),
    "a year after 9999 in UTC": ("9999-12-31T23:59:59-10:00", "bad_timestamp"),
    "rounded past the year 9999": ("9999-12-31T23:59:59.9999999Z", "bad_timestamp"),
    "the year 10000": ("10000-01-01T00:00:00Z", "bad_timestamp"),
    "a year with a sign": (f"+{DAY}T{TIME}Z", "bad_timestamp"),
    "a week date": ("2024-W48-1T12:00:00Z", "bad_timestamp"),
    "an ordinal date": ("2024-327T12:00:00Z", "bad_timestamp"),
    "ISO 8601's basic form": ("20240101T120000Z", "bad_timestamp"),
    "HTTP's form": ("Mon, 01 Jan 2024 12:00:00 GMT", "bad_timestamp"),
    "seconds since 1970 as text": ("1704110400", "bad_timestamp"),
    "a word": ("yesterday", "bad_timestamp"),
    "PostgreSQL's infinity": ("infinity", "bad_timestamp"),
    "one day ahead": ((THEN + timedelta(hours=26)).isoformat(), "timestamp_ahead"),
    "older than any snapshot may be": ("1900-01-01T00:00:00Z", "timestamp_too_old"),
}

OF_OTHER_TYPES = {"a number": "1704110400", "null": "null", "an array": "[2024,1,1]", "an object": "{}", "true": "true"}


def at(json_text: str) -> Callable[[Install], bytes]:
    """A snapshot whose timestamp is this JSON text."""
    return lambda install: snapshot(install, b'{"a":1}', json_text.encode())


CASES: tuple[Case, ...] = (
    *(
        Case(f"a timestamp: {name}", at(f'"{text}"'), (STORED,), shows={"a": 1}, at=instant)
        for name, (text, instant) in ACCEPTED.items()
    ),
    *(Case(f"a timestamp: {name}", at(f'"{text}"'), ((400, code),)) for name, (text, code) in REFUSED.items()),
    *(Case(f"a timestamp: {name}", at(text), ((400, "bad_timestamp"),)) for name, text in OF_OTHER_TYPES.items()),
)
