"""`shm backup`: writes a backup of the database to a file, into a directory of backups, or to standard output.

It runs while servers run and blocks none of them. A file is complete or does not exist, and only its owner can read it.
"""

import argparse
import fcntl
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from shm.cli import database_command
from shm.cli.output_file import TEMPORARY_PREFIX, atomic_file
from shm.cli.terminal import print_message
from shm.core.errors import ConfigurationError
from shm.core.settings import Settings
from shm.core.settings.flags import add_flags
from shm.core.settings.parsers import parse_positive_int
from shm.core.signals import run_cancellable
from shm.db.backup import read_database, write_backup
from shm.db.database import Database
from shm.db.schema_checks import DatabaseState

HELP = "Write a backup of the database, while servers run. `shm restore` reads it."

NAME_FORMAT = "shm-%Y%m%dT%H%M%SZ.dump"
NAME = re.compile(r"shm-[0-9]{8}T[0-9]{6}Z\.dump")
UNFINISHED = re.compile(rf"{re.escape(TEMPORARY_PREFIX)}{NAME.pattern}\.[0-9a-f]+")


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the output."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--output", metavar="FILE", type=Path, help="Write to this file, atomically. Default: standard output."
    )
    where.add_argument(
        "--directory", metavar="DIR", type=Path, help="Write to a new file of this directory, named after the time."
    )
    parser.add_argument(
        "--keep",
        metavar="DAYS",
        type=_count,
        help="With --directory: keep only the newest backup of each of the last DAYS days that have one. Older backups "
        "are removed once the new one is complete.",
    )
    add_flags(parser, *database_command.FLAGS)


def run(args: argparse.Namespace) -> int:
    """Writes the backup."""
    if args.keep is not None and args.directory is None:
        raise ConfigurationError("--keep needs --directory: it removes older backups from it.")

    def back_up() -> int:
        settings = database_command.load_flags(args)
        with (
            _output(args.output, args.directory, args.keep) as file,
            database_command.open_dsn(settings, create=False, any_major=True) as (dsn, _),
        ):
            state = run_cancellable(_read_state(settings, dsn))
            write_backup(dsn, state, file)
            print_message(f"Backed up the schema {state.schema} of PostgreSQL {state.version}.")
        return 0

    return database_command.run_for_status(back_up)


async def _read_state(settings: Settings, dsn: str) -> DatabaseState:
    async with Database.connect(settings, dsn, size=1) as database:
        return await read_database(database)


@contextmanager
def _output(file: Path | None, directory: Path | None, keep: int | None) -> Iterator[Path | None]:
    """The path of a new, empty file; None for standard output."""
    if directory is not None:
        with _sole_writer(directory):
            _remove(_find(directory, UNFINISHED))
            with atomic_file(directory / datetime.now(UTC).strftime(NAME_FORMAT)) as path:
                yield path
            if keep is not None:
                _remove_old(directory, keep)
    elif file is not None:
        with atomic_file(file) as path:
            yield path
    elif sys.stdout.isatty():
        raise ConfigurationError("A backup is binary: name a file with --output, or redirect standard output.")
    else:
        yield None


@contextmanager
def _sole_writer(directory: Path) -> Iterator[None]:
    """Within this context, no other command writes backups into the directory, which is created if missing."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ConfigurationError(f"The directory {directory} cannot be used: {error.strerror}.") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ConfigurationError(f"Another shm backup writes into {directory}.") from None
    finally:
        os.close(descriptor)


def _remove_old(directory: Path, days: int) -> None:
    """Keeps one backup a day: a job that starts again and again would push out all older ones in an hour."""
    files = _find(directory, NAME)
    newest_by_day = {file.name.partition("T")[0]: file for file in files}
    _remove(set(files) - set(list(newest_by_day.values())[-days:]))


def _find(directory: Path, name: "re.Pattern[str]") -> list[Path]:
    """The files with such names, the oldest first."""
    return sorted(file for file in directory.iterdir() if name.fullmatch(file.name))


def _remove(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def _count(text: str) -> int:
    try:
        return parse_positive_int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected {error}") from None
