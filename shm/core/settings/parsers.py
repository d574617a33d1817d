"""Parsers of setting values. Each takes the text and raises ValueError with a description of what is expected."""

import ipaddress
import re
from datetime import timedelta
from pathlib import Path

from shm.core.slugs import make_slug

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Seconds of the units of Go's durations, in which the original's settings are written, and of a day.
DURATION_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
DURATION_PART = re.compile(r"([0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})(ns|us|µs|μs|ms|s|m|h|d)")
MAX_CONNECTIONS = 90  # PostgreSQL's default max_connections is 100
MAX_DURATION = timedelta(days=36_500)  # now minus a duration must be a valid date
MAX_HEADERS_BYTES = 64 * 1024  # of SHM_MAX_HEADERS: no client or proxy sends as many
MAX_INDEXED_CHARACTERS = 512  # of a key or a name: a row of an index of PostgreSQL has room for 2,700 bytes
SIZE_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
TRUE_WORDS, FALSE_WORDS = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}


def parse_text(value: str) -> str:
    """Any non-empty text."""
    if not value:
        raise ValueError("a non-empty text")
    return value


def parse_bearer_token(value: str) -> str:
    """A token that a header can carry."""
    if not re.fullmatch(r"[!-~]+", value):
        raise ValueError("letters, digits and signs of ASCII, without a space")
    return value


ALL_ADDRESSES = {"*": "::", "0": "0.0.0.0"}  # noqa: S104 - other spellings, which no client can connect to


def parse_host(value: str) -> str:
    """A host name or an address; that of IPv6 also in brackets, as in a URL. `*` is `::`."""
    value = ALL_ADDRESSES.get(value, value)
    is_bracketed = value.startswith("[") and value.endswith("]")
    address = value[1:-1] if is_bracketed else value
    try:
        return ipaddress.ip_address(address).compressed
    except ValueError:
        if not address or is_bracketed or ":" in address:
            raise ValueError("a host name or an address such as 0.0.0.0 or ::1, without a port") from None
    return address


def parse_base_url(value: str) -> str:
    """The URL of a server of HTTP, without a slash at the end."""
    if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", value):
        raise ValueError("a URL such as https://api.github.com")
    return value.rstrip("/")


def parse_positive_int(value: str) -> int:
    """A whole number above zero."""
    if not re.fullmatch(r"[0-9]{1,9}", value) or int(value) == 0:
        raise ValueError("a whole number above zero")
    return int(value)


def parse_count(value: str) -> int:
    """A whole number, also zero."""
    if not re.fullmatch(r"[0-9]{1,9}", value):
        raise ValueError("a whole number, zero or more")
    return int(value)


def parse_pool_size(value: str) -> int:
    """A number of connections that PostgreSQL's default configuration allows."""
    if parse_positive_int(value) > MAX_CONNECTIONS:
        raise ValueError(f"a number from 1 to {MAX_CONNECTIONS}")
    return int(value)


def parse_port(value: str) -> int:
    """A TCP port; 0 lets the system choose."""
    if not re.fullmatch(r"[0-9]{1,5}", value) or int(value) > 65535:
        raise ValueError("a port from 0 to 65535")
    return int(value)


def parse_duration(value: str) -> timedelta:
    """`90s`, `15m`, `1h`, `30d`, and any duration of Go: `1m30s`, `500ms`, `1.5h`."""
    result = _sum_duration(value)
    if not result:
        raise ValueError("a duration such as 90s, 1m30s, 15m, 1h or 30d, at most a hundred years")
    return result


def parse_duration_or_zero(value: str) -> timedelta:
    """A duration, or `0` in any unit or without one."""
    result = _sum_duration("0s" if value == "0" else value)
    if result is None:
        raise ValueError("a duration such as 90s, 1m30s, 15m or 1h, at most a hundred years, or 0")
    return result


def _sum_duration(value: str) -> timedelta | None:
    """The sum of the parts of a duration; None if it has none, other text, or is too long."""
    parts = DURATION_PART.findall(value)
    if not parts or "".join(number + unit for number, unit in parts) != value:
        return None
    seconds = sum(float(number) * DURATION_UNITS[unit] for number, unit in parts)
    return timedelta(seconds=seconds) if seconds <= MAX_DURATION.total_seconds() else None


def parse_duration_up_to_a_day(value: str) -> timedelta:
    """A duration of at most a day."""
    result = parse_duration(value)
    if result > timedelta(days=1):
        raise ValueError("a duration such as 90s or 15m, at most a day")
    return result


def parse_indexed_length(value: str) -> int:
    """A number of characters of a text that is in an index."""
    if parse_positive_int(value) > MAX_INDEXED_CHARACTERS:
        raise ValueError(f"a number from 1 to {MAX_INDEXED_CHARACTERS}")
    return int(value)


def parse_size(value: str) -> int:
    """Bytes: `65536`, `64k`, `1m`, `20g`, `1t`."""
    match = re.fullmatch(r"([0-9]{1,9})([kmgt]?)", value.lower())
    if not match or int(match[1]) == 0:
        raise ValueError("a size in bytes such as 65536, 64k, 1m or 20g")
    return int(match[1]) * SIZE_UNITS[match[2]]


def parse_headers_size(value: str) -> int:
    """A size of headers."""
    if parse_size(value) > MAX_HEADERS_BYTES:
        raise ValueError(f"a size of at most {MAX_HEADERS_BYTES} bytes, such as 16k")
    return parse_size(value)


def parse_words(value: str) -> frozenset[str]:
    """A set of words, separated by commas, in lower case."""
    return frozenset(word.strip().lower() for word in value.split(",") if word.strip())


def parse_slugs(value: str) -> frozenset[str]:
    """The slugs of names, separated by commas."""
    return frozenset(make_slug(name.strip()) for name in value.split(",") if name.strip())


def parse_bool(value: str) -> bool:
    """`true` or `false`, or their usual synonyms."""
    if value.lower() not in TRUE_WORDS | FALSE_WORDS:
        raise ValueError("true or false")
    return value.lower() in TRUE_WORDS


def parse_networks(value: str) -> tuple[Network, ...]:
    """Addresses and networks, separated by commas: `127.0.0.1,10.0.0.0/8`."""
    try:
        return tuple(_parse_network(part.strip()) for part in value.split(",") if part.strip())
    except ValueError:
        raise ValueError("addresses and networks, separated by commas, such as 127.0.0.1,10.0.0.0/8") from None


def _parse_network(text: str) -> Network:
    """A network; an IPv4-mapped one of IPv6 as IPv4, because the addresses of clients are compared as IPv4 too."""
    network = ipaddress.ip_network(text)
    first = network.network_address
    if isinstance(first, ipaddress.IPv6Address) and first.ipv4_mapped is not None and network.prefixlen >= 96:
        return ipaddress.ip_network((first.ipv4_mapped, network.prefixlen - 96))
    return network


def parse_log_level(value: str) -> str:
    """The level of the log."""
    if value.lower() not in ("debug", "info", "warning", "error"):
        raise ValueError("debug, info, warning or error")
    return value.lower()


def parse_activation(value: str) -> str:
    """The way in which an install becomes active."""
    if value not in ("tofu", "manual"):
        raise ValueError("tofu or manual")
    return value


def parse_path(value: str) -> Path:
    """A file or a directory as an absolute path."""
    try:
        return Path(parse_text(value)).expanduser().absolute()
    except RuntimeError:
        raise ValueError("an absolute path, because this user has no home directory") from None
