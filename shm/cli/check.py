"""`shm check`: compares all derived figures with the raw snapshots; `--repair` corrects them.

It may run while servers run. Standard output has a line for each difference. The exit status is 0 if there is none.
"""

import argparse

from shm.analytics.consistency import STALE_SERIES, Report, find_differences, open_repairer
from shm.cli import database_command
from shm.cli.terminal import format_count, print_message, print_result, strip_control_characters
from shm.core.errors import ConfigurationError
from shm.core.settings.flags import add_flags
from shm.db.database import Database
from shm.db.migrations import check_schema, migrate

HELP = (
    "Recompute counts, KPIs, charts, spreads and first versions from the raw snapshots and list each difference; "
    "--repair corrects them. Standard error shows the progress."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `shm migrate`, and `--repair`."""
    add_flags(parser, *database_command.FLAGS)
    parser.add_argument(
        "--repair",
        action="store_true",
        help="Correct the differences. The metrics that installs sent are never changed.",
    )


def run(args: argparse.Namespace) -> int:
    """Compares, repairs if `--repair` is set, and prints the differences."""
    prepare = migrate if args.repair else check_schema
    return database_command.run(args, lambda database, _: _check(database, repair=args.repair), prepare=prepare)


async def _check(database: Database, *, repair: bool) -> int:
    remaining = await _repair(database) if repair else await find_differences(database, _show_progress)
    _print_differences(remaining)
    if STALE_SERIES.table_name in remaining.counts:
        print_message(
            "The charts were computed with another SHM_ACTIVE_WINDOW. A running server computes them again; check "
            "again after that."
        )
    if remaining.count and not repair:
        print_message(f"{_count(remaining)} found. `shm check --repair` corrects them.")
    elif remaining.count:
        print_message(f"{_count(remaining)} could not be repaired.")
    else:
        print_message("No differences: counts, KPIs, charts, spreads and first versions agree with the raw snapshots.")
    return 1 if remaining.count else 0


async def _repair(database: Database) -> Report:
    async with open_repairer(database) as repairer:
        if repairer is None:
            raise ConfigurationError("Another process is repairing this database; try again after it has ended.")
        repaired, remaining = await repairer.repair(_show_progress)
    _print_differences(repaired, prefix="repaired ")
    if repaired.count:
        print_message(f"{_count(repaired)} repaired.")
    return remaining


def _show_progress(description: str, number: int, total: int) -> None:
    print_message(f"{number} of {total}: comparing {description}")


def _print_differences(report: Report, prefix: str = "") -> None:
    for table_name, examples in report.examples.items():
        for each in examples:
            line = f"{prefix}{table_name}: {each.row_key}: is {each.actual}, should be {each.expected}"
            print_result(strip_control_characters(line))
        if report.counts[table_name] > len(examples):
            print_result(f"{prefix}{table_name}: and {report.counts[table_name] - len(examples)} more")


def _count(report: Report) -> str:
    return format_count(report.count, "difference")
