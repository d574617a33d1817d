"""Reads a database of the original server, page by page, over one connection that cannot change it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime

from shm.core.errors import ConfigurationError
from shm.db.connection import Connection

PAGE_SIZE = 500  # rows
MAX_TEXT = 1_024  # characters that are read of a text, more than any limit of one
MAX_KEY_BYTES = 65  # bytes that are read of a public key, which has 64
MIN_TIME = datetime(2000, 1, 1, tzinfo=UTC)  # time of an application or instance; an older one becomes this


@dataclass(frozen=True, slots=True)
class OriginalApplication:
    """A row of `applications`. Its texts have at most `MAX_TEXT` characters, but for the slug."""

    id: str | None
    slug: str
    name: str | None
    github_url: str | None
    logo_url: str | None
    stars: int
    stars_updated_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class OriginalInstance:
    """A row of `instances`. `public_key`: the bytes of the column, which are hex digits as text, in hex."""

    instance_id: str
    public_key: str | None
    app_name: str | None
    app_version: str
    environment: str
    deployment_mode: str
    os_arch: str
    status: str
    created_at: datetime
    last_seen_at: datetime


@dataclass(frozen=True, slots=True)
class OriginalSnapshot:
    """A row of `snapshots`.

    `snapshot_at` is None for a time that is too old (`is_expired`), in the future or missing, `data` beyond the limit.
    """

    id: int
    instance_id: str
    snapshot_at: datetime | None
    is_expired: bool
    data: str | None


@dataclass(frozen=True, slots=True)
class _Tables:
    is_original: bool
    has_applications: bool


@dataclass(frozen=True, slots=True)
class RowCounts:
    """The numbers of rows."""

    instances: int
    snapshots: int


@dataclass(frozen=True, slots=True)
class _SetConfigResult:
    set_config: str


async def is_original(connection: Connection) -> bool:
    """Whether the database is one of the original server."""
    (tables,) = await connection.fetch_original(_Tables, "read.find_tables")
    return tables.is_original


async def open_original(connection: Connection) -> RowCounts:
    """Makes the session read-only, and counts the rows. Raises ConfigurationError for another database."""
    await connection.fetch_original(_SetConfigResult, "read.set_read_only")
    (tables,) = await connection.fetch_original(_Tables, "read.find_tables")
    if not tables.is_original:
        raise ConfigurationError(
            "The database of --from-dsn is not one of the original server: it does not have that server's tables "
            "instances and snapshots."
        )
    if not tables.has_applications:
        raise ConfigurationError(
            "The database of --from-dsn is of the original's first release, without its table applications: run the "
            "original's migration 002_applications.sql in it, then import it."
        )
    (counts,) = await connection.fetch_original(RowCounts, "read.count_rows")
    return counts


async def read_applications(connection: Connection, now: datetime) -> AsyncIterator[list[OriginalApplication]]:
    """Pages of applications, in the order of their slugs. No time in them is after `now`."""
    after_slug: str | None = None
    after_id: str | None = None
    while page := await connection.fetch_original(
        OriginalApplication,
        "read.select_applications",
        after_slug=after_slug,
        after_id=after_id,
        limit=PAGE_SIZE,
        max_text=MAX_TEXT,
        oldest=MIN_TIME,
        now=now,
    ):
        yield page
        after_slug, after_id = page[-1].slug, page[-1].id


async def read_instances(connection: Connection, now: datetime) -> AsyncIterator[list[OriginalInstance]]:
    """Pages of instances, in the order of their IDs. No time in them is after `now`."""
    after: str | None = None
    while page := await connection.fetch_original(
        OriginalInstance,
        "read.select_instances",
        after=after,
        limit=PAGE_SIZE,
        max_text=MAX_TEXT,
        max_key=MAX_KEY_BYTES,
        oldest=MIN_TIME,
        now=now,
    ):
        yield page
        after = page[-1].instance_id


async def read_snapshots(
    connection: Connection, since: datetime, until: datetime, max_bytes: int
) -> AsyncIterator[list[OriginalSnapshot]]:
    """Pages of snapshots, in the order in which they were stored."""
    after = -1
    while page := await connection.fetch_original(
        OriginalSnapshot,
        "read.select_snapshots",
        after=after,
        limit=PAGE_SIZE,
        since=since,
        until=until,
        max_bytes=max_bytes,
    ):
        yield page
        after = page[-1].id
