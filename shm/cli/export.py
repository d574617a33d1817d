"""`shm export`: writes all instances with their current metrics, read directly from the database.

Writes to standard output, or atomically to a file that only its owner can read.
"""

import argparse
import os
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import get_args

import msgspec

from shm.analytics import export
from shm.analytics.instances import InstanceFilter, InstanceReader
from shm.cli import database_command
from shm.cli.terminal import print_message
from shm.core.errors import ConfigurationError
from shm.core.settings import Settings, add_flags
from shm.core.signals import interruptible
from shm.db.database import Database
from shm.db.migrations import migrate

HELP = "All instances with their current metrics, as CSV or JSON lines."

Write = Callable[[bytes], object]


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the filter, the format and the output."""
    parser.add_argument("--app", metavar="…", help="Of one application, by its slug or name. Default: of all.")
    parser.add_argument("--q", metavar="…", help="Those with this in their ID, version, environment or mode.")
    parser.add_argument("--status", choices=["pending", "active", "revoked"])
    parser.add_argument("--version", metavar="…", help="Those of exactly this version.")
    parser.add_argument("--environment", metavar="…", help="Those in exactly this environment.")
    parser.add_argument("--format", choices=get_args(export.Format), default="csv", help="Default: csv.")
    parser.add_argument(
        "--output", metavar="FILE", type=Path, help="A file, written whole or not at all. Default: standard output."
    )
    add_flags(parser, *database_command.FLAGS)


def run(args: argparse.Namespace) -> int:
    """Runs the export."""
    wanted = msgspec.convert({name: vars(args)[name] for name in InstanceFilter.__struct_fields__}, InstanceFilter)

    async def write_all(database: Database, settings: Settings, write: Write) -> int:
        await _export(database, settings, wanted, args.format, write)
        return 0

    return database_command.run_with(args, _output(args.output), write_all)


async def _export(
    database: Database, settings: Settings, wanted: InstanceFilter, form: export.Format, write: Write
) -> None:
    await migrate(database)
    begun = await export.open_export(InstanceReader(database, settings), wanted, form)
    if begun.omitted_columns:
        print_message(f"{begun.omitted_columns} metrics have no column; JSON lines have them all.")
    async with aclosing(begun.chunks) as pieces:
        async for piece in pieces:
            write(piece)


@contextmanager
def _output(file: Path | None) -> Iterator[Write]:
    if file is None:
        with _standard_output() as write:
            yield write
        return
    file = file.resolve()
    if file.exists() and not file.is_file():
        raise ConfigurationError(f"{file} is no file that could be replaced; leave --output out and redirect.")
    unfinished = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as handle:
                yield handle.write
                handle.flush()
                os.fsync(descriptor)
            unfinished.replace(file)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be written: {error.strerror}.") from None


@contextmanager
def _standard_output() -> Iterator[Write]:
    try:
        yield sys.stdout.buffer.write
        with interruptible():  # blocks while the reader of a pipe does not read
            sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it at exit and would fail
        if isinstance(error, BrokenPipeError):
            raise
        raise ConfigurationError(f"Nothing can be written: {error.strerror}.") from None
