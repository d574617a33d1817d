"""Backups: a dump of SHM's schema by pg_dump in its compressed format, and its restoration into an empty database.

A dump is one snapshot of the database and blocks neither reads nor writes. It contains everything of the schema that
SHM uses, and no owners or privileges, so that a server of another role can use it.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from shm.core.errors import ConfigurationError
from shm.db.client_programs import check_success, describe_missing_tls, find_program, run_client
from shm.db.connection import Connection
from shm.db.database import Database
from shm.db.embedded.programs import run_program
from shm.db.migrations import load_checksums, migrate
from shm.db.schema_checks import HISTORY_TABLE, DatabaseState, check_can_create, check_writable, read_state

MAGIC = b"PGDMP"  # the first bytes of pg_dump's format
LOCK_TIMEOUT = "60s"  # a change of the schema, such as a new weekly partition, takes less
SKIPPED_CURSORS = 1_000_000_000  # more than a server issues between a backup and its loss

SOURCE_VERSION = re.compile(r"^;\s+Dumped from database version: ([0-9]+)", re.MULTILINE)
HISTORY_ENTRY = re.compile(rf"^[0-9]+; [0-9]+ [0-9]+ TABLE (.+) {HISTORY_TABLE} \S+$", re.MULTILINE)
HISTORY_ROW = re.compile(r"^([0-9]+)\t([0-9a-f]{64})\t", re.MULTILINE)


# What pg_restore says, and what to do then. The database is as empty as before.
RESTORE_REMEDIES = [
    (re.compile(pattern), remedy)
    for pattern, remedy in (
        (
            r"already exists|_nsp_index",
            "Another command restores into this database, or pg_restore of one that was killed: use another empty one.",
        ),
        (
            r"could not read from input file|could not uncompress|incorrect data check|unexpected end of file|corrupt",
            "The backup is damaged or incomplete: use another one.",
        ),
        (r"No space left on device", "Free space on the disk of PostgreSQL, and run the command again."),
        (
            r"server closed the connection|terminating connection",
            "PostgreSQL ended meanwhile. Its log says why, such as a full disk.",
        ),
    )
]


@dataclass(frozen=True, slots=True)
class Archive:
    """The header of a backup: the major version of its PostgreSQL, and the schema that SHM's tables are in."""

    major: int
    schema: str


@dataclass(frozen=True, slots=True)
class RestoredData:
    """The content of a restored database. `newest` is the time of the newest current snapshot."""

    instances: int
    newest: datetime | None


async def read_database(database: Database) -> DatabaseState:
    """The state of a database. Raises ConfigurationError as `read_state`."""
    async with database.dedicated_connection() as connection:
        return await read_state(connection, database.dsn_source)


def find_backup_problem(state: DatabaseState) -> str:
    """Why this machine's programs cannot back up a database, with the remedy; empty if they can."""
    try:
        program = find_program("pg_dump", state.major)
    except ConfigurationError as error:
        return str(error)
    needs_tls = state.sslmode not in ("disable", "allow", "prefer")
    return describe_missing_tls(program) if needs_tls else ""


def write_backup(dsn: str, state: DatabaseState, file: Path | None) -> None:
    """Writes a backup of the database into an existing file, or to standard output. Raises ConfigurationError."""
    if not state.has_history:
        raise ConfigurationError(f"The database {state.database} in {state.source} has no data of SHM to back up.")
    schema = state.schema.replace('"', '""')
    run_client(
        find_program("pg_dump", state.major),
        *("--format=custom", f'--schema="{schema}"', "--no-owner", "--no-privileges"),
        f"--lock-wait-timeout={LOCK_TIMEOUT}",
        *([] if file is None else [f"--file={file}"]),
        dsn=dsn,
        sslmode=state.sslmode,
        stdout=sys.stdout.buffer if file is None else None,
    )


