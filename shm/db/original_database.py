"""Reads a database of the original server, page by page, over one connection. Changes nothing in it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from shm.core.errors import ConfigurationError
from shm.db.connection import Connection

PAGE = 500  # rows

# How many of these columns, which SHM does not have, are in the schema.
IS_ORIGINAL = """
SELECT count(*) FROM information_schema.columns
WHERE table_schema = current_schema() AND (table_name, column_name) IN (
    ('applications', 'app_slug'), ('instances', 'application_id'), ('snapshots', 'data')
)"""
ORIGINAL_COLUMNS = 3

SELECT_APPLICATIONS = """
SELECT id::text, app_slug, app_name, github_url, logo_url, coalesce(github_stars, 0), github_stars_updated_at,
    created_at
FROM applications ORDER BY app_slug"""

SELECT_INSTANCES = """
SELECT
    i.instance_id::text, encode(i.public_key, 'hex'), coalesce(a.app_name, i.app_name, ''), coalesce(i.app_version, ''),
    coalesce(i.environment, ''), coalesce(i.deployment_mode, ''), coalesce(i.os_arch, ''),
    coalesce(i.status, 'pending'),
    coalesce(i.created_at, i.last_seen_at, now()), coalesce(i.last_seen_at, i.created_at, now())
FROM instances i
LEFT JOIN applications a ON a.id = i.application_id
WHERE i.instance_id > '{after}'
ORDER BY i.instance_id
LIMIT {limit}"""

SELECT_SNAPSHOTS = """
SELECT id, instance_id::text, snapshot_at, data::text, snapshot_at <= now() - interval '{seconds} seconds'
FROM snapshots
WHERE id > {after}
ORDER BY id
LIMIT {limit}"""

COUNT_ROWS = "SELECT (SELECT count(*) FROM instances), (SELECT count(*) FROM snapshots)"


@dataclass(frozen=True, slots=True)
class OriginalApplication:
    """A row of `applications`."""

    id: str
    slug: str
    name: str
    github_url: str | None
    logo_url: str | None
    stars: int
    stars_updated_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class OriginalInstance:
    """A row of `instances`. `public_key`: the bytes of the column, which are hex digits as text, in hex."""

    instance_id: str
    public_key: str
    app_name: str
    app_version: str
    environment: str
    deployment_mode: str
    os_arch: str
    status: str
    created_at: datetime
    last_seen_at: datetime


@dataclass(frozen=True, slots=True)
class OriginalSnapshot:
    """A row of `snapshots`. `is_expired`: it is older than the retention."""

    id: int
    instance_id: str
    snapshot_at: datetime
    data: str
    is_expired: bool


async def is_original(connection: Connection) -> bool:
    """Whether the database is one of the original server."""
    ((count,),) = await connection.execute_sql(IS_ORIGINAL, "columns of the original's tables")
    return count == ORIGINAL_COLUMNS


async def count_rows(connection: Connection) -> tuple[int, int]:
    """The number of instances and of snapshots. Raises ConfigurationError for another database."""
    if not await is_original(connection):
        raise ConfigurationError(
            "The database of --from-dsn is not one of the original server: it does not have that server's tables "
            "applications, instances and snapshots."
        )
    ((instances, snapshots),) = await connection.execute_sql(COUNT_ROWS, "number of rows")
    return int(str(instances)), int(str(snapshots))


async def read_applications(connection: Connection) -> list[OriginalApplication]:
    """All applications."""
    rows = await connection.execute_sql(SELECT_APPLICATIONS, "applications")
    return [OriginalApplication(*row) for row in rows]  # type: ignore[arg-type]  # the types of the columns


async def read_instances(connection: Connection) -> AsyncIterator[list[OriginalInstance]]:
    """Pages of instances, in the order of their IDs."""
    after = "00000000-0000-0000-0000-000000000000"
    while True:
        sql = SELECT_INSTANCES.format(after=after, limit=PAGE)
        rows = await connection.execute_sql(sql, "instances")
        if not rows:
            return
        page = [OriginalInstance(*row) for row in rows]  # type: ignore[arg-type]  # the types of the columns
        yield page
        after = page[-1].instance_id


async def read_snapshots(connection: Connection, retention: timedelta) -> AsyncIterator[list[OriginalSnapshot]]:
    """Pages of snapshots, in the order in which they were stored."""
    after = -1
    while True:
        sql = SELECT_SNAPSHOTS.format(after=after, limit=PAGE, seconds=retention.total_seconds())
        rows = await connection.execute_sql(sql, "snapshots")
        if not rows:
            return
        page = [OriginalSnapshot(*row) for row in rows]  # type: ignore[arg-type]  # the types of the columns
        yield page
        after = page[-1].id
