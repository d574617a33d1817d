"""`shm restore`: restores a backup into an empty database, whole or not at all, and brings its schema up to date."""

import argparse
import asyncio
from pathlib import Path

from shm.cli import database_command
from shm.cli.terminal import print_message
from shm.core.errors import ConfigurationError
from shm.core.settings import Settings, add_flags
from shm.core.signals import interruptible
from shm.db.backup import RestoredData, check_format, complete_restore, read_database, restore_backup
from shm.db.database import Database
from shm.db.schema_checks import DatabaseState

HELP = "Restore a backup of `shm backup` into an empty database or a new data directory."


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the file and the flags of the database."""
    parser.add_argument("file", metavar="FILE", type=Path, help="The backup.")
    add_flags(parser, *database_command.FLAGS)


def run(args: argparse.Namespace) -> int:
    """Restores the backup."""

    def restore() -> int:
        settings = database_command.load_flags(args)
        try:
            file = args.file.open("rb", buffering=0)  # programs read on at its position
        except OSError as error:
            raise ConfigurationError(f"{args.file} cannot be read: {error.strerror}.") from None
        with file:
            check_format(file)  # before a data directory is created
            with database_command.open_dsn(settings) as (dsn, _):
                with interruptible():
                    state = asyncio.run(_read_state(settings, dsn))
                restore_backup(dsn, state, file)
                with interruptible():
                    restored = asyncio.run(_complete(settings, dsn))
        newest = f"; the newest snapshot is from {restored.newest:%Y-%m-%d %H:%M:%S} UTC" if restored.newest else ""
        number = "1 instance" if restored.instances == 1 else f"{restored.instances} instances"
        print_message(f"Restored {number}{newest}.")
        print_message("`shm check` compares all figures of the restored database with its raw snapshots.")
        return 0

    return database_command.run_for_status(restore)


async def _read_state(settings: Settings, dsn: str) -> DatabaseState:
    async with Database.connect(settings, dsn, size=1) as database:
        return await read_database(database)


async def _complete(settings: Settings, dsn: str) -> RestoredData:
    async with Database.connect(settings, dsn, size=1) as database:
        return await complete_restore(database)