def restore_backup(dsn: str, state: DatabaseState, file: BinaryIO) -> None:
    """Restores a backup into an empty database, whole or not at all.

    Raises ConfigurationError if the file is no backup, if this release or the database is too old for it, or if the
    database is not empty. Nothing is changed then.
    """
    check_format(file)
    check_writable(state)
    check_can_create(state)
    if state.relations:
        tables = ", ".join(sorted(state.relations)[:3])
        raise ConfigurationError(
            f"The database {state.database} in {state.source} is not empty (it has {tables} …), and a backup is "
            f"restored into an empty one only. {state.empty_database_hint()}"
        )
    pg_restore = find_program("pg_restore", state.major)
    archive = read_archive(pg_restore, state, file)
    if archive.schema != state.schema:
        raise ConfigurationError(
            f"The backup has the schema {archive.schema}, and the role {state.role} creates its tables in "
            f'{state.schema}: run `CREATE SCHEMA "{archive.schema}" AUTHORIZATION "{state.role}"` in the database '
            f"{state.database}, and add `options=-csearch_path={archive.schema}` to {state.source}."
        )
    _check_release(pg_restore, archive, file)
    file.seek(0)
    with _explain_failure():
        run_client(
            pg_restore,
            *("--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges", f"--schema={archive.schema}"),
            dsn=dsn,
            sslmode=state.sslmode,
            stdin=file,
        )


async def complete_restore(database: Database) -> RestoredData:
    """Brings a restored database up to date and to one moment, moves the feed, and collects planner statistics."""
    await migrate(database)
    async with database.dedicated_connection() as connection:
        await connection.execute("feed.delete_later_snapshots")
        await connection.execute("feed.skip_cursors", skipped=SKIPPED_CURSORS)
        await _analyze(connection)
    (restored,) = await database.fetch(RestoredData, "health.summarize")
    return restored


def check_format(file: BinaryIO) -> None:
    """Raises ConfigurationError if a file is not in pg_dump's format."""
    file.seek(0)
    if file.read(len(MAGIC)) != MAGIC:
        raise ConfigurationError(f"{file.name} is no backup: `shm backup` makes one.")


def read_archive(pg_restore: Path, state: DatabaseState, file: BinaryIO) -> Archive:
    """The header of a backup. Raises ConfigurationError if the database's PostgreSQL is older than the backup's."""
    listing = "\n".join(_read(pg_restore, file, "--list", older_than_backup=state))
    source_version, history = SOURCE_VERSION.search(listing), HISTORY_ENTRY.search(listing)
    if source_version is None or history is None:
        raise ConfigurationError(f"{file.name} is a dump of another application: it has no tables of SHM.")
    if int(source_version[1]) > int(state.major):
        raise _is_newer(file, f"PostgreSQL {source_version[1]}", state)
    return Archive(int(source_version[1]), history[1])


def _check_release(pg_restore: Path, archive: Archive, file: BinaryIO) -> None:
    """Raises ConfigurationError if the schema of a backup is not one that this release can bring up to date."""
    options = ("--data-only", f"--schema={archive.schema}", f"--table={HISTORY_TABLE}", "--file=-")
    rows = HISTORY_ROW.findall("\n".join(_read(pg_restore, file, *options)))
    known = load_checksums()
    unknown = [int(version) for version, checksum in rows if known.get(int(version)) != checksum]
    if unknown or not rows:
        problem = f"has migration {min(unknown):04d}, which this release does not have" if unknown else "is incomplete"
        raise ConfigurationError(
            f"{file.name} {problem}: restore it with the release of SHM that made it, or with a newer one."
        )


def _read(pg_restore: Path, file: BinaryIO, *options: str, older_than_backup: DatabaseState | None = None) -> list[str]:
    """Runs pg_restore on a file, without a database, and returns its output."""
    file.seek(0)
    status, output = run_program([str(pg_restore), *options], None, can_terminate=lambda: True, stdin=file)
    if status != 0 and older_than_backup is not None and any("unsupported version" in line for line in output):
        raise _is_newer(file, "a newer PostgreSQL", older_than_backup)
    with _explain_failure():
        check_success(pg_restore, status, output)
    return output


@contextmanager
def _explain_failure() -> Iterator[None]:
    """Adds the remedy to a failure of pg_restore."""
    try:
        yield
    except ConfigurationError as error:
        remedy = next((remedy for pattern, remedy in RESTORE_REMEDIES if pattern.search(str(error))), "")
        raise ConfigurationError(f"{error} {remedy}".rstrip()) from None


def _is_newer(file: BinaryIO, version: str, state: DatabaseState) -> ConfigurationError:
    return ConfigurationError(
        f"{file.name} was made from {version}, and the database {state.database} in {state.source} is on PostgreSQL "
        f"{state.version}: restore it into a PostgreSQL that is not older than the backup's."
    )


async def _analyze(connection: Connection) -> None:
    """Collects statistics at once: autovacuum never analyses tables as small as those of one row."""
    await connection.execute_sql("ANALYZE", "ANALYZE")
