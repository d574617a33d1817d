"""Applies sql/migrations: forward only, each file in one transaction, under an advisory lock.

Every server migrates at its start, and any number of servers may start at once. `shm migrate` only migrates. A
statement ends with `;` at the end of a line; statements run one by one, as Citus requires.
"""

import hashlib
import logging
import re
from pathlib import Path

from shm.core.errors import ConfigurationError, StatementFailed
from shm.db.advisory_locks import Lock
from shm.db.connection import Connection
from shm.db.database import Database
from shm.db.statements import sql_directory

logger = logging.getLogger(__name__)

FILE_NAME = re.compile(r"([0-9]{4})_[a-z0-9_]+\.sql")

HISTORY_TABLE = "schema_migrations"
CREATE_HISTORY = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version integer PRIMARY KEY,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)"""
READ_HISTORY = "SELECT version, checksum FROM schema_migrations ORDER BY version"
READ_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"

SCHEMA_VERSION = 1  # the migration that creates the schema of the first release
CREATED_TABLE = re.compile(r"^CREATE TABLE (\w+)", re.MULTILINE)
EMPTY_DATABASE_HINT = "Start with an empty database: another `SHM_DB_DSN` or, without one, another `SHM_DATA_DIR`."


def load_migrations() -> dict[int, str]:
    """Version -> SQL of every migration of this release, in ascending order."""
    files = sorted((sql_directory() / "migrations").glob("*.sql"))
    return {_version(file): file.read_text(encoding="utf-8") for file in files}


async def migrate(database: Database) -> int:
    """Applies the missing migrations and returns their number.

    Raises ConfigurationError for a database that this release cannot migrate, and changes nothing in it.
    """
    async with database.dedicated_connection() as connection:
        lock = Lock.MIGRATIONS
        if await connection.execute_sql(f"SELECT pg_try_advisory_lock({lock})", "lock of migrations") != [(True,)]:
            logger.info("waiting for another server's migration")
            await connection.execute_sql(f"SELECT pg_advisory_lock({lock})", "lock of migrations")
        migrations = load_migrations()
        tables = {str(name) for (name,) in await connection.execute_sql(READ_TABLES, "list of tables")}
        rows = await connection.execute_sql(READ_HISTORY, HISTORY_TABLE) if HISTORY_TABLE in tables else []
        applied = {int(str(version)): str(checksum) for version, checksum in rows}
        _check_history(applied, migrations)
        if not applied:
            _check_no_conflicting_tables(tables, migrations)
            await connection.execute_sql(CREATE_HISTORY, "creation of schema_migrations")
        missing = [version for version in migrations if version not in applied]
        for version in missing:
            await _apply(connection, version, migrations[version])
        return len(missing)


async def _apply(connection: Connection, version: int, sql: str) -> None:
    """Applies a migration in one transaction. Raises ConfigurationError with PostgreSQL's message if it fails."""
    logger.info("applying migration %04d", version)
    name = next((sql_directory() / "migrations").glob(f"{version:04d}_*.sql")).name
    record = f"INSERT INTO schema_migrations (version, checksum) VALUES ({version}, '{_checksum(sql)}')"  # noqa: S608
    try:
        await connection.execute_sql("BEGIN", "BEGIN")
        for number, statement in enumerate(split_statements(sql), 1):
            await connection.execute_sql(statement, f"migration {name}, statement {number}")
        await connection.execute_sql(record, f"migration {name}, its record")
        await connection.execute_sql("COMMIT", f"migration {name}, COMMIT")
    except StatementFailed as error:
        raise ConfigurationError(f"PostgreSQL refused {error}. This migration was rolled back.") from None


def split_statements(sql: str) -> list[str]:
    """The statements of a migration, without comments between statements."""
    parts = re.split(r";[ ]*$", sql, flags=re.MULTILINE)
    return [part for part in parts if re.sub(r"--.*", "", part).strip()]


def _check_history(applied: dict[int, str], migrations: dict[int, str]) -> None:
    """Raises ConfigurationError if the applied migrations are not the first ones of this release."""
    if SCHEMA_VERSION in applied and applied[SCHEMA_VERSION] != _checksum(migrations[SCHEMA_VERSION]):
        raise ConfigurationError(
            "A development version from before the first release created this database. Its schema cannot be migrated. "
            f"{EMPTY_DATABASE_HINT} To keep its instances in a file, start the version that created it and run "
            "`shm export`."
        )
    for version, checksum in applied.items():
        if version not in migrations:
            raise ConfigurationError(
                f"The database has migration {version:04d}, which this release does not have: a newer SHM has used "
                "it. Start the newer release, or restore a backup."
            )
        if checksum != _checksum(migrations[version]):
            raise ConfigurationError(
                f"Migration {version:04d} in this release differs from the one that was applied to this database."
            )


def _check_no_conflicting_tables(tables: set[str], migrations: dict[int, str]) -> None:
    """Raises ConfigurationError if tables with names of the schema exist that no recorded migration created."""
    if conflicting := sorted(tables.intersection(CREATED_TABLE.findall(migrations[SCHEMA_VERSION]))):
        raise ConfigurationError(
            f"The database has tables with the names of SHM's own ({', '.join(conflicting)}), and no record that SHM "
            f"created them. {EMPTY_DATABASE_HINT}"
        )


def _checksum(sql: str) -> str:
    return hashlib.sha256(sql.encode()).hexdigest()


def _version(file: Path) -> int:
    match = FILE_NAME.fullmatch(file.name)
    if not match:
        raise ConfigurationError(f"{file} is not a migration: expected a name such as 0001_words.sql.")
    return int(match[1])
