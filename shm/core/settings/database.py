"""The database, its connections, and the directory of the embedded one."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from shm.core.default_data_dir import default_data_dir
from shm.core.settings.fields import setting
from shm.core.settings.parsers import (
    parse_duration,
    parse_duration_up_to_a_day,
    parse_path,
    parse_pool_size,
    parse_positive_int,
    parse_text,
)


@dataclass(frozen=True, kw_only=True)
class DatabaseSettings:
    """Database."""

    dsn: str | None = setting(
        "SHM_DB_DSN DATABASE_URL",
        parse_text,
        None,
        "PostgreSQL to use, as a URL or as key=value pairs. Without one, the server starts an embedded "
        "PostgreSQL. Put a password into the environment and not into the flag: other users can see command "
        "lines.",
        is_secret=True,
    )
    dsn_source: str = "SHM_DB_DSN"
    """The variable or flag that `dsn` comes from, for messages. Not a setting."""
    data_dir: Path = setting(
        "SHM_DATA_DIR",
        parse_path,
        default_data_dir(),
        "Directory of the embedded PostgreSQL and of admin.token. (The SDK reads the same variable for "
        "the directory of its identity: set it for each of them separately.)",
    )
    batch: int = setting(
        "SHM_BATCH",
        parse_positive_int,
        "1000",
        "Snapshots in one transaction. Beyond a thousand a batch gains no speed and delays its first snapshot.",
    )
    queue: int = setting(
        "SHM_QUEUE",
        parse_positive_int,
        "10000",
        "Snapshots that wait for a batch, as many registrations and activations, and statements and keys that wait for "
        "a connection. They are some seconds of intake; beyond them a 503 is better than a longer wait.",
    )
    pool: int = setting(
        "SHM_DB_POOL",
        parse_pool_size,
        "6",
        "Connections to PostgreSQL, in each process, for all but registrations, activations and snapshots, which have "
        "one. PostgreSQL starts a process for each connection.",
    )
    statement_timeout: timedelta = setting(
        "SHM_STATEMENT_TIMEOUT",
        parse_duration_up_to_a_day,
        "30s",
        "Time limit of a statement. Clients have given up by then.",
    )
    database_patience: timedelta = setting(
        "SHM_DB_PATIENCE",
        parse_duration,
        "5s",
        "How long a request waits for an unavailable database before it is answered 503. It covers a "
        "restart of PostgreSQL.",
    )
    start_patience: timedelta = setting(
        "SHM_START_PATIENCE",
        parse_duration,
        "60s",
        "How long the start waits for the database, which may be starting too.",
    )
