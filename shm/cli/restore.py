"""`shm restore`: restores a backup into an empty database, whole or not at all, and brings its schema up to date."""

import argparse
import shlex
from io import FileIO
from pathlib import Path

from shm.cli import database_command
from shm.cli.terminal import format_count, print_message
from shm.core.errors import ConfigurationError
from shm.core.settings import Settings
from shm.core.settings.flags import add_flags
from shm.core.signals import run_cancellable
from shm.db.backup import RestoredData, check_format, complete_restore, read_database, restore_backup
from shm.db.database import Database
from shm.db.migrations import migrate
from shm.db.schema_checks import DatabaseState
from shm.ingest.erased_list import ErasedList, erase_again, load_list
from shm.ingest.erasure import Eraser
from shm.ingest.key_cache import PublicKeyCache

HELP = "Restore a backup of `shm backup` into an empty database or a new data directory."


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the file and the flags of the database."""
    parser.add_argument(
        "file", metavar="FILE", nargs="?", type=Path, help="The backup. Not needed to erase from a restored database."
    )
    parser.add_argument(
        "--erased",
        metavar="LIST",
        type=Path,
        help="A file of `shm export --erased`: the installs in it are erased from the restored database again.",
    )
    add_flags(parser, *database_command.FLAGS)


def run(args: argparse.Namespace) -> int:
    """Restores the backup, erases the listed installs, or both."""

    def restore() -> int:
        settings = database_command.load_flags(args)
        erased = None if args.erased is None else load_list(args.erased)
        if args.file is not None:
            with _open(args.file) as file:
                check_format(file)  # before a data directory is created
                with database_command.open_dsn(settings) as (dsn, _):
                    _restore(settings, dsn, file, erased)
        elif erased is not None:
            with database_command.open_dsn(settings, create=False) as (dsn, _):
                state = run_cancellable(_read_state(settings, dsn))
                if not state.has_history:
                    raise ConfigurationError(
                        f"The database {state.database} in {state.source} has no data of SHM: restore a backup first."
                    )
                _erase(settings, dsn, erased)
        else:
            raise ConfigurationError("Name the backup to restore, or with --erased the installs to erase again.")
        print_message("`shm check` compares all figures of the restored database with its raw snapshots.")
        return 0

    return database_command.run_for_status(restore)


def _restore(settings: Settings, dsn: str, file: FileIO, erased: ErasedList | None) -> None:
    state = run_cancellable(_read_state(settings, dsn))
    restore_backup(dsn, state, file)
    try:
        restored = run_cancellable(_complete(settings, dsn))
    except BaseException:
        print_message(
            f"The backup is in the database {state.database}, but is not ready for a server: remove the restored data, "
            "and run the command again with an empty database or a new data directory."
        )
        raise
    print_message(_describe(restored))
    if erased is None:
        print_message("Installs that were erased after the backup are in it: --erased erases them again.")
        return
    since = erased.header.complete_since
    if restored.newest is not None and restored.newest < since:
        print_message(f"{erased.name} has no erasures from before {since:%Y-%m-%d}, and the backup is older.")
    _erase(settings, dsn, erased)


def _erase(settings: Settings, dsn: str, erased: ErasedList) -> None:
    """Erases the listed installs. If a signal or an error interrupts it, a message says how to continue."""
    try:
        instances = run_cancellable(_erase_again(settings, dsn, erased))
    except ConfigurationError:
        raise
    except BaseException:
        print_message(
            "Installs of the list may still be in the restored database: before a server starts, run "
            f"`shm restore --erased {shlex.quote(erased.name)}` with the same database."
        )
        raise
    created_at = erased.header.created_at
    print_message(
        f"Erased {format_count(instances, 'instance')} again, by the list of {created_at:%Y-%m-%d %H:%M:%S} UTC."
    )


def _open(path: Path) -> FileIO:
    """A file without a buffer: programs read on at its position."""
    try:
        return FileIO(path)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from None


def _describe(restored: RestoredData) -> str:
    newest = f"; the newest snapshot is from {restored.newest:%Y-%m-%d %H:%M:%S} UTC" if restored.newest else ""
    return f"Restored {format_count(restored.instances, 'instance')}{newest}."


async def _erase_again(settings: Settings, dsn: str, erased: ErasedList) -> int:
    async with Database.connect(settings, dsn, size=1) as database:
        await migrate(database)
        return await erase_again(database, Eraser(database, PublicKeyCache(database, settings), settings), erased)


async def _read_state(settings: Settings, dsn: str) -> DatabaseState:
    async with Database.connect(settings, dsn, size=1) as database:
        return await read_database(database)


async def _complete(settings: Settings, dsn: str) -> RestoredData:
    async with Database.connect(settings, dsn, size=1) as database:
        return await complete_restore(database)
