"""`shm check`: compares counts, KPIs, charts and first versions with the raw snapshots; `--repair` corrects them.

It may run while servers run. Standard output has a line for each difference. The exit status is 0 if there is none.
"""

import argparse

from shm.analytics.consistency import STALE, Report, find_differences, open_repairer
from shm.cli import database_command
from shm.cli.terminal import print_message, print_result, strip_control_characters
from shm.core.errors import ConfigurationError
from shm.core.settings import add_flags
from shm.db.database import Database
from shm.db.migrations import migrate

HELP = (
    "Recompute counts, KPIs, charts and first versions from the raw snapshots and list each difference; --repair "
    "corrects them. Spreads and what else is computed when somebody asks are not compared."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `shm migrate`, and `--repair`."""
    add_flags(parser, *database_command.FLAGS)
    parser.add_argument(
        "--repair", action="store_true", help="Mend what is derived from raw snapshots; those stay as they are."
    )


def run(args: argparse.Namespace) -> int:
    """Compares, mends where that was asked for, and says what it found."""
    return database_command.run(args, lambda database, _: _check(database, repair=args.repair))


async def _check(database: Database, *, repair: bool) -> int:
    await migrate(database)
    left = await _repair(database) if repair else await find_differences(database)
    _print_differences(left, "")
    if STALE.part in left.counts:
        print_message(
            "Charts are those of another SHM_ACTIVE_WINDOW: a server that runs computes them anew. Check again then."
        )
    if left.count and not repair:
        print_message(f"{_differences(left.count)}. `shm check --repair` mends them.")
    elif left.count:
        print_message(f"{_differences(left.count)} could not be mended.")
    else:
        print_message("Counts, KPIs, charts and first versions are what the raw snapshots make them.")
    return 1 if left.count else 0


async def _repair(database: Database) -> Report:
    async with open_repairer(database) as mender:
        if mender is None:
            raise ConfigurationError("Another process is mending figures on this database; try again when it is done.")
        mended, left = await mender.repair()
    _print_differences(mended, "mended ")
    if mended.count:
        print_message(f"Mended {_differences(mended.count)}.")
    return left


def _print_differences(findings: Report, before: str) -> None:
    for part, shown in findings.examples.items():
        for each in shown:
            print_result(
                strip_control_characters(f"{before}{part}: {each.place}: is {each.actual}, should be {each.expected}")
            )
        if findings.counts[part] > len(shown):
            print_result(f"{before}{part}: and {findings.counts[part] - len(shown)} more")


def _differences(count: int) -> str:
    return "1 difference" if count == 1 else f"{count} differences"
