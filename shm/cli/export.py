"""`shm export`: writes all instances with their current metrics, or everything, read directly from the database.

Writes to standard output, without control characters if that is a terminal, or atomically to a file that only its owner
can read.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import BinaryIO, get_args

import msgspec

from shm.analytics import export
from shm.analytics.instances import InstanceFilter, InstanceReader
from shm.cli import database_command
from shm.cli.output_file import atomic_file
from shm.cli.progress import Progress
from shm.cli.terminal import format_count, print_message, strip_control_characters
from shm.core.errors import ConfigurationError
from shm.core.settings import Settings
from shm.core.settings.flags import add_flags
from shm.core.signals import interruptible
from shm.db.database import Database
from shm.db.migrations import check_schema
from shm.ingest import erased_list
from shm.ingest.export_records import ApplicationRecord, InstanceRecord, SnapshotRecord
from shm.ingest.full_export import FullExport

HELP = "Write all instances with their current metrics as CSV or JSON lines, or everything for another server."

FILTER = (
    "app",
    "q",
    "status",
    "version",
    "environment",
    "where",
    "format",
    "bom",
)  # flags of neither --all nor --erased

Write = Callable[[bytes], object]


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the filter, the format and the output."""
    everything = parser.add_mutually_exclusive_group()
    everything.add_argument(
        "--all",
        action="store_true",
        help="Write everything for `shm import`: applications, installs with their keys, all snapshots.",
    )
    everything.add_argument(
        "--erased",
        action="store_true",
        help="Write hashes of the erased installs, which `shm restore --erased` erases from a restored backup again. "
        "Entries of the file in --output that the database lacks are kept.",
    )
    parser.add_argument("--app", metavar="…", help="Only instances of this application (slug or name).")
    parser.add_argument("--q", metavar="…", help="Only instances with this text in ID, version, environment or mode.")
    parser.add_argument("--status", choices=["pending", "active", "revoked"], help="Only instances with this status.")
    parser.add_argument("--version", metavar="…", help="Only instances with this release, in any spelling.")
    parser.add_argument("--environment", metavar="…", help="Only instances in exactly this environment.")
    parser.add_argument(
        "--where",
        metavar="…",
        action="append",
        default=[],
        help="Only instances with this condition, such as version>=1.4. It may occur several times.",
    )
    parser.add_argument("--format", choices=get_args(export.Format), help="Default: csv.")
    parser.add_argument(
        "--bom", action="store_true", help="Begin a CSV file with a byte order mark, by which Excel detects UTF-8."
    )
    parser.add_argument(
        "--output", metavar="FILE", type=Path, help="Write to this file, atomically. Default: standard output."
    )
    add_flags(parser, *database_command.FLAGS)


def run(args: argparse.Namespace) -> int:
    """Runs the export."""
    if args.all or args.erased:
        return _run_records(args)
    output_format: export.Format = args.format or "csv"
    selection = msgspec.convert({name: vars(args)[name] for name in InstanceFilter.__struct_fields__}, InstanceFilter)

    async def write_all(database: Database, settings: Settings, write: Write) -> int:
        if args.bom and output_format == "csv":
            write(export.BYTE_ORDER_MARK)
        await _export(database, settings, selection, output_format, write)
        return 0

    return database_command.run_with_resource(args, _output(args.output), write_all, prepare=check_schema)


def _run_records(args: argparse.Namespace) -> int:
    unused = [f"--{name}" for name in FILTER if getattr(args, name)]
    if unused:
        flag = "--all" if args.all else "--erased"
        raise ConfigurationError(f"{flag} writes everything, so it cannot be combined with {', '.join(unused)}.")

    replaces_list = args.erased and args.output and args.output.is_file() and args.output.stat().st_size
    earlier = erased_list.load_list(args.output) if replaces_list else None

    async def write_erased(database: Database, settings: Settings, write: Write) -> int:
        async with aclosing(erased_list.read_list(database, settings, earlier)) as chunks:
            async for chunk in chunks:
                write(chunk)
        return 0

    async def write_all(database: Database, settings: Settings, write: Write) -> int:
        full_export, progress, done = FullExport(database, settings), Progress(), 0
        async with aclosing(full_export.read_lines()) as chunks:
            async for chunk in chunks:
                write(chunk)
                progress.total, instances = full_export.instances, full_export.counts[InstanceRecord]
                progress.advance(instances - done, "installs")
                done = instances
        progress.end()
        nouns = {ApplicationRecord: "application", InstanceRecord: "install", SnapshotRecord: "snapshot"}
        applications, installs, snapshots = (format_count(full_export.counts[each], nouns[each]) for each in nouns)
        print_message(f"Exported {applications}, {installs} and {snapshots}.")
        return 0

    write_records = write_all if args.all else write_erased
    return database_command.run_with_resource(args, _output(args.output), write_records, prepare=check_schema)


async def _export(
    database: Database, settings: Settings, selection: InstanceFilter, output_format: export.Format, write: Write
) -> None:
    exported = await export.open_export(InstanceReader(database, settings), selection, output_format)
    if exported.omitted_columns:
        print_message(f"{exported.omitted_columns} metrics have no column; --format jsonl has all of them.")
    async with aclosing(exported.chunks) as chunks:
        async for chunk in chunks:
            write(chunk)


@contextmanager
def _output(file: Path | None) -> Iterator[Write]:
    if file is None:
        with _standard_output() as write:
            yield write
        return
    with atomic_file(file) as path, path.open("wb") as output:
        yield output.write


@contextmanager
def _standard_output() -> Iterator[Write]:
    output = sys.stdout.buffer
    try:
        yield _interruptible(_terminal_writer(output) if output.isatty() else output.write)
        with interruptible():
            sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it at exit and would fail
        if isinstance(error, BrokenPipeError):
            raise
        raise ConfigurationError(f"Standard output cannot be written: {error.strerror}.") from None


def _interruptible(write: Write) -> Write:
    """A signal interrupts it: it blocks while the reader of a pipe does not read."""

    def write_interruptibly(chunk: bytes) -> None:
        with interruptible():
            write(chunk)

    return write_interruptibly


def _terminal_writer(output: BinaryIO) -> Write:
    """Writes text without the control characters that installs sent: a terminal would execute them."""

    def write(chunk: bytes) -> None:
        lines = chunk.decode("utf-8", "replace").replace("\r\n", "\n").split("\n")
        output.write("\n".join(map(strip_control_characters, lines)).encode())

    return write
