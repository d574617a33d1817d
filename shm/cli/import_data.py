"""`shm import`: takes over a complete export of another server, or a database of the original server.

Both have applications, installs with keys, and history. A second run continues an interrupted one.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from shm.cli import database_command
from shm.cli.progress import Progress
from shm.cli.terminal import format_count, print_message, print_result
from shm.core.errors import ConfigurationError
from shm.core.settings import Settings
from shm.core.settings.flags import add_flags
from shm.db import original_database
from shm.db.database import Database
from shm.db.migrations import migrate
from shm.db.partitions import create_missing
from shm.ingest.full_import import MIN_TIME, FullImport
from shm.ingest.history_import import MAX_BYTES_FACTOR, MAX_TIME_AHEAD, HistoryImporter, ImportResult

HELP = "Import everything from a file of `shm export --all`, or from a database of the original server."

SOURCE = "--from-dsn"
STANDARD_INPUT = Path("-")


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the source and the flags of the database."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "file", metavar="FILE", nargs="?", type=Path, help="The file of `shm export --all`; - reads standard input."
    )
    source.add_argument(SOURCE, metavar="DSN", help="The database of the original server. It is only read.")
    add_flags(parser, *database_command.FLAGS)


def run(args: argparse.Namespace) -> int:
    """Imports, and prints a summary."""

    async def import_file(database: Database, settings: Settings, file: BinaryIO) -> int:
        await create_missing(database, settings, back=database.clock.now() - MIN_TIME)
        importer = HistoryImporter(database, settings, keeps_revoked=True)
        full_import, progress = FullImport(importer, settings, database.clock.now()), Progress()
        done = 0
        try:
            while await full_import.store_page(file, str(args.file)):
                progress.total = full_import.expected
                progress.advance(full_import.instances - done, "installs")
                done = full_import.instances
        finally:
            progress.end()
            _print_summary(importer.result)
        print_message("Give this server the address of the other one: the installs go on reporting with their keys.")
        return 0

    async def import_original(database: Database, settings: Settings) -> int:
        await create_missing(database, settings)
        importer = HistoryImporter(database, settings)
        await _import_original(importer, database, settings, args.from_dsn)
        _print_summary(importer.result)
        print_message("Give this server the address of the original one: the installs go on reporting with their keys.")
        return 0

    if args.from_dsn is not None:
        return database_command.run(args, import_original, prepare=migrate)
    return database_command.run_with_resource(args, _input(args.file), import_file, prepare=migrate)


async def _import_original(importer: HistoryImporter, database: Database, settings: Settings, dsn: str) -> None:
    now, settings = database.clock.now(), replace(settings, dsn=dsn, dsn_source=SOURCE)
    async with (
        Database.connect(settings, dsn, size=1) as source,
        source.dedicated_connection() as connection,
    ):
        counts = await original_database.open_original(connection)
        progress = Progress(counts.instances + counts.snapshots)
        async for applications in original_database.read_applications(connection, now):
            await importer.store_applications(applications)
        async for instances in original_database.read_instances(connection, now):
            await importer.store_instances(instances)
            progress.advance(len(instances), "installs")
        oldest, newest = now - settings.retention, now + MAX_TIME_AHEAD
        max_bytes = MAX_BYTES_FACTOR * settings.max_body
        async for snapshots in original_database.read_snapshots(connection, oldest, newest, max_bytes):
            await importer.store_snapshots(snapshots)
            progress.advance(len(snapshots), "history")
        progress.end()


@contextmanager
def _input(path: Path) -> Iterator[BinaryIO]:
    if path == STANDARD_INPUT:
        yield sys.stdin.buffer
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from None
    with file:
        yield file


def _print_summary(result: ImportResult) -> None:
    installs, snapshots = format_count(result.instances, "install"), format_count(result.snapshots, "snapshot")
    print_result(f"imported {format_count(result.applications, 'application')}, {installs} and {snapshots}")
    if result.days:
        days = format_count(result.days, "daily value")
        print_result(f"imported {days} of charts from before the oldest snapshot")
    if result.known_instances or result.known_snapshots:
        installs = format_count(result.known_instances, "install")
        print_result(f"already stored: {installs} and {format_count(result.known_snapshots, 'snapshot')}")
    for reason, count in sorted(result.skipped.items()):
        print_result(f"skipped {reason}: {count}")
