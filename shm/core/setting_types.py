"""What a person writes for a setting, read: each function takes the text, and raises ValueError with what is wanted."""

import ipaddress
import re
from datetime import timedelta
from pathlib import Path

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

DURATION_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
LARGEST_POOL = 90  # PostgreSQL takes 100 connections unless told otherwise
LONGEST = timedelta(days=36_500)  # instants minus a duration must stay within the calendar
MOST_HEADERS = 64 * 1024  # bytes of headers that are read before they are counted; past them nothing is
SIZE_UNITS = {"": 1, "k": 1024, "m": 1024**2}
YES, NO = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}


def text(value: str) -> str:
    """Any text that is not empty."""
    if not value:
        raise ValueError("a text that is not empty")
    return value


def number(value: str) -> int:
    """A whole number above zero."""
    if not re.fullmatch(r"[0-9]{1,9}", value) or int(value) == 0:
        raise ValueError("a whole number above zero")
    return int(value)


def pool_size(value: str) -> int:
    """A number of connections that PostgreSQL has room for."""
    if number(value) > LARGEST_POOL:
        raise ValueError(f"a number from 1 to {LARGEST_POOL}")
    return int(value)


def port_number(value: str) -> int:
    """A TCP port; 0 lets the system choose."""
    if not re.fullmatch(r"[0-9]{1,5}", value) or int(value) > 65535:
        raise ValueError("a port from 0 to 65535")
    return int(value)


def duration(value: str) -> timedelta:
    """`90s`, `15m`, `1h`, `30d`."""
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", value)
    read = timedelta(**{DURATION_UNITS[match[2]]: int(match[1])}) if match else timedelta()
    if not timedelta() < read <= LONGEST:
        raise ValueError("a duration such as 90s, 15m, 1h or 30d, at most a hundred years")
    return read


def hours(value: str) -> timedelta:
    """A duration of at most a day."""
    read = duration(value)
    if read > timedelta(days=1):
        raise ValueError("a duration such as 90s or 15m, at most a day")
    return read


def size(value: str) -> int:
    """Bytes: `65536`, `64k`, `1m`."""
    match = re.fullmatch(r"([0-9]{1,9})([km]?)", value.lower())
    if not match or int(match[1]) == 0:
        raise ValueError("a size in bytes such as 65536, 64k or 1m")
    return int(match[1]) * SIZE_UNITS[match[2]]


def headers_size(value: str) -> int:
    """Bytes of headers that may be told to be too large, because they were read."""
    if size(value) > MOST_HEADERS:
        raise ValueError(f"a size of at most {MOST_HEADERS} bytes, such as 16k")
    return size(value)


def words(value: str) -> frozenset[str]:
    """A list with commas; case does not matter."""
    return frozenset(word.strip().lower() for word in value.split(",") if word.strip())


def yes_or_no(value: str) -> bool:
    """`true` or `false`, and what else people write for them."""
    if value.lower() not in YES | NO:
        raise ValueError("true or false")
    return value.lower() in YES


def networks(value: str) -> tuple[Network, ...]:
    """Addresses and networks with commas: `127.0.0.1,10.0.0.0/8`."""
    try:
        return tuple(ipaddress.ip_network(part.strip()) for part in value.split(",") if part.strip())
    except ValueError:
        raise ValueError("addresses and networks with commas, such as 127.0.0.1,10.0.0.0/8") from None


def log_level(value: str) -> str:
    """How much is logged."""
    if value.lower() not in ("debug", "info", "warning", "error"):
        raise ValueError("debug, info, warning or error")
    return value.lower()


def activation(value: str) -> str:
    """How an install becomes active."""
    if value not in ("tofu", "manual"):
        raise ValueError("tofu or manual")
    return value


def folder(value: str) -> Path:
    """A folder, made absolute."""
    return Path(text(value)).expanduser().absolute()
