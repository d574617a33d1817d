"""`shm import --from-dsn`: takes over a database of the original server: applications, installs with keys, history.

The other database is only read. A second run continues an interrupted one.
"""

import argparse
import sys
from dataclasses import replace

from shm.cli import database_command
from shm.cli.terminal import print_message, print_result
from shm.core.settings import Settings, add_flags
from shm.db import original_database
from shm.db.database import Database
from shm.db.migrations import migrate
from shm.db.partitions import create_missing
from shm.ingest.history_import import MAX_AHEAD, MAX_BYTES_FACTOR, HistoryImporter, ImportResult

HELP = "Import the applications, installs and history of a database of the original server."

SOURCE = "--from-dsn"
BAR_WIDTH = 30  # characters


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument(
        SOURCE, metavar="DSN", required=True, help="The database of the original server. It is only read."
    )
    add_flags(parser, *database_command.FLAGS)


def run(args: argparse.Namespace) -> int:
    """Imports, and prints a summary."""

    async def import_all(database: Database, settings: Settings) -> int:
        await create_missing(database, settings)
        source_settings = replace(settings, dsn=args.from_dsn, dsn_source=SOURCE)
        async with (
            Database.connect(source_settings, args.from_dsn, size=1) as source,
            source.dedicated_connection() as connection,
        ):
            counts = await original_database.open_original(connection)
            importer, now = HistoryImporter(database, settings), database.clock.now()
            progress = _Progress(counts.instances + counts.snapshots)
            async for applications in original_database.read_applications(connection, now):
                await importer.store_applications(applications)
            async for instances in original_database.read_instances(connection, now):
                await importer.store_instances(instances)
                progress.advance(len(instances), "installs")
            async for snapshots in original_database.read_snapshots(
                connection, now - settings.retention, now + MAX_AHEAD, MAX_BYTES_FACTOR * settings.max_body
            ):
                await importer.store_snapshots(snapshots)
                progress.advance(len(snapshots), "history")
            progress.end()
        _print_summary(importer.result)
        return 0

    return database_command.run(args, import_all, prepare=migrate)


class _Progress:
    """A bar on standard error, if that is a terminal."""

    def __init__(self, total: int) -> None:
        self._total, self._done = max(1, total), 0
        self._is_shown = sys.stderr.isatty()

    def advance(self, count: int, items: str) -> None:
        """Draws the bar after `count` more rows."""
        self._done += count
        if self._is_shown:
            share = min(1.0, self._done / self._total)
            filled = round(share * BAR_WIDTH)
            bar = "#" * filled + "." * (BAR_WIDTH - filled)
            sys.stderr.write(f"\r[{bar}] {share:4.0%} {items:<10}")
            sys.stderr.flush()

    def end(self) -> None:
        """Leaves the bar."""
        if self._is_shown:
            sys.stderr.write("\n")


def _print_summary(result: ImportResult) -> None:
    print_result(
        f"imported {result.applications} applications, {result.instances} installs and {result.snapshots} snapshots"
    )
    if result.known_instances or result.known_snapshots:
        print_result(f"already here: {result.known_instances} installs and {result.known_snapshots} snapshots")
    for reason, count in sorted(result.skipped.items()):
        print_result(f"skipped {count} {reason}")
    print_message("Give this server the address of the original one: the installs go on reporting with their keys.")
