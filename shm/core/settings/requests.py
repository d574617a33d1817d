"""Limits of requests: sizes, numbers, and times."""

from dataclasses import dataclass
from datetime import timedelta

from shm.core.settings.fields import setting
from shm.core.settings.parsers import (
    parse_duration,
    parse_headers_size,
    parse_indexed_length,
    parse_positive_int,
    parse_size,
)


@dataclass(frozen=True, kw_only=True)
class RequestSettings:
    """Sizes and times of requests."""

    max_new_installs: int = setting(
        "SHM_MAX_NEW_INSTALLS",
        parse_positive_int,
        "1000",
        "New installs in an hour, from all addresses. Further ones of that hour wait for approval by an admin, as with "
        "SHM_ACTIVATION=manual, so that no flood of inventions gets into the figures.",
    )
    max_new_applications: int = setting(
        "SHM_MAX_NEW_APPLICATIONS",
        parse_positive_int,
        "50",
        "New applications in an hour, from all addresses. A new install of a further one waits for approval by an "
        "admin, and a known install stays in its application. A vendor rarely has more products than that.",
    )
    max_new_installs_per_address: int = setting(
        "SHM_MAX_NEW_INSTALLS_PER_ADDRESS",
        parse_positive_int,
        "300",
        "New installs from one address in an hour. An office or a cluster behind one address stays far below it.",
    )
    max_bytes_per_address: int = setting(
        "SHM_MAX_BYTES_PER_ADDRESS",
        parse_size,
        "256m",
        "Bytes of new snapshots from one address in an hour. A hundred thousand hourly snapshots of 2 KiB each; one "
        "sender cannot fill the disk.",
    )
    max_body: int = setting(
        "SHM_MAX_BODY",
        parse_size,
        "64k",
        "Size of a request's body. Three times the largest realistic snapshot (256 metrics with long keys).",
    )
    max_reading: int = setting(
        "SHM_MAX_READING",
        parse_size,
        "256m",
        "Size of all requests in memory, together: headers until they are complete, bodies until they are answered. "
        "Beyond it the longest incomplete one is refused, so that many open uploads cannot fill the memory. Bodies of "
        "more than 4 KiB may use half of it, those of one address an eighth, or less while other addresses use it.",
    )
    max_unread: int = setting(
        "SHM_MAX_UNREAD",
        parse_size,
        "256m",
        "Size of all responses and messages of feeds in memory that their clients have not read yet, together. Beyond "
        "it the connection whose client has read nothing for the longest is closed. One response may be larger.",
    )
    max_headers: int = setting(
        "SHM_MAX_HEADERS",
        parse_headers_size,
        "16k",
        "Size of a request's headers. Ten times the headers of a client and a proxy together.",
    )
    max_name: int = setting(
        "SHM_MAX_NAME",
        parse_indexed_length,
        "256",
        "Characters in the name of an application, a version or an environment. Tables show far fewer.",
    )
    max_backlog: int = setting(
        "SHM_MAX_BACKLOG",
        parse_positive_int,
        "100",
        "Snapshots in one backlog request. Four days of hourly snapshots; a longer outage takes several requests.",
    )
    max_backlog_body: int = setting(
        "SHM_MAX_BACKLOG_BODY", parse_size, "1m", "Size of a backlog's body. A hundred snapshots of a few KiB each."
    )
    max_metrics: int = setting(
        "SHM_MAX_METRICS",
        parse_positive_int,
        "256",
        "Values in one snapshot. More values are records and not aggregate counters.",
    )
    max_depth: int = setting(
        "SHM_MAX_DEPTH",
        parse_positive_int,
        "8",
        "Levels of nesting in a snapshot. People read a group within a group, and not a tree.",
    )
    max_key: int = setting(
        "SHM_MAX_KEY",
        parse_indexed_length,
        "128",
        "Characters in a metric's key, its groups and dots included. A key is a column's title and has to fit one.",
    )
    max_text: int = setting(
        "SHM_MAX_TEXT",
        parse_positive_int,
        "1024",
        "Characters in a string of a snapshot. Enough for a label or a version, and not for a document.",
    )
    header_timeout: timedelta = setting(
        "SHM_HEADER_TIMEOUT",
        parse_duration,
        "10s",
        "Time for a request's headers to arrive, and for a new connection to send its first request. Clients send "
        "them at once; a slower sender only occupies a connection.",
    )
    body_timeout: timedelta = setting(
        "SHM_BODY_TIMEOUT",
        parse_duration,
        "15s",
        "Time for a request's body to arrive. A slow line sends 64 KiB in that time; a slower sender "
        "occupies a connection.",
    )
    idle_timeout: timedelta = setting(
        "SHM_IDLE_TIMEOUT",
        parse_duration,
        "75s",
        "How long an idle connection stays open. Longer than the usual 60 s of a proxy, so that the proxy "
        "closes it first.",
    )
    max_connections: int = setting(
        "SHM_MAX_CONNECTIONS",
        parse_positive_int,
        "10000",
        "Open connections of one server process, or fewer where its limit of open files is lower. An idle one costs "
        "some 9 KiB of memory. At the limit a new connection replaces the one that has waited the longest for its "
        "client.",
    )
    max_connections_per_address: int = setting(
        "SHM_MAX_CONNECTIONS_PER_ADDRESS",
        parse_positive_int,
        "512",
        "The same for one address, at most half of all, so that no single sender uses up all connections. A large "
        "office behind one address stays below it. SHM_TRUSTED_PROXIES are exempt; all clients behind another proxy "
        "share it.",
    )
