"""Applies sql/migrations: forward only, each file in one transaction, under an advisory lock.

Every server migrates at its start, and any number of servers may start at once. `shm migrate` only migrates. A
statement ends with `;` at the end of a line, except within `$$`; statements run one by one, as Citus requires.
"""

import hashlib
import logging
import re
from pathlib import Path

from shm.core.errors import ConfigurationError, StatementFailed
from shm.db.advisory_locks import Lock
from shm.db.connection import Connection
from shm.db.database import Database
from shm.db.schema_checks import (
    HISTORY_TABLE,
    DatabaseState,
    check_can_create,
    check_no_conflicts,
    check_writable,
    read_state,
)
from shm.db.statements import sql_directory

logger = logging.getLogger(__name__)

FILE_NAME = re.compile(r"([0-9]{4})_[a-z0-9_]+\.sql")

STATEMENT_END = re.compile(r"\$\$.*?\$\$|(?P<end>;[ ]*$)", re.MULTILINE | re.DOTALL)  # outside the body of a function

CREATE_HISTORY = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version integer PRIMARY KEY,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)"""
READ_HISTORY = "SELECT version, checksum FROM schema_migrations ORDER BY version"
SCHEMA_VERSION = 1  # the migration that creates the schema of the first release


def load_migrations() -> dict[int, str]:
    """Version -> SQL of every migration of this release, in ascending order."""
    files = sorted((sql_directory() / "migrations").glob("*.sql"))
    return {_version(file): file.read_text(encoding="utf-8") for file in files}


def load_checksums() -> dict[int, str]:
    """Version -> checksum of every migration of this release, as `schema_migrations` has them."""
    return {version: _checksum(sql) for version, sql in load_migrations().items()}


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
        state = await read_state(connection, database.dsn_source)
        applied = await _read_history(connection, state)
        _check_history(applied, migrations, state)
        check_writable(state)
        missing = [version for version in migrations if version not in applied]
        if missing:
            check_can_create(state)
            check_no_conflicts(
                state, [migrations[version] for version in applied], [migrations[version] for version in missing]
            )
        for version in missing:
            await _apply(connection, version, migrations[version])
        return len(missing)


async def check_schema(database: Database) -> None:
    """Checks that the schema is that of this release, for a command that only reads. Changes nothing.

    Raises ConfigurationError.
    """
    async with database.dedicated_connection() as connection:
        state = await read_state(connection, database.dsn_source)
        migrations = load_migrations()
        applied = await _read_history(connection, state)
        _check_history(applied, migrations, state)
        if len(applied) < len(migrations):
            problem = "is of an earlier release" if applied else "does not exist yet"
            raise ConfigurationError(
                f"SHM's schema in the database {state.database} {problem}, and this command only reads: `shm migrate` "
                "or a start of `shm serve` brings it up to date."
            )


async def _read_history(connection: Connection, state: DatabaseState) -> dict[int, str]:
    """Version -> checksum of the applied migrations."""
    rows = await connection.execute_sql(READ_HISTORY, HISTORY_TABLE) if state.has_history else []
    return {int(str(version)): str(checksum) for version, checksum in rows}


async def _apply(connection: Connection, version: int, sql: str) -> None:
    """Applies a migration in one transaction. Raises ConfigurationError with PostgreSQL's message if it fails."""
    logger.info("applying migration %04d", version)
    name = next((sql_directory() / "migrations").glob(f"{version:04d}_*.sql")).name
    record = f"INSERT INTO schema_migrations (version, checksum) VALUES ({version}, '{_checksum(sql)}')"  # noqa: S608
    try:
        await connection.execute_sql("BEGIN", "BEGIN")
        await connection.execute_sql(CREATE_HISTORY, "creation of schema_migrations")
        for number, statement in enumerate(split_statements(sql), 1):
            await connection.execute_sql(statement, f"migration {name}, statement {number}")
        await connection.execute_sql(record, f"migration {name}, its record")
        await connection.execute_sql("COMMIT", f"migration {name}, COMMIT")
    except StatementFailed as error:
        raise ConfigurationError(f"PostgreSQL refused {error}. This migration was rolled back.") from None


def split_statements(sql: str) -> list[str]:
    """The statements of a migration, without comments between statements."""
    ends = [match.start() for match in STATEMENT_END.finditer(sql) if match["end"]]
    parts = [sql[start:end].lstrip(";") for start, end in zip([0, *ends], [*ends, len(sql)], strict=True)]
    return [part for part in parts if re.sub(r"--.*", "", part).strip()]


def _check_history(applied: dict[int, str], migrations: dict[int, str], state: DatabaseState) -> None:
    """Raises ConfigurationError if the applied migrations are not the first ones of this release."""
    if SCHEMA_VERSION in applied and applied[SCHEMA_VERSION] != _checksum(migrations[SCHEMA_VERSION]):
        raise ConfigurationError(
            "A development version from before the first release created this database. Its schema cannot be migrated. "
            f"{state.empty_database_hint()} To keep its instances in a file, start the version that created it and run "
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


def _checksum(sql: str) -> str:
    return hashlib.sha256(sql.encode()).hexdigest()


def _version(file: Path) -> int:
    match = FILE_NAME.fullmatch(file.name)
    if not match:
        raise ConfigurationError(f"{file} is not a migration: expected a name such as 0001_words.sql.")
    return int(match[1])
