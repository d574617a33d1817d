"""Checks of the database: version, durability, connections, clock, collation, background jobs, size."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from shm.analytics.disk_forecast import DiskForecast, forecast_disk
from shm.core.settings import Settings
from shm.db.clock import MIN_REPORTED_OFFSET
from shm.db.database import Database
from shm.server.checks.finding import Finding, Level

DATABASE = "database"  # the subject of the finding about the version
CLOCK = "clock"

ENABLE_PARAMETERS = (  # postgresql.conf does not suffice where ALTER SYSTEM or the command line set a parameter
    "Run `ALTER SYSTEM SET {0} = on`, `ALTER SYSTEM SET {1} = on` and `SELECT pg_reload_conf()` as a superuser, and "
    "remove them from the command line of PostgreSQL if they are there."
)
WRITER_CONNECTIONS = 1  # for the batch writer: batches are sequential, and readers can never use this connection
LISTENER_CONNECTIONS = 1  # for the feed
BACKGROUND_CONNECTIONS = 1  # for the background jobs
LARGE_BYTES = 20 * 1024**3  # then a backup of the embedded PostgreSQL takes long, and a replica is worth its work
STALE_ROUND = timedelta(minutes=15)
WARNING_LEAD_TIME = timedelta(days=14)


@dataclass(frozen=True, slots=True)
class _Server:
    version: str
    is_durable: bool
    has_autovacuum: bool
    max_connections: int
    used_connections: int
    is_collation_changed: bool
    background_age_s: float
    bytes: int


async def check_database(database: Database, settings: Settings) -> list[Finding]:
    """All checks of a database whose schema is up to date, in some milliseconds. Raises as `Database.fetch`."""
    (server,) = await database.fetch(_Server, "health.describe_server")
    await database.clock.measure()
    forecast = await forecast_disk(database, settings)
    return [
        _check_version(server, settings),
        *_check_configuration(server),
        _check_connections(server, settings),
        _check_clock(database),
        _check_background(server),
        _check_size(forecast),
    ]


def connections_per_worker(settings: Settings) -> int:
    """The connections to PostgreSQL that each server process needs at most."""
    return settings.pool + WRITER_CONNECTIONS + LISTENER_CONNECTIONS + BACKGROUND_CONNECTIONS


def _check_version(server: _Server, settings: Settings) -> Finding:
    where = f"embedded in {settings.data_dir}" if settings.dsn is None else f"of {settings.dsn_source}"
    text = f"PostgreSQL {server.version.partition(' ')[0]}, {where}"
    if settings.dsn is not None or (server.bytes < LARGE_BYTES and settings.workers == 1):
        return Finding(Level.OK, DATABASE, text)
    reason = f"with {server.bytes >> 30} GiB" if server.bytes >= LARGE_BYTES else f"for {settings.workers} workers"
    return Finding(
        Level.NOTE,
        DATABASE,
        f"{text}, {reason}",
        "A PostgreSQL of your own serves better (SHM_DB_DSN): the system updates it, it can have a replica and "
        "continuous archiving, and it runs while SHM is upgraded. `shm backup` and `shm restore` move the data.",
    )


def _check_configuration(server: _Server) -> Iterator[Finding]:
    if not server.is_durable:
        yield Finding(
            Level.ERROR,
            "durability",
            "fsync or full_page_writes of PostgreSQL is off: a power failure loses acknowledged snapshots",
            ENABLE_PARAMETERS.format("fsync", "full_page_writes"),
        )
    if not server.has_autovacuum:
        yield Finding(
            Level.WARNING,
            "autovacuum",
            "autovacuum of PostgreSQL is off: tables grow, and statements get slower",
            ENABLE_PARAMETERS.format("autovacuum", "track_counts"),
        )
    if server.is_collation_changed:
        yield Finding(
            Level.WARNING,
            "collation",
            "the system's collation has changed since the database was created: indexes of texts may miss rows",
            "Run `REINDEX DATABASE` and `ALTER DATABASE … REFRESH COLLATION VERSION` as its owner.",
        )


def _check_connections(server: _Server, settings: Settings) -> Finding:
    needed = settings.workers * connections_per_worker(settings)
    text = f"this server needs {needed} of PostgreSQL's {server.max_connections}; {server.used_connections} are in use"
    if needed > server.max_connections:
        remedy = "Raise max_connections of PostgreSQL, or lower SHM_DB_POOL or SHM_WORKERS."
        return Finding(Level.ERROR, "connections", text, remedy)
    return Finding(Level.OK, "connections", text)


def _check_clock(database: Database) -> Finding:
    difference = abs(database.clock.offset)
    if difference < MIN_REPORTED_OFFSET:
        return Finding(Level.OK, CLOCK, "this machine's clock and PostgreSQL's agree")
    return Finding(
        Level.WARNING,
        CLOCK,
        f"this machine's clock and PostgreSQL's differ by {difference.total_seconds():.0f} s",
        "Synchronize both by NTP. PostgreSQL's is used: while it is wrong, correct installs are refused.",
    )


def _check_background(server: _Server) -> Finding:
    age = timedelta(seconds=round(server.background_age_s))
    text = f"the last round of background jobs ended {age} ago"
    if age < STALE_ROUND:
        return Finding(Level.OK, "background", text)
    remedy = "If a server runs, its log names the job that fails. A start continues the jobs."
    return Finding(Level.NOTE, "background", text, remedy)


def _check_size(forecast: DiskForecast) -> Finding:
    text = f"the database has {forecast.database_bytes / 1024**2:.0f} MiB"
    full_in = forecast.full_in()
    if full_in is None or full_in >= WARNING_LEAD_TIME:
        return Finding(Level.OK, "size", text)
    return Finding(
        Level.WARNING,
        "size",
        f"{text} and is {forecast.describe_full_in()}",
        "Enlarge its disk or SHM_MAX_DISK, or keep raw snapshots for a shorter time (SHM_RETENTION).",
    )
